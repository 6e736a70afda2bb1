//! Which devices a node has, as Go edges want to be told beside the devices themselves.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use kubeedge_core::{
    message::{Content, Message},
    names::{MessageId, NodeName, SharedClock},
    resource::{ObjectPath, Resource, ResourceType},
    words::{Group, Operation, Source},
};
use serde_json::{Value, json};

use crate::{
    hub::{Downlink, HubHandle},
    object::NodeObject,
    sync::{Followed, Truth},
};

/// Tells nodes of devices that come and go. The messages are not acknowledged, so each node that connects is told all of
/// its devices; upstream never does that.
pub(super) struct Membership {
    truth: Truth,
    hub: HubHandle,
    clock: SharedClock,
    /// The node of each device as it was told last.
    told: Mutex<BTreeMap<ObjectPath, NodeName>>,
}

impl Membership {
    pub(super) fn new(truth: Truth, hub: HubHandle, clock: SharedClock) -> Self {
        Self { truth, hub, clock, told: Mutex::default() }
    }

    /// Tells the nodes concerned of what has changed.
    pub(super) fn follow(&self, followed: Followed<'_>) {
        match followed {
            Followed::Applied(path) => {
                let (node, object) = {
                    let placement = self.truth.placement();
                    (placement.binding(path).cloned(), placement.object(path))
                };
                let device = object.map_or_else(|| brief(path), |object| describe(&object));
                let old = {
                    let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                    match &node {
                        Some(node) => told.insert(path.clone(), node.clone()),
                        None => told.remove(path),
                    }
                };
                if old != node {
                    if let Some(old) = old {
                        self.tell(&old, Resource::Membership, &delta(None, Some(brief(path))));
                    }
                    if let Some(node) = node {
                        self.tell(&node, Resource::Membership, &delta(Some(device), None));
                    }
                }
            }
            Followed::Deleted(path) => self.gone(path),
            Followed::Listed => {
                let bound: BTreeMap<_, _> = {
                    let placement = self.truth.placement();
                    placement.bound(&ResourceType::Device).map(|(path, node)| (path.clone(), node.clone())).collect()
                };
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for path in told.keys().filter(|path| !bound.contains_key(path)) {
                    self.gone(path);
                }
            }
        }
    }

    fn gone(&self, path: &ObjectPath) {
        let old = self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        if let Some(node) = old {
            self.tell(&node, Resource::Membership, &delta(None, Some(brief(path))));
        }
    }

    /// Tells `node` all of its devices. A Go edge adds those that it lacks and removes all others.
    pub(super) fn tell_all(&self, node: &NodeName) {
        let devices = self.truth.placement().of_node(node, &ResourceType::Device);
        let devices: Vec<Value> = devices
            .iter()
            .map(|object| {
                let mut device = describe(object);
                // Without it, a Go edge complains about each device that it knows.
                device["twin"] = json!({});
                device
            })
            .collect();
        self.tell(node, Resource::MembershipDetail, &json!({ "devices": devices }));
    }

    fn tell(&self, node: &NodeName, resource: Resource, body: &Value) {
        let now = self.clock.now();
        let mut event = json!({ "event_id": MessageId::random().as_str(), "timestamp": now.0 });
        if let (Some(event), Some(body)) = (event.as_object_mut(), body.as_object()) {
            event.extend(body.clone());
        }
        let Ok(content) = Content::json(&event) else { return };
        let message =
            Message::new(now, Source::DeviceController, Group::Twin, Operation::Update, resource).content(content);
        let _absent = self.hub.send(node, Downlink::Notice(message));
    }
}

/// The list that is not used is `null`.
fn delta(added: Option<Value>, removed: Option<Value>) -> Value {
    json!({ "added_devices": added.map(|device| [device]), "removed_devices": removed.map(|device| [device]) })
}

fn brief(path: &ObjectPath) -> Value {
    let namespace = path.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
    let name = path.name.as_ref().map(ToString::to_string).unwrap_or_default();
    json!({ "id": format!("{namespace}/{name}"), "name": name })
}

fn describe(object: &NodeObject) -> Value {
    let mut device = brief(&object.path);
    if let Ok(value) = object.content.parse::<Value>()
        && let Some(description) = value["metadata"]["labels"]["description"].as_str()
    {
        device["description"] = description.into();
    }
    device
}
