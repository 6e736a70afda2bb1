//! `cloudcore` and `edgecore` as two processes, killed without warning and started again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Client,
    api::{Api, DeleteParams, ListParams, Patch, PatchParams},
};
use kubeedge_examples::{
    load::{self, Boiler},
    observe,
    process::{Program, Site},
};
use serde_json::json;

/// Longest time that anything may take here.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

struct Field {
    site: Site,
    client: Client,
    boiler: Boiler,
    cloud: Option<Program>,
    edge: Option<Program>,
    // Last, so that programs and load are gone before their folder.
    folder: tempfile::TempDir,
}

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_edgecore")).parent().unwrap()
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "not seen: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

impl Field {
    /// A site with the boiler and the greeter running.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::prepare(folder.path(), programs()).unwrap();
        let cloud = site.start_cloud().unwrap();
        let client = tokio::time::timeout(PATIENCE, site.client()).await.expect("the API answers");
        site.configure_edge(&client, site.websocket()).await.unwrap();
        let boiler = load::start(&client, site.layout()).await.unwrap();
        let edge = site.start_edge().unwrap();
        let field = Self { site, client, boiler, cloud: Some(cloud), edge: Some(edge), folder };
        field.running().await;
        field.reported("setpoint", 45.0).await;
        field
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    async fn running(&self) -> Pod {
        eventually("a running pod", async || {
            let pod = self.pods().get_opt("greeter").await.ok()??;
            (observe::phase(&pod) == "Running").then_some(pod)
        })
        .await
    }

    async fn reported(&self, property: &str, value: f64) {
        eventually(&format!("{property} reported as {value}"), async || {
            let status = observe::boiler_status(&self.client).await;
            observe::reported(&status, property).filter(|seen| (seen - value).abs() < 0.05)
        })
        .await;
    }

    /// Process ids of the greeter, by its command line.
    fn greeters(&self) -> Vec<u32> {
        let marker = self.folder.path().to_string_lossy().into_owned();
        let mut found = vec![];
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let ours = String::from_utf8_lossy(&environ).contains(&marker);
            if ours && String::from_utf8_lossy(&command).contains("while true") {
                found.push(id);
            }
        }
        found
    }

    async fn kill_cloud(&mut self) {
        self.cloud.take().unwrap().kill().await.unwrap();
    }

    async fn kill_edge(&mut self) {
        self.edge.take().unwrap().kill().await.unwrap();
    }

    async fn desire(&self, setpoint: f64) {
        observe::desire(&self.client, setpoint).await.unwrap();
    }

    async fn last_greeting(&self) -> String {
        let log = observe::newest_log(self.site.layout(), "greeter").expect("a log");
        observe::last_line(&log).await.unwrap_or_default()
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // Pods outlive their agent by design; a test must not leave them behind.
        for id in self.greeters() {
            let _ = std::process::Command::new("kill").args(["-KILL", &id.to_string()]).status();
        }
        if std::thread::panicking() {
            for program in ["cloudcore", "edgecore"] {
                let log =
                    std::fs::read_to_string(self.folder.path().join(format!("{program}.log"))).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(60).collect();
                eprintln!("--- {program}, last lines\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_killed_without_cloud_comes_back_from_disk() {
    let mut field = Field::start().await;
    let before = field.running().await;
    field.kill_cloud().await;
    field.kill_edge().await;
    let polls = field.boiler.view().requests();
    // The pod outlives its agent; here it dies too, as in a power cut.
    for id in field.greeters() {
        assert!(std::process::Command::new("kill").args(["-KILL", &id.to_string()]).status().unwrap().success());
    }
    field.edge = Some(field.site.start_edge().unwrap());
    eventually("one greeter process, without any cloud", async || (field.greeters().len() == 1).then_some(())).await;
    eventually("the device is polled, without any cloud", async || {
        (field.boiler.view().requests() > polls + 3).then_some(())
    })
    .await;
    assert!((field.boiler.view().now().setpoint - 45.0).abs() < 0.05, "the desired value is still the one of before");

    field.cloud = Some(field.site.start_cloud().unwrap());
    let after = eventually("the truth in the cloud: restarted once", async || {
        let pod = field.pods().get_opt("greeter").await.ok()??;
        (observe::phase(&pod) == "Running" && observe::restarts(&pod) == 1).then_some(pod)
    })
    .await;
    assert_eq!(before.metadata.uid, after.metadata.uid);
    assert_eq!(field.greeters().len(), 1, "no duplicate");
    field.desire(52.0).await;
    field.reported("setpoint", 52.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_finds_its_pods_running() {
    let mut field = Field::start().await;
    let before = field.greeters();
    assert_eq!(before.len(), 1);
    field.kill_edge().await;
    assert_eq!(field.greeters(), before, "the pod outlives the agent");
    field.edge = Some(field.site.start_edge().unwrap());
    field.desire(51.0).await;
    field.reported("setpoint", 51.0).await;
    assert_eq!(field.greeters(), before, "the pod is adopted, not started again");
    assert_eq!(observe::restarts(&field.running().await), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_is_killed_comes_back_to_the_same_node() {
    let mut field = Field::start().await;
    let before = field.running().await;
    let processes = field.greeters();
    // Acknowledged by the API, perhaps not yet by the edge: must not be lost.
    field.desire(55.0).await;
    field.kill_cloud().await;
    field.cloud = Some(field.site.start_cloud().unwrap());
    tokio::time::timeout(PATIENCE, field.site.client()).await.expect("the API is back");
    field.reported("setpoint", 55.0).await;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(field.client.clone());
    assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items.len(), 1, "the same node");
    let pods = field.pods().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].metadata.uid, before.metadata.uid, "the same pod");
    assert_eq!(field.greeters(), processes, "the same process");

    let maps: Api<ConfigMap> = Api::default_namespaced(field.client.clone());
    let patch = json!({"data": {"text": "after the restart"}});
    maps.patch("greeting", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    eventually("the new text in the log", async || {
        field.last_greeting().await.contains("after the restart").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_while_the_edge_is_away_is_gone_when_it_is_back() {
    let mut field = Field::start().await;
    field.kill_edge().await;
    assert_eq!(field.greeters().len(), 1);
    field.pods().delete("greeter", &DeleteParams::default().grace_period(0)).await.unwrap();
    field.edge = Some(field.site.start_edge().unwrap());
    eventually("the process is stopped", async || field.greeters().is_empty().then_some(())).await;
    field.desire(53.0).await;
    field.reported("setpoint", 53.0).await;
}
