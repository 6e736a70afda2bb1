//! Calls of the Kubernetes API whose objects pass through unread.

use std::time::Duration;

use http::{Method, Request, header};
use kube::{Client, Error};
use kubeedge_core::{answer::ApiStatus, names::NodeName};
use serde_json::Value;

use super::Kind;

/// For the Kubernetes API to answer. The edge waits for a minute.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls on behalf of nodes: bodies are JSON as it came, and every failure is a status that an edge understands.
#[derive(Clone)]
pub(crate) struct ApiCalls {
    client: Client,
    /// In whose name, if not in that of the cloud.
    node: Option<NodeName>,
}

/// As who a call is made, if not as the one whom the client authenticates.
const IMPERSONATE_USER: &str = "impersonate-user";
const IMPERSONATE_GROUP: &str = "impersonate-group";

/// An object of the API: `(kind, namespace, name)`.
type Place<'a> = (&'a Kind, Option<&'a str>, &'a str);

impl ApiCalls {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, node: None }
    }

    /// The same calls in the name of `node`, as the API server knows it: user `system:node:<node>`, group `system:nodes`.
    pub(crate) fn as_node(&self, node: &NodeName) -> Self {
        Self { client: self.client.clone(), node: Some(node.clone()) }
    }

    pub(crate) async fn get(&self, place: Place<'_>) -> Result<Value, ApiStatus> {
        self.call(Method::GET, &item(place)?, None).await
    }

    pub(crate) async fn create(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        object: &Value,
    ) -> Result<Value, ApiStatus> {
        check_namespace(kind, namespace)?;
        self.call(Method::POST, &kind.url(namespace), Some((JSON, object))).await
    }

    pub(crate) async fn create_sub(&self, place: Place<'_>, sub: &str, body: &Value) -> Result<Value, ApiStatus> {
        self.call(Method::POST, &format!("{}/{sub}", item(place)?), Some((JSON, body))).await
    }

    pub(crate) async fn replace(&self, place: Place<'_>, object: &Value) -> Result<Value, ApiStatus> {
        self.call(Method::PUT, &item(place)?, Some((JSON, object))).await
    }

    pub(crate) async fn merge(&self, place: Place<'_>, patch: &Value) -> Result<Value, ApiStatus> {
        self.call(Method::PATCH, &item(place)?, Some((MERGE, patch))).await
    }

    pub(crate) async fn strategic(&self, place: Place<'_>, patch: &Value) -> Result<Value, ApiStatus> {
        self.call(Method::PATCH, &item(place)?, Some((STRATEGIC, patch))).await
    }

    pub(crate) async fn strategic_status(&self, place: Place<'_>, patch: &Value) -> Result<Value, ApiStatus> {
        self.call(Method::PATCH, &format!("{}/status", item(place)?), Some((STRATEGIC, patch))).await
    }

    pub(crate) async fn replace_status(&self, place: Place<'_>, object: &Value) -> Result<Value, ApiStatus> {
        self.call(Method::PUT, &format!("{}/status", item(place)?), Some((JSON, object))).await
    }

    pub(crate) async fn delete(&self, place: Place<'_>, options: &Value) -> Result<Value, ApiStatus> {
        self.call(Method::DELETE, &item(place)?, Some((JSON, options))).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value, ApiStatus> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some((media_type, _)) = body {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        if let Some(node) = &self.node {
            let user = format!("system:node:{node}");
            request = request.header(IMPERSONATE_USER, user).header(IMPERSONATE_GROUP, "system:nodes");
        }
        let body = body.map(|(_, value)| value.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(body).map_err(|err| bad_request(format!("{path} is no path: {err}")))?;
        match tokio::time::timeout(PATIENCE, self.client.request::<Value>(request)).await {
            Ok(answer) => answer.map_err(|err| status_of(&err)),
            Err(_) => Err(ApiStatus::failure(504, "Timeout", "no answer from the Kubernetes API in time")),
        }
    }
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Whether a name from outside can go into the path of a request: what Kubernetes takes for the kinds that we use.
fn is_safe_name(name: &str) -> bool {
    NodeName::new(name).is_ok()
}

fn item((kind, namespace, name): Place<'_>) -> Result<String, ApiStatus> {
    check_namespace(kind, namespace)?;
    if !is_safe_name(name) {
        return Err(bad_request(format!("{} name {name:?} must be a lower-case DNS subdomain", kind.kind)));
    }
    Ok(format!("{}/{name}", kind.url(namespace)))
}

fn check_namespace(kind: &Kind, namespace: Option<&str>) -> Result<(), ApiStatus> {
    match namespace {
        Some(namespace) if !is_safe_name(namespace) => {
            Err(bad_request(format!("namespace {namespace:?} must be a lower-case DNS label")))
        }
        None if kind.namespaced => Err(bad_request(format!("{} needs a namespace", kind.kind))),
        _ => Ok(()),
    }
}

fn bad_request(message: String) -> ApiStatus {
    ApiStatus::failure(400, "BadRequest", message)
}

/// The API could not be reached. Upstream sends the bare error of Go, which its edges take for success.
pub(crate) fn unavailable(why: &dyn std::fmt::Display) -> ApiStatus {
    ApiStatus::failure(503, "ServiceUnavailable", format!("the Kubernetes API cannot be reached: {why}"))
}

fn status_of(err: &Error) -> ApiStatus {
    match err {
        Error::Api(status) if status.code >= 400 => {
            let reason = if status.reason.is_empty() { "Unknown" } else { &status.reason };
            ApiStatus::failure(status.code, reason, &status.message)
        }
        Error::Api(status) => ApiStatus::failure(500, "InternalError", &status.message),
        err => unavailable(err),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_from_outside_stay_within_their_segment() {
        assert_eq!(item((&Kind::POD, Some("default"), "web")).unwrap(), "/api/v1/namespaces/default/pods/web");
        assert_eq!(item((&Kind::NODE, None, "edge-1")).unwrap(), "/api/v1/nodes/edge-1");
        for (namespace, name) in
            [("default", ".."), ("default", "a?x=y"), ("..", "web"), ("a/b", "web"), ("default", "a%2Fb")]
        {
            let err = item((&Kind::POD, Some(namespace), name)).unwrap_err();
            assert_eq!((err.code, err.reason.as_str()), (400, "BadRequest"), "{namespace} {name}");
        }
        assert!(item((&Kind::POD, None, "web")).is_err());
    }
}
