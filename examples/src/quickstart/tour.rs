//! The steps.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::{
    Client,
    api::{Api, Patch, PatchParams},
};
use kubeedge_cloud::{cloud::CloudCoreHandle, config::CloudCoreConfig};
use kubeedge_core::{
    bus::{BusEvent, Overflow},
    names::{SystemClock, UnixMillis, WallClock as _},
    service::Subscription,
    topic::TopicFilter,
};
use kubeedge_edge::config::{EdgeCore, EdgeCoreConfig, EdgeCoreHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Options, PATIENCE, Relay, Screen, StepFailed, screen};
use crate::{
    load::Boiler,
    manifests::{File, Manifest},
    observe::{self, LOOK},
    one_line,
    site::{self, CloudPorts, EdgeAddresses, Layout, NODE},
};

/// Temperature that the tour asks for while everything is well, and while the link is cut.
const SETPOINT: f64 = 60.0;
const SETPOINT_OFFLINE: f64 = 70.0;
const GREETING_OFFLINE: &str = "hello after the outage";
/// Values of the sparkline.
const WIDTH: usize = 48;

/// The running site, and what the tour has seen of it.
pub struct Tour {
    screen: Screen,
    layout: Layout,
    /// Deletes the data folder at the end, if it was ours.
    temporary: Option<tempfile::TempDir>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    started: Instant,
    cloud: CloudCoreHandle,
    edge: EdgeCoreHandle,
    client: Client,
    relay: Relay,
    events: Subscription<BusEvent>,
    temperatures: VecDeque<f64>,
    log: PathBuf,
    boiler: Option<Boiler>,
    /// What was reported before is of an earlier run in the same folder.
    since: UnixMillis,
}

/// How the tour ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Time that the tour took.
    pub took: Duration,
}

/// Runs `work` within the patience of a step, and names the step in what goes wrong.
async fn within<T>(step: &'static str, work: impl Future<Output = Result<T, String>>) -> Result<T, StepFailed> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(cause)) => Err(StepFailed { step, cause }),
        Err(_) => Err(StepFailed { step, cause: format!("not seen within {} s", PATIENCE.as_secs()) }),
    }
}

fn because(error: impl std::error::Error + 'static) -> String {
    one_line(&error)
}

impl Tour {
    /// Starts the site: steps 1 to 3.
    ///
    /// # Errors
    /// [`StepFailed`]; what was started is stopped.
    pub async fn start(options: &Options) -> Result<Self, StepFailed> {
        let (started, since) = (Instant::now(), SystemClock.now());
        let screen = Screen::stdout();
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let guard = shutdown.clone().drop_guard();

        let (layout, temporary) = within("data folder", async { data_folder(options) }).await?;
        let step = Instant::now();
        let cloud = within("cloudcore", Box::pin(start_cloud(&layout))).await?;
        let api_url = cloud.api_url().unwrap_or_default();
        screen.step(1, &format!("Kubernetes API at {api_url}"), step.elapsed());
        screen.note(&format!("export KUBECONFIG={}", layout.kubeconfig().display()));
        let client = within("kubeconfig", client(&layout)).await?;
        let addresses = (cloud.websocket_addr(), cloud.https_addr());
        screen.step(
            2,
            &format!("cloudcore: CRDs installed, wss://{} and https://{}", addresses.0, addresses.1),
            step.elapsed(),
        );

        let step = Instant::now();
        let relay = Relay::start(addresses.0, &tasks, shutdown.clone()).await;
        let relay = relay.map_err(|error| StepFailed { step: "relay", cause: because(error) })?;
        let edge = within("edgecore", Box::pin(start_edge(&layout, &client, relay.addr(), addresses.1))).await?;
        within("node", ready(&client, &edge)).await?;
        screen.step(3, &format!("edgecore: node {NODE} joined with a token and is Ready"), step.elapsed());

        let everything = TopicFilter::new("$hw/events/device/#").map_err(because);
        let events = within("MQTT", async {
            let bus = edge.node().bus().ok_or("the edge has no bus")?;
            bus.subscribe(everything?, Overflow::DropOldest).await.map_err(because)
        })
        .await?;
        guard.disarm();
        let temperatures = VecDeque::with_capacity(WIDTH);
        let log = PathBuf::new();
        Ok(Self {
            screen,
            layout,
            temporary,
            shutdown,
            tasks,
            started,
            cloud,
            edge,
            client,
            relay,
            events,
            temperatures,
            log,
            boiler: None,
            since,
        })
    }

