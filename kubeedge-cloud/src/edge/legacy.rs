//! The status of nodes and pods as edges before v1.10 send it.

use kubeedge_core::{
    answer::ApiStatus,
    message::Message,
    names::{NodeName, ObjectName},
    resource::{ObjectPath, Resource, ResourceType},
    words::{Group, Operation, Source},
};
use serde_json::{Value, json};

use super::{
    authorize::{found, is_bound_to, own_node},
    uplink::{Done, Outcome, Parts, Request},
};
use crate::{hub::Downlink, object::Kind};

impl Parts {
    /// Creates the node if it is not there.
    pub(super) async fn insert_node_status(&self, request: &Request<'_>) -> Outcome {
        own_node(request)?;
        if found(self.calls.get(request.place(&Kind::NODE)).await)?.is_none() {
            self.create_node(request).await?;
        }
        Ok(Done::ok())
    }

    /// `{"UID", "Status", "ExtendResources"}`: the status replaces that of the node, but for what only the cloud knows.
    pub(super) async fn update_node_status(&self, request: &Request<'_>) -> Outcome {
        own_node(request)?;
        let body = request.body()?;
        let mut node = self.calls.get(request.place(&Kind::NODE)).await?;
        let mut status = body["Status"].clone();
        if !status.is_object() {
            return Err(ApiStatus::failure(400, "BadRequest", format!("{} has no Status", request.path)));
        }
        status["volumesAttached"] = node["status"]["volumesAttached"].clone();
        if status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap_or(0) == 0 {
            status["daemonEndpoints"] = node["status"]["daemonEndpoints"].clone();
        }
        node["status"] = status;
        let written = self.calls_of(request.node).replace_status(request.place(&Kind::NODE), &node).await?;
        let resources = body["ExtendResources"].as_object();
        let annotations: serde_json::Map<String, Value> =
            resources.into_iter().flatten().map(|(name, list)| (name.clone(), list.to_string().into())).collect();
        if !annotations.is_empty() {
            let patch = json!({ "metadata": { "annotations": annotations } });
            self.calls_of(request.node).merge(request.place(&Kind::NODE), &patch).await?;
        }
        Ok(Done::at(&written))
    }

    /// `{"UID", "Name", "Status"}`. Of a pod that is gone, or another one by now, the edge is told so.
    pub(super) async fn update_pod_status(&self, request: &Request<'_>) -> Outcome {
        let body = request.body()?;
        let status = &body["Status"];
        if !status.is_object() {
            return Err(ApiStatus::failure(400, "BadRequest", format!("{} has no Status", request.path)));
        }
        let pod = found(self.calls.get(request.place(&Kind::POD)).await)?;
        let Some(mut pod) = pod.filter(|pod| pod["metadata"]["uid"] == body["UID"]) else {
            self.tell_gone(request.node, request.path);
            return Ok(Done::ok());
        };
        if !is_bound_to(&pod, request.node) {
            return Err(super::authorize::forbidden(request, "the pod is not bound to the node"));
        }
        let started = pod["status"]["startTime"].clone();
        pod["status"] = status.clone();
        if started.is_string() {
            pod["status"]["startTime"] = started;
        }
        let written = self.calls_of(request.node).replace_status(request.place(&Kind::POD), &pod).await?;
        let ended = matches!(written["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if ended && written["metadata"]["deletionTimestamp"].is_string() {
            let options = json!({
                "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                "preconditions": { "uid": body["UID"] },
            });
            found(self.calls_of(request.node).delete(request.place(&Kind::POD), &options).await)?;
        }
        Ok(Done::ok())
    }

    /// Several at once; answered for each pod as upstream does, but in one message as there is only one request.
    pub(super) async fn pod_statuses(&self, node: &NodeName, path: &ObjectPath, message: &Message) -> Option<Message> {
        let statuses: Vec<Value> = message.content.parse().ok()?;
        let mut failed = None;
        for status in statuses {
            let name = status["Name"].as_str().and_then(|name| ObjectName::new(name).ok());
            let (Some(name), Ok(content)) = (name, kubeedge_core::message::Content::json(&status)) else { continue };
            let path = ObjectPath { name: Some(name.clone()), ..path.clone() };
            let request = Request { node, path: &path, name: &name, content: &content };
            if let Err(status) = self.update_pod_status(&request).await {
                failed = Some(status);
            }
        }
        let answer = match failed {
            None => kubeedge_core::answer::Answer::Done,
            Some(status) => kubeedge_core::answer::Answer::Refused(status),
        };
        Some(self.reply(message, message.resource.clone()).content(answer.to_bare().ok()?))
    }

    fn tell_gone(&self, node: &NodeName, path: &ObjectPath) {
        let metadata = json!({
            "metadata": {
                "name": path.name.as_ref().map(ObjectName::as_str),
                "namespace": path.namespace.as_ref().map(kubeedge_core::names::Namespace::as_str),
            },
        });
        let path = ObjectPath { kind: ResourceType::Pod, ..path.clone() };
        let message = Message::new(
            self.clock.now(),
            Source::EdgeController,
            Group::Resource,
            Operation::Delete,
            Resource::Object(path),
        );
        if let Ok(content) = kubeedge_core::message::Content::json(&metadata) {
            let _absent = self.hub.send(node, Downlink::Notice(message.content(content)));
        }
    }
}
