//! The configuration of a site on one machine: one cloud, one edge, all in one folder and on loopback.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Name of the node of the examples; the manifests bind to it.
pub const NODE: &str = "edge-1";

/// Where a site keeps its files.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// Everything below `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Database of the embedded API.
    pub fn api_database(&self) -> PathBuf {
        self.dir.join("cloud/api.db")
    }

    /// Administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Configuration of the cloud.
    pub fn cloudcore_yaml(&self) -> PathBuf {
        self.dir.join("cloudcore.yaml")
    }

    /// Configuration of the edge.
    pub fn edgecore_yaml(&self) -> PathBuf {
        self.dir.join("edgecore.yaml")
    }

    /// Database of the edge.
    pub fn edge_database(&self) -> PathBuf {
        self.dir.join("edge/edgecore.db")
    }

    /// Logs of pods.
    pub fn pod_logs(&self) -> PathBuf {
        self.dir.join("edge/logs")
    }

    /// Manifests with the ports of this site.
    pub fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }
}

/// Ports of a cloud; 0 lets the system choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloudPorts {
    /// Embedded Kubernetes API.
    pub api: u16,
    /// WebSocket of the CloudHub.
    pub websocket: u16,
    /// HTTPS bootstrap of the CloudHub.
    pub https: u16,
}

/// `cloudcore.yaml` of a site.
pub fn cloudcore_yaml(layout: &Layout, ports: CloudPorts) -> String {
    let CloudPorts { api, websocket, https } = ports;
    let files = |name: &str| quoted(&layout.dir().join("cloud").join(name));
    let mut yaml = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        yaml,
        "apiVersion: cloudcore.config.kubeedge.io/v1alpha1
kind: CloudCore
embeddedAPI:
  enable: true
  address: 127.0.0.1
  port: {api}
  dataSource: {database}
  kubeconfig: {kubeconfig}
modules:
  cloudHub:
    advertiseAddress: [127.0.0.1]
    dnsNames: [localhost]
    tlsCAFile: {ca}
    tlsCAKeyFile: {ca_key}
    tlsCertFile: {cert}
    tlsPrivateKeyFile: {key}
    websocket: {{enable: true, address: 127.0.0.1, port: {websocket}}}
    https: {{enable: true, address: 127.0.0.1, port: {https}}}
",
        database = quoted(&layout.api_database()),
        kubeconfig = quoted(&layout.kubeconfig()),
        ca = files("rootCA.crt"),
        ca_key = files("rootCA.key"),
        cert = files("server.crt"),
        key = files("server.key"),
    );
    yaml
}

/// Whom an edge talks to.
#[derive(Clone, Copy, Debug)]
pub struct EdgeAddresses {
    /// WebSocket of the CloudHub.
    pub websocket: SocketAddr,
    /// HTTPS bootstrap of the CloudHub.
    pub https: SocketAddr,
    /// Port of the embedded MQTT broker; 0 lets the system choose.
    pub mqtt: u16,
}

/// `edgecore.yaml` of a site.
pub fn edgecore_yaml(layout: &Layout, addresses: EdgeAddresses, token: &str) -> String {
    let EdgeAddresses { websocket, https, mqtt } = addresses;
    let files = |name: &str| quoted(&layout.dir().join("edge").join(name));
    let mut yaml = String::new();
    let _ = write!(
        yaml,
        "apiVersion: edgecore.config.kubeedge.io/v1alpha2
kind: EdgeCore
database:
  dataSource: {database}
modules:
  edgeHub:
    httpServer: https://{https}
    token: {token}
    tlsCaFile: {ca}
    tlsCertFile: {cert}
    tlsPrivateKeyFile: {key}
    websocket: {{enable: true, server: '{websocket}'}}
  eventBus:
    enable: true
    mqttMode: 0
    mqttServerInternal: tcp://127.0.0.1:{mqtt}
  deviceTwin: {{dmiSockPath: {dmi}}}
  edged:
    enable: true
    hostnameOverride: {NODE}
    rootDirectory: {root}
    tailoredKubeletConfig:
      containerRuntimeEndpoint: native://
      podLogsDir: {logs}
",
        database = quoted(&layout.edge_database()),
        ca = files("ca.crt"),
        cert = files("client.crt"),
        key = files("client.key"),
        dmi = quoted(&layout.dir().join("edge")),
        root = files("kubelet"),
        logs = quoted(&layout.pod_logs()),
    );
    yaml
}

/// A path as a YAML scalar: JSON strings are YAML.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy().as_ref()).to_string()
}
