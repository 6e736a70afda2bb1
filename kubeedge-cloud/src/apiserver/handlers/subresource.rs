//! Bindings of pods and tokens of service accounts.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, body, not_allowed};
use crate::apiserver::{
    lifecycle::{self, Part, seconds},
    reply::Reply,
    schema::coerce,
    status::{ApiError, FieldError, Subject},
    store::Key,
    token::{self, Bound},
};

/// Tokens live this long at least, in seconds.
const SHORTEST_TOKEN: i64 = 600;
/// And this long unless they say otherwise.
const USUAL_TOKEN: i64 = 3600;

/// Binds a pod to a node.
pub(super) async fn bind(call: Call) -> Result<Reply, ApiError> {
    if call.request.method != http::Method::POST {
        return Err(not_allowed());
    }
    let binding = body::object(&call.request, Some(&call.types.schema("Binding")))?;
    let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if node.is_empty() {
        let subject = Subject { resource: "Binding".to_owned(), ..call.resource().subject(&call.key().name) };
        return Err(ApiError::invalid(subject, &[FieldError::required("target.name")]));
    }
    let (target, key, dry) = (call.target().clone(), call.key(), call.request.query.dry_run()?);
    call.store
        .write(dry, move |transaction| {
            let old = transaction.get(&target.resource, &key);
            let old = old.ok_or_else(|| ApiError::not_found(target.resource.subject(&key.name)))?;
            let mut pod = old.value();
            if let Some(bound) = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty()) {
                let why = format!("pod {} is already assigned to node {bound:?}", key.name);
                return Err(ApiError::conflict(target.resource.subject(&key.name), &why));
            }
            if !pod["status"].is_object() {
                pod["status"] = json!({});
            }
            pod["spec"]["nodeName"] = node.into();
            let condition = json!({"type": "PodScheduled", "status": "True",
                "lastTransitionTime": seconds(transaction.now())});
            let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(condition);
            pod["status"]["conditions"] = conditions.into();
            lifecycle::update(transaction, &target, &old, pod, Part::Binding)
        })
        .await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Reply::json(StatusCode::CREATED, &status))
}

/// Signs a token for a service account.
pub(super) fn token(call: &Call) -> Result<Reply, ApiError> {
    if call.request.method != http::Method::POST {
        return Err(not_allowed());
    }
    let schema = call.types.schema("TokenRequest");
    let mut request = body::object(&call.request, Some(&schema))?;
    if let Some(why) = coerce(&schema, &mut request).error {
        return Err(ApiError::bad_request(format!("the token request cannot be read: {why}")));
    }
    let key = call.key();
    let state = call.store.state();
    let account = state.get(&call.resource().id, &key);
    let account = account.ok_or_else(|| ApiError::not_found(call.resource().subject(&key.name)))?;
    let spec = request["spec"].clone();
    let lifetime = spec["expirationSeconds"].as_i64().unwrap_or(USUAL_TOKEN);
    let subject = || Subject {
        group: "authentication.k8s.io".to_owned(),
        resource: "TokenRequest".to_owned(),
        name: String::new(),
    };
    if !(SHORTEST_TOKEN..=1 << 32).contains(&lifetime) {
        let why = "may not specify a duration less than 10 minutes or larger than 2^32 seconds";
        let errors = [FieldError::invalid("spec.expirationSeconds", &lifetime.into(), why)];
        return Err(ApiError::invalid(subject(), &errors));
    }
    let mut audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(token::ISSUER.to_owned());
    }
    let bound = bound(call, &spec, &key)?;
    let now = call.store.now();
    let (text, expires) =
        token::sign(&call.store.secrets().signing_key, &key, &account.uid, &audiences, bound, now, lifetime)?;
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["kind"] = "TokenRequest".into();
    request["metadata"] = json!({"name": &*key.name, "namespace": &*key.namespace,
        "creationTimestamp": seconds(now)});
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = lifetime.into();
    request["status"] = json!({"token": text, "expirationTimestamp": seconds(expires)});
    Ok(Reply::json(StatusCode::CREATED, &request))
}

/// The object to whose life the token is bound.
fn bound(call: &Call, spec: &Value, account: &Key) -> Result<Option<Bound>, ApiError> {
    let reference = &spec["boundObjectRef"];
    if reference.is_null() {
        return Ok(None);
    }
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let registry = call.store.state().registry();
    let kind = text("kind");
    let Some(resource) = registry.by_kind("", kind).filter(|_| matches!(kind, "Pod" | "Secret" | "Node")) else {
        return Err(ApiError::bad_request(format!("cannot bind token for serviceaccount to object of type {kind:?}")));
    };
    let key = Key::new(if resource.namespaced { &account.namespace } else { "" }, text("name"));
    let object = call.store.state().get(&resource.id, &key);
    let object = object.ok_or_else(|| ApiError::not_found(resource.subject(&key.name)))?;
    if !text("uid").is_empty() && text("uid") != &*object.uid {
        let why = format!("the UID in the bound object reference ({}) does not match the UID in record", text("uid"));
        return Err(ApiError::conflict(resource.subject(&key.name), &why));
    }
    Ok(Some(Bound { kind: kind.to_lowercase(), name: key.name.into(), uid: object.uid.clone().into() }))
}
