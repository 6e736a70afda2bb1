//! The keys that are used, with upstream's defaults.

use std::collections::BTreeMap;

use kubeedge_core::transport::CloudEndpoint;
use serde::{Deserialize, Serialize};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr, $key:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[non_exhaustive]
        pub struct $name {
            $(
                $(#[$field_doc])*
                #[doc = concat!("\n\nKey: `", $key, "`.")]
                #[serde(rename = $key)]
                pub $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default.into(),)* }
            }
        }
    };
}

section! {
    /// `edgecore.yaml`.
    EdgeCoreConfig {
        /// The file of the metadata store.
        database: DatabaseConfig = DatabaseConfig::default(), "database";
        /// The parts.
        modules: Modules = Modules::default(), "modules";
    }
}

section! {
    /// The metadata store.
    DatabaseConfig {
        /// Only `sqlite3`.
        driver_name: String = "sqlite3", "driverName";
        /// Path of the file; its folder is created. Tables of upstream in the same file are left alone.
        data_source: String = "/var/lib/kubeedge/edgecore.db", "dataSource";
    }
}

section! {
    /// The parts.
    Modules {
        /// The link to the cloud.
        edge_hub: EdgeHubConfig = EdgeHubConfig::default(), "edgeHub";
        /// The event bus.
        event_bus: EventBusConfig = EventBusConfig::default(), "eventBus";
        /// Metadata. The store is always on.
        meta_manager: MetaManagerConfig = MetaManagerConfig::default(), "metaManager";
        /// Twins. They are always on.
        device_twin: DeviceTwinConfig = DeviceTwinConfig::default(), "deviceTwin";
        /// Node and pods.
        edged: EdgedModuleConfig = EdgedModuleConfig::default(), "edged";
        /// Our own: the drivers inside of the agent.
        mapper: MapperModuleConfig = MapperModuleConfig::default(), "mapper";
    }
}

section! {
    /// The link to the cloud, and the certificate for it.
    EdgeHubConfig {
        /// Must be true: a node has a link.
        enable: bool = true, "enable";
        /// Seconds between keepalives.
        heartbeat: u32 = 15_u32, "heartbeat";
        /// Messages per second; 0 for no limit.
        message_qps: u32 = 30_u32, "messageQPS";
        /// Messages at once.
        message_burst: u32 = 60_u32, "messageBurst";
        /// Project id.
        project_id: String = CloudEndpoint::DEFAULT_PROJECT, "projectID";
        /// CA of the cloud.
        tls_ca_file: String = "/etc/kubeedge/ca/rootCA.crt", "tlsCaFile";
        /// Certificate of the node.
        tls_cert_file: String = "/etc/kubeedge/certs/server.crt", "tlsCertFile";
        /// Private key of the node.
        tls_private_key_file: String = "/etc/kubeedge/certs/server.key", "tlsPrivateKeyFile";
        /// HTTPS port of the cloud.
        http_server: String = "https://127.0.0.1:10002", "httpServer";
        /// Join token. It stays in the file: upstream blanks it after joining, and damages other keys while it does so.
        token: String = "", "token";
        /// Whether the certificate is renewed in time.
        rotate_certificates: bool = true, "rotateCertificates";
        /// The WebSocket.
        websocket: WebSocketConfig = WebSocketConfig::default(), "websocket";
        /// QUIC, in place of the WebSocket.
        quic: QuicConfig = QuicConfig::default(), "quic";
    }
}

section! {
    /// The WebSocket.
    WebSocketConfig {
        /// Whether it is used; exactly one of it and `quic` is.
        enable: bool = true, "enable";
        /// `host:port` of the CloudHub.
        server: String = "127.0.0.1:10000", "server";
        /// Seconds for a dial.
        handshake_timeout: u32 = 30_u32, "handshakeTimeout";
        /// Seconds for a write.
        write_deadline: u32 = 15_u32, "writeDeadline";
    }
}

section! {
    /// QUIC: that of the IETF, to a CloudHub of ours. Go CloudHubs speak an older one, and cannot be reached with it.
    QuicConfig {
        /// Whether it is used; exactly one of it and `websocket` is.
        enable: bool = false, "enable";
        /// `host:port` of the CloudHub.
        server: String = "127.0.0.1:10001", "server";
        /// Seconds for a dial.
        handshake_timeout: u32 = 30_u32, "handshakeTimeout";
        /// Seconds for a write.
        write_deadline: u32 = 15_u32, "writeDeadline";
    }
}

