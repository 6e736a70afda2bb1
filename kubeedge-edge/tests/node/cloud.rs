//! A cloud for tests, and what it sends.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use kubeedge_core::{
    message::{Content, Message},
    names::{ResourceVersion, UnixMillis},
    resource::{ObjectPath, Resource, ResourceType},
    transport::{
        TransportHandle,
        memory::{MemoryAcceptor, MemoryLink, MemoryTransport},
    },
    words::{Group, Operation, Source},
};
use kubeedge_edge::node::{EdgeNode, EdgeNodeBuilder};
use serde_json::{Value, json};

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

/// A builder whose node dials the cloud of the test.
pub(crate) fn node() -> (EdgeNodeBuilder, MemoryAcceptor) {
    let (transport, acceptor) = MemoryTransport::new(64);
    let pause = Duration::from_millis(10);
    let builder = EdgeNode::builder("edge-1")
        .endpoint("cloud:10000")
        .transport(TransportHandle::of(transport))
        .hub(move |config| config.reconnect(pause, pause));
    (builder, acceptor)
}

/// The cloud's end of a link.
pub(crate) struct Cloud(MemoryLink);

impl Cloud {
    pub(crate) async fn accept(acceptor: &MemoryAcceptor) -> Self {
        Self(within(acceptor.accept()).await.unwrap().1)
    }

    pub(crate) async fn send(&mut self, message: Message) {
        within(self.0.send(message)).await.unwrap();
    }

    /// The next message that is not a keepalive; `None` when the edge is gone.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match within(self.0.next()).await?.ok()? {
                message if message.operation == Operation::Keepalive => {}
                message => return Some(message),
            }
        }
    }

    /// Sends an object and waits for its acknowledgement; answers requests meanwhile.
    pub(crate) async fn apply(&mut self, message: Message) {
        let id = message.id.clone();
        self.send(message).await;
        self.wait_for(|message| message.parent.as_ref() == Some(&id) && message.content.is_ok()).await;
    }

    /// Waits for a message, answering every request with "OK".
    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.next().await.expect("the edge is there");
            if message.parent.is_none() {
                let ok = Message::new(
                    UnixMillis(1),
                    Source::DeviceController,
                    Group::Twin,
                    Operation::Response,
                    Resource::TwinConfirmation,
                );
                self.send(ok.answering(&message.id).content(Content::ok())).await;
            }
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Waits until the cloud hears that `property` of `device` has `value` as what `side` says (`actual`, `expected`).
    pub(crate) async fn twin_shows(&mut self, device: &str, property: &str, side: &str, value: &str) {
        let resource = Resource::DeviceTwin(device.parse().unwrap());
        self.wait_for(|message| {
            message.resource == resource
                && message.content.parse::<Value>().unwrap()["twin"][property][side]["value"] == value
        })
        .await;
    }
}

/// A message about an object in the namespace `default`.
pub(crate) fn object(kind: ResourceType, name: &str, version: u64, mut spec: Value) -> Message {
    let metadata = json!({"name": name, "namespace": "default", "uid": format!("uid-{name}"), "resourceVersion": version.to_string()});
    spec["metadata"] = metadata;
    let path = ObjectPath::namespaced("default", kind, name).unwrap();
    Message::new(UnixMillis(1), Source::DeviceController, Group::Resource, Operation::Update, path)
        .content(Content::json(&spec).unwrap())
        .version(ResourceVersion::new(version))
}

pub(crate) fn model(version: u64) -> Message {
    let property = |name, kind| json!({"name": name, "type": kind, "accessMode": "ReadWrite"});
    object(
        ResourceType::DeviceModel,
        "boiler",
        version,
        json!({"spec": {"protocol": "memory", "properties": [property("setpoint", "INT"), property("label", "STRING")]}}),
    )
}

/// A device on `node` whose setpoint should be `setpoint`.
pub(crate) fn device(version: u64, node: &str, setpoint: &str) -> Message {
    let visitors = json!({"protocolName": "memory", "configData": {"register": 1}});
    object(
        ResourceType::Device,
        "boiler-1",
        version,
        json!({"spec": {"deviceModelRef": {"name": "boiler"}, "nodeName": node,
            "protocol": {"protocolName": "memory", "configData": {"line": 1}},
            "properties": [{"name": "setpoint", "desired": {"value": setpoint}, "visitors": visitors,
                "collectCycle": 20, "reportCycle": 1000, "reportToCloud": true}]}}),
    )
}

pub(crate) fn deleted(mut message: Message) -> Message {
    message.operation = Operation::Delete;
    message
}
