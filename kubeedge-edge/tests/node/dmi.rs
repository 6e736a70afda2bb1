//! A node with a mapper of another process, which is not ours: Python with Google's gRPC.

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use kubeedge_core::{
    meta::MetaHandle, names::DeviceId, resource::ResourceType, testing::MemoryStore, twin::PropertyPatch,
};
use kubeedge_edge::meta::SqliteStore;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::cloud::{Cloud, node, object, within};

struct PythonMapper {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl PythonMapper {
    /// Takes the first Python that has grpcio: a distribution installs it for its own, which may not come first.
    async fn start(folder: &Path) -> (Self, Value) {
        let mut reasons = String::new();
        for python in ["python3", "/usr/bin/python3"] {
            match Self::with(python, folder).await {
                Ok(started) => return started,
                Err(why) => reasons = format!("{reasons}{python}: {why}\n"),
            }
        }
        panic!("this test needs Python with gRPC: apt-get install python3-grpcio python3-protobuf\n{reasons}");
    }

    async fn with(python: &str, folder: &Path) -> Result<(Self, Value), String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dmi_mapper.py");
        let mut child = Command::new(python)
            .arg(script)
            .args([folder.join("dmi.sock"), folder.join("python.sock"), "memory".into()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if let Some(line) = within(lines.next_line()).await.unwrap() {
            return Ok((Self { child, lines }, serde_json::from_str(&line).unwrap()));
        }
        let mut why = String::new();
        child.stderr.take().unwrap().read_to_string(&mut why).await.unwrap();
        Err(why)
    }

    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(120), self.lines.next_line()).await.unwrap();
        serde_json::from_str(&line.unwrap().expect("the mapper is there")).unwrap()
    }

    async fn command(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn stop(mut self) {
        drop(self.child.stdin.take());
        within(self.child.wait()).await.unwrap();
    }
}

fn version() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

fn model() -> kubeedge_core::message::Message {
    let property = json!({"name": "setpoint", "type": "STRING", "accessMode": "ReadWrite"});
    let properties = json!({"spec": {"protocol": "memory", "properties": [property]}});
    object(ResourceType::DeviceModel, "boiler", version(), properties)
}

fn device(setpoint: &str) -> kubeedge_core::message::Message {
    let spec = json!({
        "deviceModelRef": {"name": "boiler"},
        "nodeName": "edge-1",
        "protocol": {"protocolName": "memory", "configData": {"port": 502, "serial": 16_777_217, "name": "b"}},
        "properties": [{"name": "setpoint", "desired": {"value": setpoint}}],
    });
    object(ResourceType::Device, "boiler-1", version(), json!({"spec": spec, "status": {"reportToCloud": true}}))
}

#[tokio::test]
async fn a_mapper_in_python_is_told_of_devices_and_its_values_reach_the_cloud() {
    let (folder, store) = (TempDir::new().unwrap(), MetaHandle::of(MemoryStore::new()));
    let (builder, acceptor) = node();
    let edge = builder.meta_store(store.clone()).dmi(folder.path().join("dmi.sock")).spawn().await.unwrap();
    let mut cloud = Cloud::accept(&acceptor).await;
    cloud.apply(model()).await;
    cloud.apply(device("42")).await;

    let (mut mapper, registered) = PythonMapper::start(folder.path()).await;
    let boiler = json!({
        "name": "boiler-1", "namespace": "default", "desired": {"setpoint": "42"}, "complete": true,
        "config": {"port": ["FloatValue", 502.0], "serial": ["Int64Value", 16_777_217], "name": ["StringValue", "b"]},
    });
    assert_eq!(registered, json!({"registered": [boiler], "models": ["boiler"]}));
    cloud.twin_shows("default/boiler-1", "setpoint", "actual", "42").await;

    cloud.apply(device("43")).await;
    let update = mapper.next().await;
    assert_eq!((&update["call"], &update["desired"]["setpoint"]), (&json!("UpdateDevice"), &json!("43")));
    cloud.twin_shows("default/boiler-1", "setpoint", "actual", "43").await;

    // What is desired at the edge is the mapper's to carry out as well, and the newest counts.
    let patch = PropertyPatch { value: "50".into(), value_type: None };
    let boiler_1: DeviceId = "default/boiler-1".parse().unwrap();
    edge.twins().desire(boiler_1.clone(), [("setpoint".parse().unwrap(), Some(patch))].into()).await.unwrap();
    let update = mapper.next().await;
    assert_eq!((&update["call"], &update["desired"]["setpoint"]), (&json!("UpdateDevice"), &json!("50")));
    cloud.twin_shows("default/boiler-1", "setpoint", "actual", "50").await;

    mapper.command("report nobody setpoint 1").await;
    assert_eq!(mapper.next().await["answer"], "NOT_FOUND: device default/nobody is not on this node");

    // The node restarts; the mapper goes on, and is told what changed meanwhile.
    drop(cloud);
    edge.shutdown(Duration::from_secs(5)).await.unwrap();
    let (builder, acceptor) = node();
    let edge = builder.meta_store(store).dmi(folder.path().join("dmi.sock")).spawn().await.unwrap();
    let mut cloud = Cloud::accept(&acceptor).await;
    cloud.apply(device("44")).await;
    let (first, second) = (mapper.next().await, mapper.next().await);
    assert_eq!((&first["call"], &second["call"]), (&json!("CreateDeviceModel"), &json!("UpdateDevice")));
    cloud.twin_shows("default/boiler-1", "setpoint", "actual", "44").await;

    // The mapper restarts, and gets all of it in its answer.
    mapper.stop().await;
    let (mapper, registered) = PythonMapper::start(folder.path()).await;
    assert_eq!(registered["registered"][0]["desired"]["setpoint"], "44");
    mapper.stop().await;
    edge.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_thousand_reports_of_a_mapper_in_python_are_all_on_the_disk() {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(folder.path().join("edge.db")).unwrap();
    let (builder, acceptor) = node();
    let builder = builder.meta_store(MetaHandle::of(store.clone())).dmi(folder.path().join("dmi.sock"));
    let edge = builder.spawn().await.unwrap();
    let mut cloud = Cloud::accept(&acceptor).await;
    cloud.apply(model()).await;
    cloud.apply(device("")).await;
    drop(cloud);
    let (mut mapper, _) = PythonMapper::start(folder.path()).await;
    let start = std::time::Instant::now();
    mapper.command("flood boiler-1 p 1000").await;
    assert_eq!(mapper.next().await, json!({"answers": 1000, "ok": 1000}));
    println!("1000 reports in {:?}", start.elapsed());
    let twin = edge.twins().get("default/boiler-1".parse().unwrap()).await.unwrap();
    for number in 0..20 {
        let property = &twin.properties[&format!("p{number}").parse().unwrap()];
        let value: usize = property.reported.as_ref().unwrap().value.parse().unwrap();
        assert_eq!(value % 20, number);
        assert_eq!(property.reported_version.edge, 50, "each of them was written");
    }
    mapper.stop().await;
    edge.shutdown(Duration::from_secs(5)).await.unwrap();
    store.close().await;
}
