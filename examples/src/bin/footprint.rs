//! Measures what the release binaries take: `cargo xtask size` builds them and runs this.
//!
//! Size of `edgecore` and `cloudcore`, resident memory of both when idle with hub, metadata, twins, MQTT broker,
//! Modbus device and a pod on, and the time from the start of `edgecore` to its connection and to Ready, certificate
//! present. Exits with 1 if a budget is exceeded.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};
use kubeedge_examples::{load, process::Site};

/// Bytes of the stripped `edgecore`, and its resident memory when idle.
const BUDGET: u64 = 12 << 20;
/// Milliseconds from start to connection.
const CONNECT_MS: u128 = 100;
/// Starts that the median is taken of.
const STARTS: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match measure().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("footprint: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How often the log tells of a connection.
fn connections(log: &Path) -> std::io::Result<usize> {
    Ok(std::fs::read_to_string(log)?.matches("connected to the cloud").count())
}

async fn measure() -> Result<bool, Box<dyn std::error::Error>> {
    let here = std::env::current_exe()?;
    let programs = here.parent().unwrap_or(Path::new("."));
    let size = |name: &str| std::fs::metadata(programs.join(name)).map(|file| file.len());
    let (edge_size, cloud_size) = (size("edgecore")?, size("cloudcore")?);
    println!("edgecore   {:6.2} MiB binary", mib(edge_size));
    println!("cloudcore  {:6.2} MiB binary", mib(cloud_size));

    let folder = tempfile::tempdir()?;
    let site = Site::prepare(folder.path(), programs)?;
    let cloud = site.start_cloud()?;
    let client = site.client().await;
    site.configure_edge(&client, site.websocket()).await?;
    let boiler = load::start(&client, site.layout()).await?;
    let mut edge = site.start_edge()?;
    site.node_ready(&client).await?;

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let already = connections(edge.log())?;
        edge.stop().await?;
        let start = Instant::now();
        edge = site.start_edge()?;
        while connections(edge.log())? == already {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        starts.push(start.elapsed());
    }
    starts.sort_unstable();
    let connected = starts[STARTS / 2].as_millis();
    println!("edgecore   {connected:6} ms from start to connected, certificate present (median of {STARTS})");

    // Idle: everything is up and nothing changes but the polled device.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (edge_rss, cloud_rss) = (edge.resident_kib()? << 10, cloud.resident_kib()? << 10);
    println!("edgecore   {:6.2} MiB resident, idle with everything on", mib(edge_rss));
    println!("cloudcore  {:6.2} MiB resident, embedded API included", mib(cloud_rss));
    // Pods outlive their agent; this one has to go first.
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.delete("greeter", &DeleteParams::default()).await?;
    while pods.get_opt("greeter").await?.is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    edge.stop().await?;
    cloud.stop().await?;
    drop(boiler);
    Ok(edge_size <= BUDGET && edge_rss <= BUDGET && connected <= CONNECT_MS)
}