section! {
    /// The event bus.
    EventBusConfig {
        /// Whether there is one.
        enable: bool = true, "enable";
        /// 0: broker inside of the agent, 2: broker at `mqttServerExternal`, 1: both.
        mqtt_mode: u32 = 2_u32, "mqttMode";
        /// Where the broker of the agent listens.
        mqtt_server_internal: String = "tcp://127.0.0.1:1884", "mqttServerInternal";
        /// Where the other broker is.
        mqtt_server_external: String = "tcp://127.0.0.1:1883", "mqttServerExternal";
        /// Least QoS of what the agent publishes: 0, 1 or 2. To the other broker it is at least 1, as upstream has it.
        mqtt_qos: u32 = 0_u32, "mqttQOS";
        /// Whether brokers keep what the agent publishes for those that subscribe later.
        mqtt_retain: bool = false, "mqttRetain";
        /// Messages that wait for one subscriber.
        mqtt_session_queue_size: u32 = 100_u32, "mqttSessionQueueSize";
        /// Client id for subscriptions; a random one if empty.
        mqtt_sub_client_id: String = "", "mqttSubClientID";
        /// Client id for publications; a random one if empty.
        mqtt_pub_client_id: String = "", "mqttPubClientID";
        /// Name at the other broker; also demanded by the broker of the agent.
        mqtt_username: String = "", "mqttUsername";
        /// Password for it.
        mqtt_password: String = "", "mqttPassword";
        /// TLS to the other broker.
        tls: BrokerTls = BrokerTls::default(), "eventBusTLS";
        /// More about the broker of the agent. Ours.
        internal: InternalBroker = InternalBroker::default(), "internalBroker";
    }
}

section! {
    /// The broker of the agent. Its keys are not upstream's.
    InternalBroker {
        /// Certificate with which it speaks TLS; plain TCP if empty.
        cert_file: String = "", "tlsCertFile";
        /// Its private key.
        private_key_file: String = "", "tlsPrivateKeyFile";
        /// CA whose certificates clients must show; none need be shown if empty.
        client_ca_file: String = "", "tlsClientCAFile";
        /// Users, in the form of mosquitto's `password_file`; beside `mqttUsername`.
        password_file: String = "", "passwordFile";
        /// Topics that may be used, in the form of mosquitto's `acl_file`; all if empty.
        acl_file: String = "", "aclFile";
        /// Whether those without a name are let in although there are users; on loopback only.
        allow_anonymous: bool = false, "allowAnonymous";
    }
}

section! {
    /// TLS to an MQTT broker.
    BrokerTls {
        /// Whether it is used; the URL then begins with `ssl://`.
        enable: bool = false, "enable";
        /// CA of the broker.
        ca_file: String = "/etc/kubeedge/ca/rootCA.crt", "tlsMqttCAFile";
        /// Our certificate; none if empty.
        cert_file: String = "/etc/kubeedge/certs/server.crt", "tlsMqttCertFile";
        /// Our private key.
        private_key_file: String = "/etc/kubeedge/certs/server.key", "tlsMqttPrivateKeyFile";
    }
}

section! {
    /// Metadata.
    MetaManagerConfig {
        /// Accepted; the store is always on.
        enable: bool = true, "enable";
        /// Seconds to wait for an answer of the cloud.
        remote_query_timeout: u32 = 60_u32, "remoteQueryTimeout";
    }
}

section! {
    /// Twins.
    DeviceTwinConfig {
        /// Whether mappers can register. Twins are always on.
        enable: bool = true, "enable";
        /// Folder of the socket `dmi.sock` that mappers register at; of a value that ends in `.sock`, its folder.
        dmi_sock_path: String = "/etc/kubeedge/", "dmiSockPath";
    }
}

section! {
    /// The drivers inside of the agent. Upstream has none: there mappers are programs of their own.
    MapperModuleConfig {
        /// Whether devices whose protocol has a driver here are polled.
        enable: bool = true, "enable";
    }
}

section! {
    /// Node and pods.
    EdgedModuleConfig {
        /// Whether the node registers and runs pods.
        enable: bool = true, "enable";
        /// Name of the node; that of the machine if empty.
        hostname_override: String = "", "hostnameOverride";
        /// Address of the node; that of the way to the cloud if empty.
        node_ip: String = "", "nodeIP";
        /// Further labels of the node.
        node_labels: BTreeMap<String, String> = BTreeMap::new(), "nodeLabels";
        /// Where pods' volumes and the state of the runtime lie.
        root_directory: String = "/var/lib/kubelet", "rootDirectory";
        /// The settings of the kubelet.
        kubelet: KubeletConfig = KubeletConfig::default(), "tailoredKubeletConfig";
    }
}

section! {
    /// The settings of the kubelet that have a meaning here.
    KubeletConfig {
        /// `native://` runs containers as processes of this machine. Upstream's default is a socket of containerd.
        container_runtime_endpoint: String = "unix:///run/containerd/containerd.sock", "containerRuntimeEndpoint";
        /// Where logs of containers lie.
        pod_logs_dir: String = "/var/log/pods", "podLogsDir";
        /// How often the status of the node is looked at, such as `10s`.
        node_status_update_frequency: String = "10s", "nodeStatusUpdateFrequency";
        /// How often it is sent even if nothing changed, such as `5m`.
        node_status_report_frequency: String = "5m", "nodeStatusReportFrequency";
        /// How long a lease is good.
        node_lease_duration_seconds: u32 = 40_u32, "nodeLeaseDurationSeconds";
        /// How many pods the node takes.
        max_pods: u32 = 110_u32, "maxPods";
        /// Whether the node registers itself.
        register_node: bool = true, "registerNode";
    }
}
