//! The node itself, and its lease.

use kubeedge_core::{
    answer::ApiStatus,
    names::NodeName,
    resource::{ObjectPath, ResourceType},
};
use serde_json::{Map, Value, json};

use super::{
    authorize::{forbidden, found, own_lease, own_node},
    restrict::{forbidden_label, has_owners, strip, take_roles},
    uplink::{Done, EdgeUplinks, Outcome, Parts, Request},
};
use crate::{
    hub::{Downlink, ObjectChange, ObjectEvent},
    object::{Kind, NodeObject},
};

/// Annotation with the address of the cloud that holds the session of a node.
const CLOUDCORE: &str = "cloudcore";
const ATTEMPTS: u32 = 3;

impl Parts {
    /// Creates the node with all its labels. In the node's own name, those of Kubernetes that `NodeRestriction` refuses have
    /// to be written after that in the name of the cloud, as upstream always does.
    pub(super) async fn create_node(&self, request: &Request<'_>) -> Outcome {
        own_node(request)?;
        let mut node = request.object(&Kind::NODE)?;
        self.restrict_new_node(request, &mut node).await?;
        if let Some(advertise) = &self.advertise {
            if !node["metadata"]["annotations"].is_object() {
                node["metadata"]["annotations"] = json!({});
            }
            node["metadata"]["annotations"][CLOUDCORE] = advertise.as_str().into();
        }
        let roles = if self.impersonates() { take_roles(&mut node["metadata"]["labels"]) } else { Map::new() };
        match self.calls_of(request.node).create(&Kind::NODE, None, &node).await {
            Ok(created) if roles.is_empty() => Ok(Done::object(&created)),
            Ok(_) => self.label(request, roles).await.map(|labelled| Done::object(&labelled)),
            Err(status) => {
                if status.is_already_exists() {
                    // The cloud may have gone between the two writes of before.
                    if !roles.is_empty() {
                        self.label(request, roles).await?;
                    }
                    self.start_over(request.node).await;
                }
                Err(status)
            }
        }
    }

    /// Refuses what a node may not say of itself. One that is there already is not created anyway, and must learn that to
    /// go on: then it is only left out.
    async fn restrict_new_node(&self, request: &Request<'_>, node: &mut Value) -> Result<(), ApiStatus> {
        let why = match forbidden_label(&Value::Null, node) {
            Some(label) => format!("a node may not set label {label}"),
            None if has_owners(node) => "a node may not name its owners".to_owned(),
            None => return Ok(()),
        };
        if found(self.calls.get(request.place(&Kind::NODE)).await)?.is_none() {
            return Err(forbidden(request, &why));
        }
        strip(node);
        Ok(())
    }

    async fn label(&self, request: &Request<'_>, labels: Map<String, Value>) -> Result<Value, ApiStatus> {
        self.calls.merge(request.place(&Kind::NODE), &json!({ "metadata": { "labels": labels } })).await
    }

    /// Sends a node all that it should have, whatever it has acknowledged once. An edge that registers although its node
    /// is there may have lost its store; a Go edge does so at each start, and takes no harm from what it has already.
    async fn start_over(&self, node: &NodeName) {
        let count = self.truth.resync(node, &[], false);
        tracing::info!(%node, objects = count, "node registers anew, everything is sent again");
        // A Go edge cannot go on without its node, and this one may lack the label of an edge node.
        if count == 0
            && let Ok(value) = self.calls.get((&Kind::NODE, None, node.as_str())).await
            && let Ok(object) = NodeObject::new(&Kind::NODE, value)
        {
            let change = ObjectChange::new(ObjectEvent::Update, object.into());
            let _absent = self.hub.send(node, Downlink::Object(change));
        }
    }

    pub(super) async fn query_node(&self, request: &Request<'_>) -> Outcome {
        own_node(request)?;
        self.calls_of(request.node).get(request.place(&Kind::NODE)).await.map(|node| Done::object_at(&node))
    }

