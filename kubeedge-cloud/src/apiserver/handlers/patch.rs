//! Patches.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, body};
use crate::apiserver::{
    lifecycle::{self, Part, decode, metadata},
    patch::{self, Applied, track},
    reply::Reply,
    service::BODY_LIMIT,
    status::{ApiError, FieldError, Subject},
    store::{Object, Transaction},
};

/// What a patch body says.
enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    Apply { config: Value, manager: String, force: bool },
}

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const ACCEPTED_BUILTIN: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

fn parse(call: &Call) -> Result<Patch, ApiError> {
    let request = &call.request;
    let object = |value: Value| {
        if value.is_object() { Ok(value) } else { Err(ApiError::bad_request("the patch must be an object")) }
    };
    match request.content_type() {
        "application/json-patch+json" => {
            let bad = |error| ApiError::bad_request(format!("couldn't parse the body as a JSON patch: {error}"));
            serde_json::from_slice(&request.body).map(Patch::Json).map_err(bad)
        }
        "application/merge-patch+json" => object(body::json(&request.body)?).map(Patch::Merge),
        "application/strategic-merge-patch+json" if !call.resource().is_custom() => {
            object(body::json(&request.body)?).map(Patch::Strategic)
        }
        "application/apply-patch+yaml" => {
            let Some(manager) = request.query.text("fieldManager") else {
                let subject =
                    Subject { group: "meta.k8s.io".into(), resource: "PatchOptions".into(), name: String::new() };
                return Err(ApiError::invalid(subject, &[FieldError::required("fieldManager")]));
            };
            let config = object(body::yaml(&request.body)?)?;
            Ok(Patch::Apply { config, manager: manager.to_owned(), force: request.query.flag("force") })
        }
        _ if call.resource().is_custom() => Err(ApiError::unsupported_media_type(ACCEPTED)),
        _ => Err(ApiError::unsupported_media_type(ACCEPTED_BUILTIN)),
    }
}

pub(super) async fn patch(call: Call, part: Part) -> Result<Reply, ApiError> {
    let dry = call.request.query.dry_run()?;
    let mut patch = parse(&call)?;
    let mut warnings = Vec::new();
    if let Patch::Apply { config, .. } = &mut patch {
        if config.pointer("/metadata/managedFields").is_some_and(|m| m.as_array().is_none_or(|m| !m.is_empty())) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        warnings = call.decode(config)?;
        call.body_namespace(config)?;
    }
    let work = Work {
        target: call.target().clone(),
        key: call.key(),
        metadata: call.types.schema("ObjectMeta"),
        validation: call.request.query.field_validation()?,
        manager: call.request.field_manager(),
        part,
    };
    let (stored, code, more) = call.store.write(dry, move |transaction| work.run(transaction, patch)).await?;
    warnings.extend(more);
    Ok(call.written(code, stored, warnings))
}

/// Operations that a JSON patch may have, and copies among them, as each can double the object.
const OPERATIONS: usize = 10_000;
const COPIES: usize = 100;

fn patch_json(object: &mut Value, patch: &json_patch::Patch) -> Result<(), ApiError> {
    let is_copy = |operation: &json_patch::PatchOperation| matches!(operation, json_patch::PatchOperation::Copy(_));
    if patch.0.len() > OPERATIONS || patch.0.iter().filter(|operation| is_copy(operation)).count() > COPIES {
        let why = format!("the JSON patch has more than {OPERATIONS} operations or {COPIES} copies");
        return Err(ApiError::bad_request(why));
    }
    for operation in &patch.0 {
        json_patch::patch(object, std::slice::from_ref(operation)).map_err(|error| {
            ApiError::unprocessable(format!("the server rejected our request due to an error in our request: {error}"))
        })?;
        if is_copy(operation) && object.to_string().len() > BODY_LIMIT {
            return Err(ApiError::too_large(BODY_LIMIT));
        }
    }
    Ok(())
}

struct Work {
    target: lifecycle::Target,
    key: crate::apiserver::store::Key,
    metadata: std::sync::Arc<crate::apiserver::schema::Schema>,
    validation: lifecycle::FieldValidation,
    manager: String,
    part: Part,
}

type Outcome = Result<(Value, StatusCode, Vec<String>), ApiError>;

impl Work {
    fn run(self, transaction: &mut Transaction<'_>, patch: Patch) -> Outcome {
        let old = transaction.get(&self.target.resource, &self.key);
        match (old, patch) {
            (old, Patch::Apply { config, manager, force }) => {
                self.apply(transaction, old.as_ref(), config, &manager, force)
            }
            (None, _) => Err(ApiError::not_found(self.target.resource.subject(&self.key.name))),
            (Some(old), patch) => self.change(transaction, &old, patch),
        }
    }

    fn change(self, transaction: &mut Transaction<'_>, old: &std::sync::Arc<Object>, patch: Patch) -> Outcome {
        let mut object = old.value();
        object["apiVersion"] = self.target.api_version().into();
        match patch {
            Patch::Json(patch) => patch_json(&mut object, &patch)?,
            Patch::Merge(patch) => json_patch::merge(&mut object, &patch),
            Patch::Strategic(patch) => {
                object = patch::strategic(&self.target.schema(), object, patch).map_err(ApiError::bad_request)?;
            }
            // Taken care of by the caller.
            Patch::Apply { .. } => {}
        }
        let warnings = decode(&self.target, &self.metadata, &mut object, self.validation)?;
        track(&self.target, old, &mut object, &self.manager, self.part, transaction.now());
        let stored = lifecycle::update(transaction, &self.target, old, object, self.part)?;
        Ok((stored, StatusCode::OK, warnings))
    }

    fn apply(
        self,
        transaction: &mut Transaction<'_>,
        old: Option<&std::sync::Arc<Object>>,
        config: Value,
        manager: &str,
        force: bool,
    ) -> Outcome {
        let now = transaction.now();
        let mut live = old.map_or_else(|| json!({}), |object| object.value());
        if !self.key.name.is_empty() {
            let given = config.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            if !given.is_empty() && given != &*self.key.name {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({given}) does not match the name on the URL ({})",
                    self.key.name
                )));
            }
        }
        live["apiVersion"] = self.target.api_version().into();
        live["kind"] = self.target.resource.kind.as_str().into();
        let apply = Applied { manager, force, part: self.part };
        let mut object = patch::apply(&self.target, &live, config, &apply, now)?;
        let warnings = decode(&self.target, &self.metadata, &mut object, self.validation)?;
        match old {
            Some(old) => {
                let stored = lifecycle::update(transaction, &self.target, old, object, self.part)?;
                Ok((stored, StatusCode::OK, warnings))
            }
            None if self.part == Part::Main => {
                let metadata = metadata(&mut object);
                if metadata.get("uid").is_some() || metadata.get("resourceVersion").is_some() {
                    return Err(ApiError::not_found(self.target.resource.subject(&self.key.name)));
                }
                metadata.insert("name".to_owned(), (&*self.key.name).into());
                let stored = lifecycle::create(transaction, &self.target, &self.key.namespace, object)?;
                Ok((stored, StatusCode::CREATED, warnings))
            }
            None => Err(ApiError::not_found(self.target.resource.subject(&self.key.name))),
        }
    }
}
