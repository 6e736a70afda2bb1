//! `cloudcore` and `edgecore` as two processes, with the boiler and the greeter.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, api::Api};
use kubeedge_examples::{
    load::{self, Boiler},
    observe,
    process::{Program, Site},
};

/// Longest time that anything may take here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Field {
    pub(crate) site: Site,
    pub(crate) client: Client,
    pub(crate) boiler: Boiler,
    pub(crate) cloud: Option<Program>,
    pub(crate) edge: Option<Program>,
    // Last, so that programs and load are gone before their folder.
    folder: tempfile::TempDir,
}

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_edgecore")).parent().unwrap()
}

pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
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
    pub(crate) async fn start() -> Self {
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

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    pub(crate) async fn running(&self) -> Pod {
        eventually("a running pod", async || {
            let pod = self.pods().get_opt("greeter").await.ok()??;
            (observe::phase(&pod) == "Running").then_some(pod)
        })
        .await
    }

    pub(crate) async fn reported(&self, property: &str, value: f64) {
        eventually(&format!("{property} reported as {value}"), async || {
            let status = observe::boiler_status(&self.client).await;
            observe::reported(&status, property).filter(|seen| (seen - value).abs() < 0.05)
        })
        .await;
    }

    /// Process ids of the greeter, by its command line.
    pub(crate) fn greeters(&self) -> Vec<u32> {
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

    pub(crate) async fn kill_cloud(&mut self) {
        self.cloud.take().unwrap().kill().await.unwrap();
    }

    pub(crate) async fn kill_edge(&mut self) {
        self.edge.take().unwrap().kill().await.unwrap();
    }

    pub(crate) async fn desire(&self, setpoint: f64) {
        observe::desire(&self.client, setpoint).await.unwrap();
    }

    pub(crate) async fn last_greeting(&self) -> String {
        let log = observe::newest_log(self.site.layout(), "greeter").expect("a log");
        observe::last_line(&log).await.unwrap_or_default()
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // Pods outlive their agent by design; a test must not leave them behind, and an agent would start them again.
        drop(self.edge.take());
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
