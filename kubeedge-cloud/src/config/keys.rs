//! The keys that we use, with upstream's defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::hub::Authorization;

/// `cloudcore.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CloudCoreConfig {
    /// Not checked, as upstream.
    pub api_version: String,
    /// Not checked, as upstream.
    pub kind: String,
    /// The cluster.
    #[serde(rename = "kubeAPIConfig")]
    pub kube_api_config: KubeApiConfig,
    /// A Kubernetes API of our own, in place of a cluster.
    #[serde(rename = "embeddedAPI")]
    pub embedded_api: EmbeddedApiConfig,
    /// The parts.
    pub modules: ModulesConfig,
}

/// How to reach the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeApiConfig {
    /// URL of the API, in place of that of the kubeconfig.
    pub master: String,
    /// Kubeconfig file; empty for the service account of the pod that we run in.
    pub kube_config: String,
}

/// The embedded Kubernetes API; see [`apiserver`](crate::apiserver).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmbeddedApiConfig {
    /// Whether it is used in place of a cluster. Default: false.
    pub enable: bool,
    /// Where it listens. Default: `127.0.0.1`.
    pub address: String,
    /// Default: 6443; 0 for any.
    pub port: u16,
    /// Its database. Default: `/var/lib/kubeedge/apiserver.db`. Its keys are kept beside it, in the folder `pki`.
    pub data_source: PathBuf,
    /// Where the administrator's kubeconfig is written; empty for nowhere. Default: `/etc/kubeedge/admin.conf`.
    pub kubeconfig: PathBuf,
}

impl Default for EmbeddedApiConfig {
    fn default() -> Self {
        Self {
            enable: false,
            address: "127.0.0.1".into(),
            port: 6443,
            data_source: "/var/lib/kubeedge/apiserver.db".into(),
            kubeconfig: "/etc/kubeedge/admin.conf".into(),
        }
    }
}

/// The parts of the cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModulesConfig {
    /// CloudHub.
    pub cloud_hub: CloudHubConfig,
    /// EdgeController.
    pub edge_controller: ModuleConfig,
    /// DeviceController.
    pub device_controller: DeviceControllerConfig,
    /// SyncController.
    pub sync_controller: SyncControllerConfig,
    /// The webhook that judges devices; see [`admission`](crate::admission). Our own: upstream has a program for it.
    pub admission: AdmissionConfig,
}

/// DeviceController. All but `enable` is our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceControllerConfig {
    /// Default: true.
    pub enable: bool,
    /// Milliseconds between two writes of one DeviceStatus, at least; what a device reports meanwhile is written together.
    /// Default: 1000; 0 for a write per report.
    pub status_interval: u32,
    /// Where commands to devices are taken; see [`commands`](crate::commands).
    pub command_server: CommandServerConfig,
}

impl Default for DeviceControllerConfig {
    fn default() -> Self {
        Self { enable: true, status_interval: 1000, command_server: CommandServerConfig::default() }
    }
}

/// Where commands to devices are taken over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommandServerConfig {
    /// Default: false.
    pub enable: bool,
    /// An address of this machine's own, as nobody is asked who he is. Default: `127.0.0.1`.
    pub address: String,
    /// Default: 9445.
    pub port: u16,
}

impl Default for CommandServerConfig {
    fn default() -> Self {
        Self { enable: false, address: "127.0.0.1".into(), port: 9445 }
    }
}

/// SyncController. All but `enable` is our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncControllerConfig {
    /// Default: true.
    pub enable: bool,
    /// Where it is remembered what nodes have acknowledged: `crd` (ObjectSyncs in the API) or `sqlite` (a file, only with
    /// the embedded API). Default: `crd`.
    pub ledger: String,
    /// The file of the ledger `sqlite`. Default: `/var/lib/kubeedge/ledger.db`. No two clouds may share it.
    pub ledger_data_source: PathBuf,
    /// Whether the session of each node is claimed by a Lease, so that several clouds may serve the same API. Default: true.
    pub node_leases: bool,
}

impl SyncControllerConfig {
    /// The value of `ledger` for records in the API.
    pub const CRD: &str = "crd";
    /// The value of `ledger` for records in a file.
    pub const SQLITE: &str = "sqlite";
}

impl Default for SyncControllerConfig {
    fn default() -> Self {
        Self {
            enable: true,
            ledger: Self::CRD.into(),
            ledger_data_source: "/var/lib/kubeedge/ledger.db".into(),
            node_leases: true,
        }
    }
}

/// A part that is on or off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModuleConfig {
    /// Default: true.
    pub enable: bool,
}

impl Default for ModuleConfig {
    fn default() -> Self {
        Self { enable: true }
    }
}

