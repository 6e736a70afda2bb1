//! The node itself, and its lease.

use kubeedge_core::{
    answer::ApiStatus,
    names::NodeName,
    resource::{ObjectPath, ResourceType},
};
use serde_json::{Value, json};

use super::{
    authorize::{own_lease, own_node},
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
    /// Creates the node with all its labels. Upstream strips those of Kubernetes and adds them in a second write, as its
    /// calls may be made in the name of the node; ours never are.
    pub(super) async fn create_node(&self, request: &Request<'_>) -> Outcome {
        own_node(request)?;
        let mut node = request.object(&Kind::NODE)?;
        if let Some(advertise) = &self.advertise {
            if !node["metadata"]["annotations"].is_object() {
                node["metadata"]["annotations"] = json!({});
            }
            node["metadata"]["annotations"][CLOUDCORE] = advertise.as_str().into();
        }
        match self.calls.create(&Kind::NODE, None, &node).await {
            Ok(created) => Ok(Done::object(&created)),
            Err(status) => {
                if status.is_already_exists() {
                    self.start_over(request.node).await;
                }
                Err(status)
            }
        }
    }

    /// Sends a node all that it should have, whatever it has acknowledged once. An edge that registers although its node
    /// is there may have lost its store; a Go edge does so at each start, and takes no harm from what it has already.
    async fn start_over(&self, node: &NodeName) {
        let count = self.truth.resync(node, &[]);
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
        self.calls.get(request.place(&Kind::NODE)).await.map(|node| Done::object_at(&node))
    }

    /// Takes over labels and annotations only.
    pub(super) async fn update_node(&self, request: &Request<'_>) -> Outcome {
        own_node(request)?;
        let body = request.body()?;
        let metadata = &body["metadata"];
        let patch = json!({ "metadata": { "labels": metadata["labels"], "annotations": metadata["annotations"] } });
        // A key that is null would be removed.
        let patch = without_nulls(patch);
        self.calls.merge(request.place(&Kind::NODE), &patch).await.map(|node| Done::at(&node))
    }

    pub(super) async fn patch_node(&self, request: &Request<'_>) -> Outcome {
        own_node(request)?;
        let patch = request.body()?;
        self.calls.strategic_status(request.place(&Kind::NODE), &patch).await.map(|node| Done::object_at(&node))
    }

    pub(super) async fn create_lease(&self, request: &Request<'_>) -> Outcome {
        own_lease(request)?;
        let lease = request.object(&Kind::LEASE)?;
        self.calls.create(&Kind::LEASE, request.namespace(), &lease).await.map(|lease| Done::object(&lease))
    }

    pub(super) async fn update_lease(&self, request: &Request<'_>) -> Outcome {
        own_lease(request)?;
        let lease = request.object(&Kind::LEASE)?;
        self.calls.replace(request.place(&Kind::LEASE), &lease).await.map(|lease| Done::object(&lease))
    }

    pub(super) async fn query_lease(&self, request: &Request<'_>) -> Outcome {
        own_lease(request)?;
        self.calls.get(request.place(&Kind::LEASE)).await.map(|lease| Done::object(&lease))
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

/// Only for the status of old edges: what `get` says of a node that may be missing.
pub(super) fn found(outcome: Result<Value, ApiStatus>) -> Result<Option<Value>, ApiStatus> {
    match outcome {
        Ok(object) => Ok(Some(object)),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}
