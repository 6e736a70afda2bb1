//! The `mapper` binary beside an edge node: devices over DMI, values to the twins, methods over REST.
#![allow(clippy::unwrap_used)]

use std::{net::TcpListener, process::Stdio, time::Duration};

use kubeedge_core::{
    meta::{Collection, MetaHandle, MetaKey, Record},
    resource::ResourceType,
    testing::MemoryStore,
    transport::{TransportHandle, memory::MemoryTransport},
    twin::{DeviceSelector, TwinEvent},
};
use kubeedge_edge::node::EdgeNode;
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn get(port: u16, path: &str) -> Option<Json> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let head = format!("GET /api/v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

#[tokio::test]
async fn a_mapper_process_serves_an_edge_node() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = MetaHandle::of(MemoryStore::new());
    let model = json!({"metadata": {"name": "tank", "namespace": "default"}, "spec": {"protocol": "simulator", "properties": [
        {"name": "level", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "90"}]}});
    let device = json!({"metadata": {"name": "tank-1", "namespace": "default"}, "spec": {"nodeName": "gw-0042",
        "deviceModelRef": {"name": "tank"}, "protocol": {"protocolName": "simulator"},
        "methods": [{"name": "fill", "propertyNames": ["level"]}],
        "properties": [{"name": "level", "reportToCloud": true, "collectCycle": 50,
            "visitors": {"protocolName": "simulator", "configData": {"value": "7"}}}]}});
    for (kind, name, object) in [(ResourceType::DeviceModel, "tank", model), (ResourceType::Device, "tank-1", device)] {
        store
            .put(Record::new(MetaKey::new(Collection::from(&kind), "default", name), object.to_string()))
            .await
            .unwrap();
    }
    let (transport, _cloud) = MemoryTransport::new(1);
    let node = EdgeNode::builder("gw-0042")
        .endpoint("nowhere:10000")
        .transport(TransportHandle::of(transport))
        .meta_store(store)
        .dmi(path("dmi.sock"))
        .spawn()
        .await
        .unwrap();
    let mut changes = node.twins().watch(DeviceSelector::All).await.unwrap();

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "grpc_server:\n  socket_path: {}\ncommon:\n  name: test-mapper\n  version: v1\n  api_version: v1\n  \
         protocol: simulator\n  address: 127.0.0.1\n  edgecore_sock: {}\n  http_port: {port}\n",
        path("mapper.sock").display(),
        path("dmi.sock").display(),
    );
    std::fs::write(path("config.yaml"), config).unwrap();
    let mut mapper = Command::new(env!("CARGO_BIN_EXE_mapper"))
        .arg("--config-file")
        .arg(path("config.yaml"))
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut until = async |value: &str| {
        let wait = async {
            loop {
                let Some(TwinEvent::Changed { twin, .. }) = changes.next().await else { continue };
                let reported = twin.properties.values().find_map(|property| property.reported.as_ref());
                if reported.is_some_and(|reported| reported.value == value) {
                    return;
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{value} is not reported"));
    };
    until("7").await;
    let read = get(port, "device/default/tank-1/level").await.unwrap();
    assert_eq!((&read["Data"]["Value"], &read["Data"]["Type"]), (&json!("7"), &json!("int")));
    let written = get(port, "devicemethod/default/tank-1/fill/level/42").await.unwrap();
    assert_eq!(written["Message"], "Write data 42 to device default/tank-1 successfully.");
    until("42").await;
    let model = get(port, "meta/model/default/tank-1").await.unwrap();
    assert_eq!((&model["id"], &model["properties"][0]["maximum"]), (&json!("default/tank"), &json!("90")));

    let asked = Command::new("kill").arg(mapper.id().unwrap().to_string()).status().await.unwrap();
    assert!(asked.success());
    assert!(timeout(PATIENCE, mapper.wait()).await.expect("it ends").unwrap().success());
    node.shutdown(Duration::from_secs(5)).await.unwrap();
}