/// CloudHub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CloudHubConfig {
    /// Default: true.
    pub enable: bool,
    /// Seconds without a keepalive after which a session ends. Default: 30.
    pub keepalive_interval: u32,
    /// Most nodes at a time. Default: 500.
    pub node_limit: u32,
    /// Seconds that a node may take for a frame. Default: 30.
    pub write_timeout: u32,
    /// Certificate of the CA, PEM. Default: `/etc/kubeedge/ca/rootCA.crt`. Where there is no file, the Secret is used.
    #[serde(rename = "tlsCAFile")]
    pub tls_ca_file: PathBuf,
    /// Key of the CA, PEM. Default: `/etc/kubeedge/ca/rootCA.key`.
    #[serde(rename = "tlsCAKeyFile")]
    pub tls_ca_key_file: PathBuf,
    /// Certificate of CloudHub, PEM. Default: `/etc/kubeedge/certs/server.crt`.
    pub tls_cert_file: PathBuf,
    /// Key of CloudHub, PEM. Default: `/etc/kubeedge/certs/server.key`.
    pub tls_private_key_file: PathBuf,
    /// IP addresses under which edges reach CloudHub. Default: the address of this host.
    pub advertise_address: Vec<String>,
    /// Names under which edges reach CloudHub. Default: none.
    pub dns_names: Vec<String>,
    /// Days for which certificates of edges are valid. Default: 365.
    pub edge_cert_signing_duration: u32,
    /// Hours after which a fresh join token is written. Default: 12.
    pub token_refresh_duration: u32,
    /// Where nodes connect.
    pub websocket: WebSocketConfig,
    /// Where nodes of ours may connect over QUIC.
    pub quic: QuicConfig,
    /// Where nodes get their certificates.
    pub https: HttpsConfig,
    /// What nodes may ask for, beyond what is always checked.
    pub authorization: AuthorizationConfig,
}

impl Default for CloudHubConfig {
    fn default() -> Self {
        Self {
            enable: true,
            keepalive_interval: 30,
            node_limit: 500,
            write_timeout: 30,
            tls_ca_file: "/etc/kubeedge/ca/rootCA.crt".into(),
            tls_ca_key_file: "/etc/kubeedge/ca/rootCA.key".into(),
            tls_cert_file: "/etc/kubeedge/certs/server.crt".into(),
            tls_private_key_file: "/etc/kubeedge/certs/server.key".into(),
            advertise_address: Vec::new(),
            dns_names: Vec::new(),
            edge_cert_signing_duration: 365,
            token_refresh_duration: 12,
            websocket: WebSocketConfig::default(),
            quic: QuicConfig::default(),
            https: HttpsConfig::default(),
            authorization: AuthorizationConfig::default(),
        }
    }
}

/// What nodes may ask for; see [`Authorization`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationConfig {
    /// Default: false.
    pub enable: bool,
    /// Whether denials are only logged. Default: true.
    pub debug: bool,
    /// Who decides. There is only one mode.
    pub modes: Vec<AuthorizationMode>,
}

/// One that decides what nodes may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationMode {
    /// The rules of Kubernetes' node authorizer.
    pub node: ModuleConfig,
}

impl Default for AuthorizationConfig {
    fn default() -> Self {
        let node = ModuleConfig { enable: true };
        Self { enable: false, debug: true, modes: vec![AuthorizationMode { node }] }
    }
}

impl AuthorizationConfig {
    /// What that comes to.
    pub fn level(&self) -> Authorization {
        match (self.enable, self.debug) {
            (false, _) => Authorization::Off,
            (true, true) => Authorization::LogOnly,
            (true, false) => Authorization::Enforce,
        }
    }
}

macro_rules! endpoint {
    ($(#[$doc:meta])* $name:ident, $port:literal, $enable:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            #[doc = concat!("Default: ", $enable, ".")]
            pub enable: bool,
            /// IP address. Default: `0.0.0.0`.
            pub address: String,
            #[doc = concat!("Default: ", $port, "; 0 for any.")]
            pub port: u16,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { enable: $enable, address: "0.0.0.0".into(), port: $port }
            }
        }
    };
}

endpoint!(
    /// The port of the webhook: HTTPS with the certificate of CloudHub.
    AdmissionConfig, 9444, false
);
endpoint!(
    /// The WebSocket port.
    WebSocketConfig, 10000, true
);
endpoint!(
    /// The QUIC port (UDP): IETF QUIC, for nodes of ours. A Go edge cannot connect there, as upstream's QUIC is an older one.
    QuicConfig, 10001, false
);
endpoint!(
    /// The HTTPS port. It is served whatever `enable` says, as upstream.
    HttpsConfig, 10002, true
);