    /// Shows what the site can do: steps 4 to 7.
    ///
    /// # Errors
    /// [`StepFailed`]; the site goes on running.
    pub async fn walk(&mut self, options: &Options) -> Result<Ended, StepFailed> {
        self.device(options).await?;
        self.mqtt().await?;
        self.workload(options).await?;
        self.outage().await?;
        Ok(Ended { took: self.started.elapsed() })
    }

    async fn device(&mut self, options: &Options) -> Result<(), StepFailed> {
        let step = Instant::now();
        let boiler = within("boiler", async { Boiler::start().await.map_err(because) }).await?;
        let port = boiler.port();
        self.boiler = Some(boiler);
        let from = options.manifests.as_deref();
        within("boiler.yaml", async {
            let manifest = Manifest::prepare(File::Boiler, from, &self.layout.manifests(), port)?;
            manifest.apply(&self.client).await.map_err(because)
        })
        .await?;
        let first = within("device", self.reported("temperature", |_| true)).await?;
        self.screen.step(
            4,
            &format!("boiler on Modbus TCP port {port}: DeviceStatus shows {first:.1} °C"),
            step.elapsed(),
        );

        let step = Instant::now();
        within("setpoint", observe::desire(&self.client, SETPOINT)).await?;
        within("setpoint", self.reported("setpoint", |value| (value - SETPOINT).abs() < 0.05)).await?;
        let start = self.temperatures.back().copied().unwrap_or(first);
        // The setpoint before was lower than the new one, so the water has to warm up beyond it.
        let goal = (start + 3.0).min(SETPOINT - 1.0);
        let now = within("temperature", self.reported("temperature", |value| value >= goal)).await?;
        self.screen.note(&format!(
            "desired setpoint {SETPOINT:.0} °C written to the register, water from {start:.1} to {now:.1} °C ({:.1} s)",
            step.elapsed().as_secs_f64()
        ));
        self.screen.note(&screen::sparkline(self.temperatures.make_contiguous()));
        Ok(())
    }

    async fn mqtt(&mut self) -> Result<(), StepFailed> {
        let step = Instant::now();
        let mut seen = 0;
        let topic = within("MQTT", async {
            while let Some(item) = self.events.next().await {
                if let BusEvent::Message(event) = item {
                    seen += 1;
                    if event.topic.as_str().ends_with("/twin/update/document") {
                        return Ok(event.topic);
                    }
                }
            }
            Err("the subscription ended".to_owned())
        })
        .await?;
        let broker = self.edge.mqtt_addr().map(|addr| addr.to_string()).unwrap_or_default();
        self.screen.step(5, &format!("MQTT broker at {broker}: twin changes on {topic}"), step.elapsed());
        Ok(())
    }

