//! Commands to a device: over HTTP at the cloud, and over MQTT topics at the node.

use std::sync::Arc;

use kube::api::ListParams;
use kubeedge_core::{
    bus::{BusEvent, BusHandle, Event, Overflow},
    device::command::{CommandResult, DeviceCommand},
    meta::MetaHandle,
    names::SystemClock,
    testing::{MemoryBus, MemoryStore},
    topic::{Topic, TopicFilter},
    transport::TransportHandle,
};
use kubeedge_edge::{hub::WebSocket, node::EdgeNode};
use kubeedge_mapper::simulator;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::world::{World, eventually, soon};

const GROUP: &str = "devices.kubeedge.io/v1beta1";

async fn post(address: std::net::SocketAddr, device: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/namespaces/default/devices/{device}/command HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn a_device_is_commanded_from_the_cloud_and_from_the_node() {
    let world = World::new().await;
    let identity = world.identity("edge-1").await;
    let bus = BusHandle::of(MemoryBus::new(100));
    let node = EdgeNode::builder("edge-1")
        .endpoint(world.cloud.websocket_addr().to_string())
        .transport(TransportHandle::of(WebSocket::new(identity)))
        .meta_store(MetaHandle::of(MemoryStore::new()))
        .event_bus(bus.clone())
        .driver("simulator", simulator::Simulated::maker(Arc::new(SystemClock)))
        .spawn()
        .await
        .unwrap();
    let level = json!({"name": "level", "type": "INT", "accessMode": "ReadWrite", "maximum": "90"});
    let model = json!({"metadata": {"name": "tank"}, "spec": {"protocol": "simulator", "properties": [level]}});
    world.create(GROUP, "DeviceModel", "devicemodels", true, model).await;
    let spec = json!({
        "nodeName": "edge-1", "deviceModelRef": {"name": "tank"}, "protocol": {"protocolName": "simulator"},
        "properties": [{"name": "level", "reportToCloud": true, "visitors": {"configData": {"value": "7"}}}],
        "methods": [{"name": "fill", "propertyNames": ["level"]}],
    });
    world.create(GROUP, "Device", "devices", true, json!({"metadata": {"name": "tank-1"}, "spec": spec})).await;

    let address = world.cloud.commands_addr().unwrap();
    let read = async |expected: &str| {
        let (code, answer) = post(address, "tank-1", r#"{"event_id": "r", "read": ["level"]}"#).await;
        code == 200 && answer["values"]["level"]["value"] == expected
    };
    // The node connects, gets the device and opens it.
    eventually(async || read("7").await).await;

    let (code, answer) =
        post(address, "tank-1", r#"{"event_id": "w", "method": "fill", "write": {"level": "40"}}"#).await;
    assert_eq!((code, &answer["event_id"], &answer["values"]["level"]["value"]), (200, &json!("w"), &json!("40")));
    let (code, answer) = post(address, "tank-1", r#"{"write": {"level": "400"}}"#).await;
    assert_eq!((code, &answer["code"]), (400, &json!(400)), "{answer}");
    let (code, _) = post(address, "nobody", r#"{"read": ["level"]}"#).await;
    assert_eq!(code, 404);
    let (code, answer) = post(address, "tank-1", r#"{"raed": ["level"]}"#).await;
    assert!(code == 422 && answer["reason"].as_str().unwrap().contains("raed"), "{answer}");
    assert!(read("40").await, "what was refused was not written");

    let filter = TopicFilter::new("$hw/events/device/default/tank-1/command/result").unwrap();
    let mut results = bus.subscribe(filter, Overflow::HoldPublisher).await.unwrap();
    let command = Topic::new("$hw/events/device/default/tank-1/command").unwrap();
    bus.publish(Event::new(command, r#"{"event_id": "m", "write": {"level": "41"}}"#)).await.unwrap();
    let Some(BusEvent::Message(event)) = soon(results.next()).await else { panic!("an answer comes") };
    let result: CommandResult = serde_json::from_slice(&event.payload).unwrap();
    assert!(result.is_done() && result.event_id == "m" && result.values.len() == 1, "{result:?}");

    // The audit: what the cloud wrote, and what was refused.
    eventually(async || {
        let events = world.api("v1", "Event", "events", true).list(&ListParams::default()).await.unwrap();
        let told: Vec<_> = events.items.iter().filter(|event| event.data["reason"] == "DeviceCommand").collect();
        let done = told.iter().filter(|event| event.data["message"] == "http writes level=40: done").count();
        told.len() == 2 && done == 1
    })
    .await;

    // Nobody answers for a node that is away.
    node.shutdown(std::time::Duration::from_secs(5)).await.unwrap();
    eventually(async || {
        let command = DeviceCommand { read: vec!["level".parse().unwrap()], ..DeviceCommand::default() };
        let sent = world.cloud.device_commands().send(&"default/tank-1".parse().unwrap(), &command, "test").await;
        sent.is_err_and(|error| error.to_string() == "node edge-1: node is not connected")
    })
    .await;
}
