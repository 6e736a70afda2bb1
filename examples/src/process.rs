//! A site as it is in the field: `cloudcore` and `edgecore` as two processes. For tests and measurements.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Secret};
use kube::{Client, api::Api};
use tokio::process::{Child, Command};

use crate::{
    observe::is_ready,
    one_line,
    site::{self, CloudPorts, EdgeAddresses, Layout, NODE},
};

/// Pause between two looks at a process that starts.
const LOOK: Duration = Duration::from_millis(20);

/// A folder with the configuration of a cloud and an edge, and the programs to run them.
#[derive(Clone, Debug)]
pub struct Site {
    layout: Layout,
    programs: PathBuf,
    ports: CloudPorts,
    mqtt: u16,
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Site {
    /// Prepares a site in `dir` with free ports, run by the programs in the folder `programs`.
    ///
    /// # Errors
    /// When ports or files cannot be had.
    pub fn prepare(dir: &Path, programs: &Path) -> io::Result<Self> {
        let layout = Layout::new(dir);
        let [api, websocket, https, mqtt] = free_ports()?;
        let ports = CloudPorts { api, websocket, https };
        std::fs::create_dir_all(dir)?;
        std::fs::write(layout.cloudcore_yaml(), site::cloudcore_yaml(&layout, ports))?;
        Ok(Self { layout, programs: programs.to_owned(), ports, mqtt })
    }

    /// Where the files are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Address of the embedded MQTT broker of the edge.
    pub fn mqtt(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.mqtt).into()
    }

    /// Address of the CloudHub's WebSocket.
    pub fn websocket(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.websocket).into()
    }

    /// Starts `cloudcore`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_cloud(&self) -> io::Result<Program> {
        self.start("cloudcore", &self.layout.cloudcore_yaml())
    }

    /// Writes `edgecore.yaml` with the join token of the cloud, dialing the CloudHub by way of `websocket`.
    ///
    /// # Errors
    /// One line with what went wrong.
    pub async fn configure_edge(&self, client: &Client, websocket: SocketAddr) -> Result<(), String> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "kubeedge");
        let token = loop {
            let secret = secrets.get_opt("tokensecret").await.map_err(|error| one_line(&error))?;
            if let Some(token) = secret.and_then(|secret| secret.data?.remove("tokendata")) {
                break String::from_utf8(token.0).map_err(|error| error.to_string())?;
            }
            tokio::time::sleep(LOOK).await;
        };
        let https = (Ipv4Addr::LOCALHOST, self.ports.https).into();
        let yaml = site::edgecore_yaml(&self.layout, EdgeAddresses { websocket, https, mqtt: self.mqtt }, &token);
        std::fs::write(self.layout.edgecore_yaml(), yaml).map_err(|error| error.to_string())
    }

    /// Starts `edgecore`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start_edge(&self) -> io::Result<Program> {
        self.start("edgecore", &self.layout.edgecore_yaml())
    }

    fn start(&self, name: &str, config: &Path) -> io::Result<Program> {
        let log = self.layout.dir().join(format!("{name}.log"));
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let child = Command::new(self.programs.join(name))
            .arg("--config")
            .arg(config)
            .arg("--v=2")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Program { child, log })
    }

    /// A client of the embedded API, once it answers.
    pub async fn client(&self) -> Client {
        loop {
            if let Some(client) = self.try_client().await {
                return client;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn try_client(&self) -> Option<Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.layout.kubeconfig()).ok()?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.ok()?;
        let client = Client::try_from(config).ok()?;
        client.apiserver_version().await.ok()?;
        Some(client)
    }

    /// Waits until the node is Ready.
    ///
    /// # Errors
    /// One line with what went wrong.
    pub async fn node_ready(&self, client: &Client) -> Result<Node, String> {
        let nodes: Api<Node> = Api::all(client.clone());
        loop {
            let node = nodes.get_opt(NODE).await.map_err(|error| one_line(&error))?;
            if let Some(node) = node.filter(is_ready) {
                return Ok(node);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Program {
    /// Process id.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// File with its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Kills it as a power cut does.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Errors
    /// When it cannot be asked or did not end by itself.
    pub async fn stop(mut self) -> io::Result<std::process::ExitStatus> {
        let id = self.child.id().ok_or(io::ErrorKind::NotFound)?.to_string();
        Command::new("kill").args(["-TERM", &id]).status().await?;
        self.child.wait().await
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_kib(&self) -> io::Result<u64> {
        let id = self.child.id().ok_or(io::ErrorKind::NotFound)?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
        kib.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Ports that were free a moment ago. Programs that are configured by file cannot be handed a bound socket.
fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let listeners: Vec<_> = (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<_>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
