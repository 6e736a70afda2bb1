//! Pods: what the edge may do with those that are bound to it.

use kubeedge_core::answer::ApiStatus;
use serde_json::{Value, json};

use super::{
    authorize::{forbidden, is_bound_to},
    references::pod_facts,
    uplink::{Done, Outcome, Parts, Request},
};
use crate::object::Kind;

impl Parts {
    /// Patches the status of a pod, and nothing else: the UID in the patch makes it fail for another pod of that name.
    pub(super) async fn patch_pod(&self, request: &Request<'_>) -> Outcome {
        let mut patch = request.body()?;
        let uid = self.own_pod(request, patch["metadata"]["uid"].as_str()).await?;
        if patch["metadata"]["uid"].as_str().is_some_and(|told| told != uid.as_str()) {
            let why = format!("{} has another UID than the status is about", request.path);
            return Err(ApiStatus::failure(409, "Conflict", why));
        }
        if let Some(members) = patch.as_object_mut() {
            members.retain(|member, _| member == "status");
            members.insert("metadata".into(), json!({ "uid": uid.as_str() }));
        }
        let calls = self.calls_of(request.node);
        calls.strategic_status(request.place(&Kind::POD), &patch).await.map(|pod| Done::object_at(&pod))
    }

    /// Makes a pod known that runs from a file of the node. It may refer to nothing: what pods of a node refer to is sent to
    /// the node, so that it could read any Secret by way of a pod that it makes up.
    ///
    /// Upstream leaves that to the admission plugin `NodeRestriction`, which knows no node behind the calls of the cloud.
    pub(super) async fn create_pod(&self, request: &Request<'_>) -> Outcome {
        let pod = request.object(&Kind::POD)?;
        let mirrors = pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
        if !is_bound_to(&pod, request.node) || !mirrors {
            return Err(forbidden(request, "a node may only create mirrors of its own pods"));
        }
        if let Some(reference) = pod_facts(&pod).references.first() {
            return Err(forbidden(request, &format!("a mirror pod may not refer to {reference}")));
        }
        let calls = self.calls_of(request.node);
        calls.create(&Kind::POD, request.namespace(), &pod).await.map(|pod| Done::object_at(&pod))
    }

    /// Deletes a pod under the options of the edge. A pod that is gone, or another one by now, is deleted as far as the edge
    /// is concerned, if it names the UID of the pod that it means, as edges do.
    pub(super) async fn delete_pod(&self, request: &Request<'_>) -> Outcome {
        let mut options = delete_options(request)?;
        let uid = match self.own_pod(request, options["preconditions"]["uid"].as_str()).await {
            Ok(uid) => uid,
            Err(status) if status.is_not_found() => return Ok(Done::ok()),
            Err(status) => return Err(status),
        };
        if options["preconditions"]["uid"].as_str().is_some_and(|told| told != uid.as_str()) {
            return Ok(Done::ok());
        }
        options["preconditions"] = json!({ "uid": uid.as_str() });
        match self.calls_of(request.node).delete(request.place(&Kind::POD), &options).await {
            Ok(_) => Ok(Done::ok()),
            Err(status) if status.is_not_found() || is_another(&status) => Ok(Done::ok()),
            Err(status) => Err(status),
        }
    }
}

/// Old edges send the bare UID.
fn delete_options(request: &Request<'_>) -> Result<Value, ApiStatus> {
    let mut options = match request.content.as_text() {
        Some(uid) if !uid.trim_start().starts_with('{') => {
            json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": uid } })
        }
        _ if request.content.is_null() => json!({}),
        _ => request.body()?,
    };
    options["apiVersion"] = "v1".into();
    options["kind"] = "DeleteOptions".into();
    Ok(options)
}

/// Whether the precondition on the UID failed.
fn is_another(status: &ApiStatus) -> bool {
    status.code == 409 && status.message.contains("UID")
}
