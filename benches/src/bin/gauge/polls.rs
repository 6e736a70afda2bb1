//! Registers that are polled.

use std::{process::Stdio, time::Duration};

use kubeedge_core::{
    service::BoxError,
    twin::{DeviceSelector, TwinEvent},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{node::Node, process::Snapshot};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Devices, each behind a connection of its own
    #[arg(long, default_value_t = 100)]
    devices: usize,
    /// Registers of each, a property each
    #[arg(long, default_value_t = 100)]
    registers: usize,
    /// Servers; devices share them
    #[arg(long, default_value_t = 100)]
    ports: usize,
    /// Milliseconds between two reads of a register
    #[arg(long, default_value_t = 1000)]
    cycle: u64,
    /// Whether values are reported to the twins; each changes once a second
    #[arg(long)]
    report: bool,
    /// Seconds that are measured
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

pub(crate) async fn run(options: Options) -> Result<(), BoxError> {
    let mut server = Command::new(std::env::current_exe()?)
        .args(["server", "--ports", &options.ports.to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(server.stdout.take().ok_or("the server has no output")?).lines();
    let mut ports: Vec<u16> = Vec::new();
    while ports.len() < options.ports {
        ports.push(lines.next_line().await?.ok_or("the server has ended")?.parse()?);
    }
    let (model, devices) = objects(&options, &ports);
    let before = Snapshot::of(std::process::id())?;
    let start = Instant::now();
    let node = Node::start(&[model], &devices).await?;
    // A device is online once it has answered.
    let mut online = 0;
    let mut changes = node.edge.twins().watch(DeviceSelector::All).await?;
    while online < options.devices && start.elapsed() < Duration::from_secs(120) {
        match timeout(Duration::from_millis(200), changes.next()).await {
            Ok(Some(TwinEvent::Changed { .. })) => {}
            Ok(None) => break,
            _ => {
                online = 0;
                for (name, _) in &devices {
                    let twin = node.edge.twins().get(format!("default/{name}").parse()?).await;
                    online += usize::from(twin.is_ok_and(|twin| twin.state.is_some_and(|state| state.is_reachable())));
                }
            }
        }
    }
    drop(changes);
    let all_online = start.elapsed();
    sleep(Duration::from_secs(2)).await;
    let (first, served, from) =
        (Snapshot::of(std::process::id())?, Snapshot::of(server.id().unwrap_or_default())?, Instant::now());
    sleep(Duration::from_secs(options.seconds)).await;
    let (last, served_then) = (Snapshot::of(std::process::id())?, Snapshot::of(server.id().unwrap_or_default())?);
    let elapsed = from.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "scenario": "polls", "devices": options.devices, "registers": options.devices * options.registers,
            "cycle_ms": options.cycle, "report": options.report, "online": online,
            "all_online_seconds": all_online.as_secs_f64(),
            "cpu_percent": last.cpu_since(&first).as_secs_f64() / elapsed * 100.0,
            "server_cpu_percent": served_then.cpu_since(&served).as_secs_f64() / elapsed * 100.0,
            "before": before, "now": last, "kib_per_device": last.per_session(&before, options.devices),
        })
    );
    Ok(())
}

type Named = (String, Value);

fn objects(options: &Options, ports: &[u16]) -> (Named, Vec<Named>) {
    let property = |at| {
        json!({"name": format!("r{at}"), "type": "INT", "accessMode": "ReadOnly",
            "visitors": {"protocolName": "modbus", "configData": {"register": "HoldingRegister", "offset": at, "limit": 1}}})
    };
    let properties: Vec<_> = (0..options.registers).map(property).collect();
    let model = ("meter".to_owned(), json!({"protocol": "modbus", "properties": properties}));
    let device = |number: usize| {
        let used = |at| {
            json!({"name": format!("r{at}"), "collectCycle": options.cycle, "reportCycle": 60_000,
                "reportToCloud": options.report})
        };
        let properties: Vec<_> = (0..options.registers).map(used).collect();
        let config =
            json!({"communicateMode": "TCP", "ip": "127.0.0.1", "port": ports[number % ports.len()], "slaveID": 1});
        let spec = json!({"deviceModelRef": {"name": "meter"}, "nodeName": crate::node::NODE,
            "protocol": {"protocolName": "modbus", "configData": config}, "properties": properties});
        (format!("meter-{number}"), spec)
    };
    (model, (0..options.devices).map(device).collect())
}
