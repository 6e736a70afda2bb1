//! What a node may touch: itself, the pods that are bound to it, and what those refer to. Nothing else.
//!
//! Upstream checks nothing unless its authorization is switched on, which is not the default.

use kubeedge_core::{
    answer::ApiStatus,
    names::{NodeName, Uid},
    resource::{ObjectPath, ResourceType},
};
use serde_json::Value;

use super::uplink::{PATIENCE, Parts, Request};
use crate::object::Kind;

/// The answer to a request that is none of the node's business. It does not tell whether the object exists.
pub(super) fn forbidden(request: &Request<'_>, why: &str) -> ApiStatus {
    let (path, node) = (request.path, request.node);
    ApiStatus::failure(403, "Forbidden", format!("{path} is forbidden to node {node}: {why}"))
}

fn gone(request: &Request<'_>) -> ApiStatus {
    ApiStatus::failure(404, "NotFound", format!("pods \"{}\" not found", request.name))
}

/// What `get` says of an object that may be missing.
pub(super) fn found(outcome: Result<Value, ApiStatus>) -> Result<Option<Value>, ApiStatus> {
    match outcome {
        Ok(object) => Ok(Some(object)),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

/// The request has to be about the node itself.
pub(super) fn own_node(request: &Request<'_>) -> Result<(), ApiStatus> {
    if request.name.as_str() == request.node.as_str() { Ok(()) } else { Err(forbidden(request, "it is another node")) }
}

/// The lease has to be that of the node.
pub(super) fn own_lease(request: &Request<'_>) -> Result<(), ApiStatus> {
    if request.namespace() == Some("kube-node-lease") && request.name.as_str() == request.node.as_str() {
        Ok(())
    } else {
        Err(forbidden(request, "it is not the lease of the node"))
    }
}

impl Parts {
    /// One of the pods of the node has to refer to it.
    pub(super) async fn referenced(&self, request: &Request<'_>) -> Result<(), ApiStatus> {
        self.node_needs(request, request.path).await
    }

    /// The node has to need `path`.
    pub(super) async fn node_needs(&self, request: &Request<'_>, path: &ObjectPath) -> Result<(), ApiStatus> {
        self.truth.ready(&[ResourceType::Node, ResourceType::Pod], PATIENCE).await?;
        if self.truth.placement().needs(request.node, path) {
            Ok(())
        } else {
            Err(forbidden(request, "no pod of the node refers to it"))
        }
    }

    /// The pod has to be bound to the node. A pod that the watch has not shown yet, or no longer, is looked up.
    ///
    /// Gives the UID of the pod that is bound, for what follows to be about that one: by the time of the write another
    /// pod of that name may be bound to another node.
    ///
    /// A pod that is gone is only told to be so if the request names a UID, `told`, that is not that of the pod there: then
    /// the answer is the same whether there is another pod of that name or none.
    pub(super) async fn own_pod(&self, request: &Request<'_>, told: Option<&str>) -> Result<Uid, ApiStatus> {
        let path = ObjectPath { kind: ResourceType::Pod, ..request.path.clone() };
        if let Some(uid) = self.watched_pod(request.node, &path) {
            return Ok(uid);
        }
        let pod = found(self.calls.get(request.place(&Kind::POD)).await)?.unwrap_or_default();
        let uid = pod["metadata"]["uid"].as_str();
        match uid.map(Uid::new) {
            Some(Ok(uid)) if is_bound_to(&pod, request.node) => Ok(uid),
            _ if told.is_some_and(|told| uid != Some(told)) => Err(gone(request)),
            _ => Err(forbidden(request, "no such pod is bound to the node")),
        }
    }

    fn watched_pod(&self, node: &NodeName, path: &ObjectPath) -> Option<Uid> {
        let placement = self.truth.placement();
        if placement.needs(node, path) { placement.uid(path).cloned() } else { None }
    }
}

pub(super) fn is_bound_to(pod: &Value, node: &NodeName) -> bool {
    pod["spec"]["nodeName"].as_str() == Some(node.as_str())
}
