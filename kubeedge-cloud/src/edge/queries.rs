//! What pods need, and a node asks for; and its events.

use kubeedge_core::{
    answer::ApiStatus,
    names::NodeName,
    resource::{ObjectPath, ResourceType},
    words::Operation,
};
use serde_json::Value;

use super::{
    authorize::{forbidden, found},
    uplink::{Done, Outcome, PATIENCE, Parts, Request},
};
use crate::object::Kind;

impl Parts {
    /// A ConfigMap or Secret of one of its pods.
    pub(super) async fn query_configuration(&self, request: &Request<'_>, kind: &Kind) -> Outcome {
        self.referenced(request).await?;
        let held = self.truth.placement().object(request.path);
        if let Some(object) = held {
            return Ok(Done::content_at(object.content.clone(), object.version));
        }
        self.calls_of(request.node).get(request.place(kind)).await.map(|object| Done::object_at(&object))
    }

    pub(super) async fn query_claim(&self, request: &Request<'_>) -> Outcome {
        self.referenced(request).await?;
        let calls = self.calls_of(request.node);
        calls.get(request.place(&Kind::VOLUME_CLAIM)).await.map(|claim| Done::object_at(&claim))
    }

    /// A volume that is claimed by one of its pods. Of any other the node does not learn whether it is there.
    pub(super) async fn query_volume(&self, request: &Request<'_>) -> Outcome {
        let volume = found(self.calls.get(request.place(&Kind::VOLUME)).await)?.unwrap_or_default();
        let claim = &volume["spec"]["claimRef"];
        let claim = claim["namespace"].as_str().zip(claim["name"].as_str()).and_then(|(namespace, name)| {
            ObjectPath::namespaced(namespace, ResourceType::PersistentVolumeClaim, name).ok()
        });
        self.truth.ready(&[ResourceType::Node, ResourceType::Pod], PATIENCE).await?;
        if claim.is_some_and(|claim| self.truth.placement().needs(request.node, &claim)) {
            Ok(Done::object_at(&volume))
        } else {
            Err(forbidden(request, "no pod of the node claims it"))
        }
    }

    /// An attachment to the node. The namespace that Go edges write has no meaning.
    pub(super) async fn query_attachment(&self, request: &Request<'_>) -> Outcome {
        let attachment = found(self.calls.get(request.place(&Kind::VOLUME_ATTACHMENT)).await)?.unwrap_or_default();
        if attachment["spec"]["nodeName"].as_str() == Some(request.node.as_str()) {
            Ok(Done::object_at(&attachment))
        } else {
            Err(forbidden(request, "nothing of that name is attached to the node"))
        }
    }

    /// A token of a service account, for one of the pods of the node that run under it, and bound to that pod.
    pub(super) async fn request_token(&self, request: &Request<'_>) -> Outcome {
        let mut body = request.body()?;
        self.referenced(request).await?;
        let bound = &body["spec"]["boundObjectRef"];
        let pod = bound["name"].as_str().filter(|_| bound["kind"].as_str() == Some("Pod"));
        let pod = pod.and_then(|name| ObjectPath::namespaced(request.namespace()?, ResourceType::Pod, name).ok());
        match pod {
            Some(pod) => self.node_needs(request, &pod).await?,
            None => return Err(forbidden(request, "the token is not bound to a pod")),
        }
        body["apiVersion"] = "authentication.k8s.io/v1".into();
        body["kind"] = "TokenRequest".into();
        let token =
            self.calls_of(request.node).create_sub(request.place(&Kind::SERVICE_ACCOUNT), "token", &body).await?;
        Ok(Done::object(&token))
    }

    /// Writes an event that the node itself reports.
    pub(super) async fn write_event(&self, request: &Request<'_>, operation: &Operation) -> Result<(), ApiStatus> {
        let place = request.place(&Kind::EVENT);
        if *operation == Operation::Patch {
            let body = request.body()?;
            check_reporter(request, &body["event"])?;
            let text = body["patchData"].as_str().unwrap_or_default();
            let patch: Value = serde_json::from_str(text).map_err(|err| {
                ApiStatus::failure(400, "BadRequest", format!("patchData of {}: {err}", request.path))
            })?;
            // The event in the API has to be one of the node as well: the one in the message is only a claim.
            let stored = self.calls.get(place).await?;
            check_reporter(request, &stored)?;
            return self.calls_of(request.node).strategic(place, &patch).await.map(drop);
        }
        let event = request.object(&Kind::EVENT)?;
        check_reporter(request, &event)?;
        if *operation == Operation::Insert {
            return self.calls_of(request.node).create(&Kind::EVENT, request.namespace(), &event).await.map(drop);
        }
        let stored = self.calls.get(place).await?;
        check_reporter(request, &stored)?;
        self.calls_of(request.node).replace(place, &event).await.map(drop)
    }
}

fn check_reporter(request: &Request<'_>, event: &Value) -> Result<(), ApiStatus> {
    let node: &NodeName = request.node;
    let reporter = event["source"]["host"].as_str().or_else(|| event["reportingInstance"].as_str());
    if reporter == Some(node.as_str()) { Ok(()) } else { Err(forbidden(request, "another node reports it")) }
}