    /// Takes over labels and annotations only. Labels that are not the node's to set must be as they are.
    pub(super) async fn update_node(&self, request: &Request<'_>) -> Outcome {
        own_node(request)?;
        let body = request.body()?;
        let stored = self.calls.get(request.place(&Kind::NODE)).await?;
        if let Some(label) = forbidden_label(&stored, &body) {
            return Err(forbidden(request, &format!("a node may not set label {label}")));
        }
        let metadata = &body["metadata"];
        let mut labels = metadata["labels"].clone();
        // What the node does not change, it does not write.
        if let Some(labels) = labels.as_object_mut() {
            labels.retain(|label, value| stored["metadata"]["labels"][label.as_str()] != *value);
        }
        let roles = if self.impersonates() { take_roles(&mut labels) } else { Map::new() };
        let patch = json!({ "metadata": { "labels": labels, "annotations": metadata["annotations"] } });
        // A key that is null would be removed.
        let patch = without_nulls(patch);
        let written = self.calls_of(request.node).merge(request.place(&Kind::NODE), &patch).await?;
        if roles.is_empty() {
            return Ok(Done::at(&written));
        }
        self.label(request, roles).await.map(|labelled| Done::at(&labelled))
    }

    /// Patches the status of the node and its annotations. Labels, taints and owners are not part of the status, though the
    /// API would take labels here.
    pub(super) async fn patch_node(&self, request: &Request<'_>) -> Outcome {
        own_node(request)?;
        let mut patch = request.body()?;
        if let Some(members) = patch.as_object_mut() {
            members.retain(|member, _| matches!(member.as_str(), "status" | "metadata"));
        }
        if let Some(metadata) = patch["metadata"].as_object_mut() {
            metadata.retain(|member, _| member == "annotations");
        } else if let Some(members) = patch.as_object_mut() {
            members.remove("metadata");
        }
        let calls = self.calls_of(request.node);
        calls.strategic_status(request.place(&Kind::NODE), &patch).await.map(|node| Done::object_at(&node))
    }

    pub(super) async fn create_lease(&self, request: &Request<'_>) -> Outcome {
        own_lease(request)?;
        let lease = request.object(&Kind::LEASE)?;
        self.calls_of(request.node)
            .create(&Kind::LEASE, request.namespace(), &lease)
            .await
            .map(|lease| Done::object(&lease))
    }

    pub(super) async fn update_lease(&self, request: &Request<'_>) -> Outcome {
        own_lease(request)?;
        let lease = request.object(&Kind::LEASE)?;
        self.calls_of(request.node).replace(request.place(&Kind::LEASE), &lease).await.map(|lease| Done::object(&lease))
    }

    pub(super) async fn query_lease(&self, request: &Request<'_>) -> Outcome {
        own_lease(request)?;
        self.calls_of(request.node).get(request.place(&Kind::LEASE)).await.map(|lease| Done::object(&lease))
    }
}

fn without_nulls(mut patch: Value) -> Value {
    if let Some(metadata) = patch["metadata"].as_object_mut() {
        metadata.retain(|_, members| !members.is_null());
        for members in metadata.values_mut().filter_map(Value::as_object_mut) {
            members.retain(|_, value| !value.is_null());
        }
    }
    patch
}

impl EdgeUplinks {
    /// Notes at the node that its session is here, unless that stands there already or there is no such node yet.
    ///
    /// Upstream: `cloud/pkg/cloudhub/session` (`UpdateAnnotation`).
    pub(super) async fn annotate(&self, node: &NodeName) {
        let parts = &*self.0;
        let Some(advertise) = &parts.advertise else { return };
        let Ok(path) = ObjectPath::cluster(ResourceType::Node, node.as_str()) else { return };
        let stands = parts.truth.placement().object(&path).is_some_and(|object| {
            object
                .content
                .parse::<Value>()
                .is_ok_and(|node| node["metadata"]["annotations"][CLOUDCORE].as_str() == Some(advertise.as_str()))
        });
        if stands {
            return;
        }
        let patch = json!({ "metadata": { "annotations": { CLOUDCORE: advertise } } });
        for attempt in 1..=ATTEMPTS {
            match parts.calls.merge((&Kind::NODE, None, node.as_str()), &patch).await {
                Ok(_) => return,
                Err(status) if status.is_not_found() => return,
                Err(status) => tracing::debug!(%node, attempt, message = status.message, "node not annotated"),
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}