    async fn workload(&mut self, options: &Options) -> Result<(), StepFailed> {
        let step = Instant::now();
        within("greeter.yaml", async {
            let manifest = Manifest::prepare(File::Greeter, options.manifests.as_deref(), &self.layout.manifests(), 0)?;
            manifest.apply(&self.client).await.map_err(because)
        })
        .await?;
        within("pod", async {
            let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
            while observe::phase(&pods.get("greeter").await.map_err(because)?) != "Running" {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })
        .await?;
        self.log = within("log", async {
            let pods = self.edge.node().pods().ok_or("the edge has no pods")?;
            pods.log_path("default", "greeter", "greeter").ok_or_else(|| "the pod has no log".to_owned())
        })
        .await?;
        let line = within("log", self.logged(|line| line.contains("greeter: hello"))).await?;
        self.screen.step(6, "pod greeter is Running as a native process, with a ConfigMap as files", step.elapsed());
        self.screen.note(&format!("log {}: {line}", self.log.display()));
        Ok(())
    }

    async fn outage(&mut self) -> Result<(), StepFailed> {
        let step = Instant::now();
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let before = within("outage", async { pods.get("greeter").await.map_err(because) }).await?;
        let count = within("log", self.greeting()).await?;
        self.relay.cut();
        within("outage", async {
            let mut link = self.edge.node().link_state();
            link.wait_for(|state| !state.is_connected()).await.map_err(because)?;
            Ok(())
        })
        .await?;
        self.screen.note("link cut; setpoint and ConfigMap change in the cloud meanwhile");
        within("outage", async {
            observe::desire(&self.client, SETPOINT_OFFLINE).await?;
            let maps: Api<ConfigMap> = Api::default_namespaced(self.client.clone());
            let patch = serde_json::json!({"data": {"text": GREETING_OFFLINE}});
            maps.patch("greeting", &PatchParams::default(), &Patch::Merge(patch)).await.map_err(because)?;
            Ok(())
        })
        .await?;
        // Both go on: the device is polled and reported on MQTT, the process greets with the text that it has.
        within("device without the cloud", self.polled_offline()).await?;
        within("workload without the cloud", self.greeted_offline(count + 3)).await?;
        self.screen.note("without the cloud the boiler is polled and the greeter greets, as before");

        let healed = Instant::now();
        self.relay.heal();
        within("setpoint after the outage", self.reported("setpoint", |value| (value - SETPOINT_OFFLINE).abs() < 0.05))
            .await?;
        within("ConfigMap after the outage", self.logged(|line| line.contains(GREETING_OFFLINE))).await?;
        let after = within("pod after the outage", async { pods.get("greeter").await.map_err(because) }).await?;
        if before.metadata.uid != after.metadata.uid || observe::restarts(&after) != observe::restarts(&before) {
            return Err(StepFailed { step: "pod after the outage", cause: "it was recreated or restarted".into() });
        }
        let took = healed.elapsed().as_secs_f64();
        self.screen.step(7, "link cut and healed: both changes arrived, the pod was never restarted", step.elapsed());
        self.screen.note(&format!("in step again {took:.2} s after the link came back"));
        Ok(())
    }

    async fn polled_offline(&mut self) -> Result<(), String> {
        // What was published before the cut may still wait in the subscription.
        while let Ok(Some(_)) = tokio::time::timeout(LOOK, self.events.next()).await {}
        match self.events.next().await {
            Some(_) => Ok(()),
            None => Err("the subscription ended".to_owned()),
        }
    }

    async fn greeted_offline(&self, number: u64) -> Result<(), String> {
        while self.greeting().await? < number {
            tokio::time::sleep(LOOK).await;
        }
        let line = observe::last_line(&self.log).await.unwrap_or_default();
        if line.contains(GREETING_OFFLINE) { Err("the link is not cut".to_owned()) } else { Ok(()) }
    }

    /// The number of the last greeting.
    async fn greeting(&self) -> Result<u64, String> {
        loop {
            if let Some(number) = observe::last_line(&self.log).await.as_deref().and_then(observe::greeting_number) {
                return Ok(number);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for a last line of the log that satisfies `wanted`.
    async fn logged(&self, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        loop {
            if let Some(line) = observe::last_line(&self.log).await.filter(|line| wanted(line)) {
                return Ok(line);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Follows the DeviceStatus until `wanted` holds for the reported `property`.
    async fn reported(&mut self, property: &str, wanted: impl Fn(f64) -> bool) -> Result<f64, String> {
        loop {
            let status = observe::boiler_status(&self.client).await;
            if let Some(temperature) = observe::reported_since(&status, "temperature", self.since) {
                if self.temperatures.len() == WIDTH {
                    self.temperatures.pop_front();
                }
                self.temperatures.push_back(temperature);
                let line = screen::sparkline(self.temperatures.make_contiguous());
                self.screen.live(&format!("{line} {temperature:.1} °C"));
            }
            let value = observe::reported_since(&status, property, self.since);
            if let Some(value) = value.filter(|value| wanted(*value)) {
                return Ok(value);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Prints what to try next.
    pub fn suggest(&self) {
        let manifests = self.layout.manifests();
        let (host, port) =
            self.edge.mqtt_addr().map_or((String::new(), 0), |addr| (addr.ip().to_string(), addr.port()));
        self.screen.title("Try next (in another terminal):");
        self.screen.table(&[
            ("use kubectl", format!("export KUBECONFIG={}", self.layout.kubeconfig().display())),
            ("see the node and the pod", "kubectl get nodes,pods -o wide".into()),
            ("see the twin in the cloud", "kubectl get devicestatus boiler -o yaml".into()),
            ("change the setpoint", "kubectl edit device boiler".into()),
            ("change the greeting", "kubectl edit configmap greeting".into()),
            ("read the log", format!("tail -f {}", self.log.display())),
            ("follow the twin over MQTT", format!("mosquitto_sub -h {host} -p {port} -v -t '$hw/events/device/#'")),
            ("edit and apply the files", format!("kubectl apply -f {}", manifests.display())),
        ]);
    }

    /// Stops everything: edge first, so that its last reports still find the cloud.
    pub async fn stop(self) {
        let grace = Duration::from_secs(1);
        if let Err(unfinished) = self.edge.shutdown(grace).await {
            tracing::warn!(%unfinished, "edge was stopped the hard way");
        }
        self.cloud.shutdown(grace).await;
        self.shutdown.cancel();
        self.tasks.close();
        // The relay and the boiler end at once; if not, the process ends without them.
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
        drop(self.temporary);
    }
}

fn data_folder(options: &Options) -> Result<(Layout, Option<tempfile::TempDir>), String> {
    let (dir, temporary) = if let Some(dir) = &options.data {
        (dir.clone(), None)
    } else {
        let temporary = tempfile::Builder::new().prefix("kubeedge-quickstart-").tempdir().map_err(because)?;
        (temporary.path().to_owned(), Some(temporary))
    };
    let writable = |dir: &Path| -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let probe = dir.join(".writable");
        std::fs::write(&probe, b"")?;
        std::fs::remove_file(probe)
    };
    writable(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    // Processes of pods run elsewhere, so paths that they get must not depend on where we are.
    let dir = std::path::absolute(&dir).map_err(because)?;
    Ok((Layout::new(dir), temporary))
}

async fn start_cloud(layout: &Layout) -> Result<CloudCoreHandle, String> {
    let path = layout.cloudcore_yaml();
    std::fs::write(&path, site::cloudcore_yaml(layout, CloudPorts::default()))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let (config, _) = CloudCoreConfig::load(&path).map_err(because)?;
    kubeedge_cloud::cloud::CloudCore::from_config(&config).spawn().await.map_err(because)
}

async fn client(layout: &Layout) -> Result<Client, String> {
    let kubeconfig = kube::config::Kubeconfig::read_from(layout.kubeconfig()).map_err(because)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
        .await
        .map_err(because)?;
    Client::try_from(config).map_err(because)
}

async fn start_edge(
    layout: &Layout,
    client: &Client,
    websocket: SocketAddr,
    https: SocketAddr,
) -> Result<EdgeCoreHandle, String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "kubeedge");
    let secret = secrets.get("tokensecret").await.map_err(because)?;
    let token =
        secret.data.unwrap_or_default().remove("tokendata").ok_or("secret kubeedge/tokensecret has no tokendata")?;
    let token = String::from_utf8(token.0).map_err(because)?;
    let path = layout.edgecore_yaml();
    let yaml = site::edgecore_yaml(layout, EdgeAddresses { websocket, https, mqtt: 0 }, &token);
    std::fs::write(&path, yaml).map_err(|error| format!("{}: {error}", path.display()))?;
    let (config, _) = EdgeCoreConfig::load(&path).map_err(because)?;
    let core = EdgeCore::from_config(&config).map_err(because)?.token_file(None);
    // The tour leaves nothing behind; an agent that is upgraded leaves its pods running.
    core.stop_pods_on_shutdown(Some(Duration::from_secs(1))).start().await.map_err(because)
}

async fn ready(client: &Client, edge: &EdgeCoreHandle) -> Result<(), String> {
    // A node of an earlier run may still count as Ready.
    edge.node().link_state().wait_for(|state| state.is_connected()).await.map_err(because)?;
    let nodes: Api<Node> = Api::all(client.clone());
    loop {
        if let Some(node) = nodes.get_opt(NODE).await.map_err(because)?
            && observe::is_ready(&node)
        {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}
