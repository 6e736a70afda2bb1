use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kubeedge_core::{
    bus::{BusHandle, Qos},
    mapper::DriverMaker,
    meta::MetaHandle,
    names::{NodeName, SharedClock, SystemClock},
    session::{Keepalive, SessionConfig},
    transport::TransportHandle,
};
use kubeedge_mapper::MapperConfig;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::Layer as _;

use super::{ConfigError, certificates, keys::EdgeCoreConfig, pair::PairBus, units, validate};
use crate::{
    bus::{Credentials, InvalidMqttOptions, MqttBus, MqttOptions, PublishDefaults},
    edged::{EdgedConfig, ProcessRuntime, RuntimeError},
    hub::{DialSettings, HubConfig, RateLimit, WebSocket},
    meta::{SqliteError, SqliteStore},
    node::{EdgeNode, EdgeNodeHandle, SpawnError, Stopped, Unfinished},
    pki::{CertificateConfig, CertificateError, CertificateFiles, EdgeCertificates, Identity},
};

#[cfg(feature = "broker")]
use crate::bus::{BrokerAccess, BrokerConfig, BrokerError, EmbeddedBroker};

/// Where upstream looks for a join token that was put there after the installation.
const TOKEN_FILE: &str = "/etc/kubeedge/bootstrap-edgecore.conf";

/// The edge agent that an `edgecore.yaml` describes, not yet running.
#[must_use = "nothing runs until it is started"]
pub struct EdgeCore {
    config: EdgeCoreConfig,
    node: NodeName,
    clock: SharedClock,
    token_file: Option<PathBuf>,
    drivers: Vec<(String, DriverMaker)>,
    stop_pods: Option<Duration>,
}

/// Why the agent was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A value of the configuration cannot be used.
    #[error("configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The metadata store cannot be opened.
    #[error("no metadata store")]
    Store(#[from] SqliteError),
    /// What is said about certificates cannot be used.
    #[error("no certificates")]
    Certificates(#[from] CertificateError),
    /// The broker of the agent cannot start.
    #[cfg(feature = "broker")]
    #[error("no broker")]
    Broker(#[from] BrokerError),
    /// What is said about the other broker cannot be used.
    #[error("no connection to the external broker")]
    Mqtt(#[from] InvalidMqttOptions),
    /// A file of TLS to the other broker cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The runtime of the pods cannot be opened.
    #[error("no pod runtime")]
    Runtime(#[from] RuntimeError),
    /// The node cannot be put together.
    #[error("no node")]
    Node(#[from] SpawnError),
}

impl EdgeCore {
    /// Checks the configuration; opens and connects nothing.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and its value.
    pub fn from_config(config: &EdgeCoreConfig) -> Result<Self, ConfigError> {
        validate::check(config)?;
        Ok(Self {
            node: node_name(config)?,
            config: config.clone(),
            clock: Arc::new(SystemClock),
            token_file: Some(TOKEN_FILE.into()),
            drivers: Vec::new(),
            stop_pods: None,
        })
    }

    /// The wall clock; default that of the operating system.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// A file whose text, if it is there, is the join token; default that of upstream.
    pub fn token_file(mut self, path: Option<PathBuf>) -> Self {
        self.token_file = path;
        self
    }

    /// A further driver; see [`EdgeNodeBuilder::driver`](crate::node::EdgeNodeBuilder::driver). It takes the place of a
    /// built-in one for the same protocol.
    pub fn driver(mut self, protocol: impl Into<String>, driver: DriverMaker) -> Self {
        self.drivers.push((protocol.into(), driver));
        self
    }

    /// Stops the pods when the agent shuts down, within `grace` each; default not, so that they outlive an upgrade.
    pub fn stop_pods_on_shutdown(mut self, grace: Option<Duration>) -> Self {
        self.stop_pods = grace;
        self
    }

    /// Name of the node.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Starts the agent on the present tokio runtime. Resolves when pods and devices are looked after; link and
    /// certificate come by themselves, now or later.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    pub async fn start(self) -> Result<EdgeCoreHandle, StartError> {
        let hub = &self.config.modules.edge_hub;
        let certificates = self.certificates()?;
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let mut helpers = JoinSet::new();

        let (identity, watched) = watch::channel(None);
        let redial = Arc::new(Notify::new());
        let rotate = hub.rotate_certificates;
        helpers.spawn(certificates::keep(certificates, rotate, identity, redial.clone(), stop.clone()));
        let transport = self.transport(watched);

        let path = self.config.database.data_source.clone();
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open(path)).await;
        let store = opened.map_err(|error| SqliteError::Failed {
            path: self.config.database.data_source.clone().into(),
            source: error.into(),
        })??;

        let taken_over = store.import_upstream(self.clock.now()).await.map_err(|error| SqliteError::Failed {
            path: self.config.database.data_source.clone().into(),
            source: error.into(),
        })?;
        if taken_over > 0 {
            tracing::info!(records = taken_over, "database of an EdgeCore in Go taken over");
        }

        let mut builder = EdgeNode::builder(self.node.as_str())
            .endpoint(self.server())
            .project(&hub.project_id)
            .transport(transport)
            .meta_store(MetaHandle::of(store.clone()))
            .clock(self.clock.clone())
            .hub(self.hub_config(redial));
        let mut mqtt = None;
        if self.config.modules.event_bus.enable {
            let bus = self.bus(&mut helpers, &stop).await?;
            mqtt = bus.1;
            builder = builder.event_bus(bus.0);
        }
        if self.config.modules.edged.enable {
            let runtime = Path::new(&self.config.modules.edged.root_directory).join("processes");
            let runtime = ProcessRuntime::open(runtime, self.clock.clone()).await?;
            builder = builder.pods(self.edged_config(), Arc::new(runtime));
        }
        for (protocol, driver) in self.all_drivers() {
            builder = builder.driver(protocol, driver);
        }
        #[cfg(feature = "dmi")]
        if self.config.modules.device_twin.enable {
            builder = builder.dmi(units::dmi_socket(&self.config.modules.device_twin.dmi_sock_path));
        }
        let clock = self.clock.clone();
        builder = builder.mapper(move |config| mapper_config(config, clock));
        let node = builder.spawn().await?;
        Ok(EdgeCoreHandle { node, store, mqtt, helpers, stop, _guard: guard })
    }

    fn certificates(&self) -> Result<EdgeCertificates, CertificateError> {
        let hub = &self.config.modules.edge_hub;
        let files = CertificateFiles {
            ca: hub.tls_ca_file.clone().into(),
            certificate: hub.tls_cert_file.clone().into(),
            key: hub.tls_private_key_file.clone().into(),
        };
        let mut config = CertificateConfig::new(self.node.clone(), &hub.http_server, files);
        config.token = (!hub.token.trim().is_empty()).then(|| hub.token.clone());
        config.token_file.clone_from(&self.token_file);
        EdgeCertificates::new(config, self.clock.clone())
    }

    /// `host:port` of the CloudHub.
    fn server(&self) -> &str {
        let hub = &self.config.modules.edge_hub;
        if hub.quic.enable { &hub.quic.server } else { &hub.websocket.server }
    }

    fn transport(&self, identity: watch::Receiver<Option<Identity>>) -> TransportHandle {
        let hub = &self.config.modules.edge_hub;
        #[cfg(feature = "quic")]
        if hub.quic.enable {
            let settings = DialSettings::new().timeout(seconds(hub.quic.handshake_timeout));
            return TransportHandle::of(crate::hub::Quic::following(identity).settings(settings));
        }
        let settings = DialSettings::new().timeout(seconds(hub.websocket.handshake_timeout));
        TransportHandle::of(WebSocket::following(identity).settings(settings))
    }

    fn hub_config(&self, redial: Arc<Notify>) -> impl FnOnce(HubConfig) -> HubConfig + Send + 'static {
        let modules = &self.config.modules;
        let hub = &modules.edge_hub;
        let session = SessionConfig::edge()
            .keepalive(Keepalive::Send { every: seconds(hub.heartbeat) })
            .reply(seconds(modules.meta_manager.remote_query_timeout));
        let rate =
            (hub.message_qps > 0).then(|| RateLimit { per_second: hub.message_qps, burst: hub.message_burst.max(1) });
        let write_deadline = if hub.quic.enable { hub.quic.write_deadline } else { hub.websocket.write_deadline };
        let write_timeout = seconds(write_deadline);
        move |config| config.session(session).rate(rate).write_timeout(write_timeout).redial(redial)
    }

    fn edged_config(&self) -> EdgedConfig {
        let edged = &self.config.modules.edged;
        let kubelet = &edged.kubelet;
        let mut config = EdgedConfig::new(self.node.clone(), &edged.root_directory, &kubelet.pod_logs_dir);
        config.node_ip = edged.node_ip.parse().ok().or_else(|| own_address(self.server()));
        config.labels.clone_from(&edged.node_labels);
        config.register_node = kubelet.register_node;
        config.status_update = units::duration(&kubelet.node_status_update_frequency).unwrap_or(config.status_update);
        config.status_report = units::duration(&kubelet.node_status_report_frequency).unwrap_or(config.status_report);
        config.lease = seconds(kubelet.node_lease_duration_seconds);
        config.max_pods = kubelet.max_pods;
        config.stop_pods_on_shutdown(self.stop_pods)
    }

    fn all_drivers(&self) -> Vec<(String, DriverMaker)> {
        let mut drivers = Vec::new();
        if self.config.modules.mapper.enable {
            #[cfg(feature = "modbus")]
            drivers.push(("modbus".to_owned(), kubeedge_mapper::modbus::Modbus::maker(self.clock.clone())));
            #[cfg(feature = "mqtt-device")]
            drivers.push(("mqtt".to_owned(), kubeedge_mapper::mqtt::MqttDevices::maker(self.clock.clone())));
            #[cfg(feature = "http-device")]
            drivers.push(("http".to_owned(), kubeedge_mapper::http::HttpDevices::maker(self.clock.clone())));
            #[cfg(feature = "simulator")]
            drivers.push(("simulator".to_owned(), kubeedge_mapper::simulator::Simulated::maker(self.clock.clone())));
        }
        drivers.extend(self.drivers.iter().cloned());
        drivers
    }

    /// The bus, and where the broker of the agent listens.
    async fn bus(
        &self,
        helpers: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<(BusHandle, Option<SocketAddr>), StartError> {
        let config = &self.config.modules.event_bus;
        let internal = match config.mqtt_mode {
            0 | 1 => Some(self.broker(helpers, stop).await?),
            _ => None,
        };
        if config.mqtt_mode == 0
            && let Some((bus, addr)) = internal
        {
            return Ok((bus, Some(addr)));
        }
        let (bus, driver) = MqttBus::new(self.mqtt_options().await?);
        helpers.spawn(driver.run(stop.clone()));
        // Upstream asks other brokers for QoS 1 whatever the configuration says.
        let outer = PublishDefaults { qos: self.qos().max(Qos::AtLeastOnce), retain: config.mqtt_retain };
        let outer = BusHandle::new(outer.layer(BusHandle::of(bus.clone())));
        Ok(match internal {
            Some((inner, addr)) => (BusHandle::of(PairBus::new(inner, outer, bus)), Some(addr)),
            None => (outer, None),
        })
    }

    fn qos(&self) -> Qos {
        match self.config.modules.event_bus.mqtt_qos {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        }
    }

    #[cfg(feature = "broker")]
    async fn broker(
        &self,
        helpers: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<(BusHandle, SocketAddr), StartError> {
        let config = &self.config.modules.event_bus;
        let addr = units::listen_address(&config.mqtt_server_internal).ok_or_else(|| {
            let key = "modules.eventBus.mqttServerInternal";
            ConfigError::value(key, &config.mqtt_server_internal, "it must be like tcp://127.0.0.1:1884")
        })?;
        let mut broker = BrokerConfig::new(addr);
        broker.session_queue = config.mqtt_session_queue_size.max(1) as usize;
        broker.access = self.access().await?;
        broker.tls = self.broker_tls().await?;
        let broker = EmbeddedBroker::bind(broker).await?;
        let defaults = PublishDefaults { qos: self.qos(), retain: config.mqtt_retain };
        let (bus, addr) = (BusHandle::new(defaults.layer(BusHandle::of(broker.bus()))), broker.local_addr());
        helpers.spawn(broker.run(stop.clone()));
        Ok((bus, addr))
    }

    #[cfg(not(feature = "broker"))]
    #[expect(clippy::unused_async, reason = "with a broker it waits for its socket")]
    async fn broker(&self, _: &mut JoinSet<()>, _: &CancellationToken) -> Result<(BusHandle, SocketAddr), StartError> {
        let mode = self.config.modules.event_bus.mqtt_mode;
        Err(ConfigError::value("modules.eventBus.mqttMode", mode, "this version was built without a broker").into())
    }

    async fn mqtt_options(&self) -> Result<MqttOptions, StartError> {
        let config = &self.config.modules.event_bus;
        let url = &config.mqtt_server_external;
        let mut options = if config.tls.enable {
            let ca = read(&config.tls.ca_file).await?;
            let identity = match config.tls.cert_file.as_str() {
                "" => None,
                file => Some((read(file).await?, read(&config.tls.private_key_file).await?)),
            };
            let identity = identity.as_ref().map(|(chain, key)| (chain.as_slice(), key.as_slice()));
            // Upstream writes tcp:// in either case.
            let url = url.strip_prefix("tcp://").map_or_else(|| url.clone(), |rest| format!("ssl://{rest}"));
            MqttOptions::tls(&url, &ca, identity)?
        } else {
            MqttOptions::tcp(url)?
        };
        options.credentials = self.credentials();
        options.queue = config.mqtt_session_queue_size.max(1) as usize;
        if !config.mqtt_sub_client_id.is_empty() {
            options.subscriber_id.clone_from(&config.mqtt_sub_client_id);
        }
        if !config.mqtt_pub_client_id.is_empty() {
            options.publisher_id.clone_from(&config.mqtt_pub_client_id);
        }
        Ok(options)
    }

    #[cfg(feature = "broker")]
    async fn access(&self) -> Result<BrokerAccess, StartError> {
        let broker = &self.config.modules.event_bus.internal;
        let wrong = |key: &str, file: &str, error: &dyn std::error::Error| {
            ConfigError::value(&format!("modules.eventBus.internalBroker.{key}"), file, error.to_string())
        };
        let mut access = BrokerAccess::open();
        if let Some(credentials) = self.credentials() {
            access = access.user(credentials);
        }
        if !broker.password_file.is_empty() {
            let text = String::from_utf8_lossy(&read(&broker.password_file).await?).into_owned();
            access = access.passwords(&text).map_err(|error| wrong("passwordFile", &broker.password_file, &error))?;
        }
        if !broker.acl_file.is_empty() {
            let text = String::from_utf8_lossy(&read(&broker.acl_file).await?).into_owned();
            access = access.rules(&text).map_err(|error| wrong("aclFile", &broker.acl_file, &error))?;
        }
        Ok(access.anonymous(broker.allow_anonymous))
    }

    #[cfg(feature = "broker")]
    async fn broker_tls(&self) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
        let broker = &self.config.modules.event_bus.internal;
        if broker.cert_file.is_empty() {
            return Ok(None);
        }
        let (chain, key) = (read(&broker.cert_file).await?, read(&broker.private_key_file).await?);
        let clients = match broker.client_ca_file.as_str() {
            "" => None,
            file => Some(read(file).await?),
        };
        let config = crate::pki::server_config(&chain, &key, clients.as_deref()).map_err(|error| {
            let key = "modules.eventBus.internalBroker.tlsCertFile";
            ConfigError::value(key, &broker.cert_file, kubeedge_core::service::Causes(&*error).to_string())
        })?;
        Ok(Some(Arc::new(config)))
    }

    fn credentials(&self) -> Option<Credentials> {
        let config = &self.config.modules.event_bus;
        (!config.mqtt_username.is_empty()).then(|| Credentials::new(&config.mqtt_username, &config.mqtt_password))
    }
}

impl fmt::Debug for EdgeCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeCore").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The running agent. Dropping it aborts all of its tasks; see [`EdgeCoreHandle::shutdown`].
#[must_use = "a dropped agent is aborted"]
#[derive(Debug)]
pub struct EdgeCoreHandle {
    node: EdgeNodeHandle,
    store: SqliteStore,
    mqtt: Option<SocketAddr>,
    helpers: JoinSet<()>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl EdgeCoreHandle {
    /// The node.
    pub fn node(&self) -> &EdgeNodeHandle {
        &self.node
    }

    /// Where the broker of the agent listens, if it has one.
    pub fn mqtt_addr(&self) -> Option<SocketAddr> {
        self.mqtt
    }

    /// Resolves when a part of the node has ended; see [`EdgeNodeHandle::stopped`].
    pub async fn stopped(&self) -> Stopped {
        self.node.stopped().await
    }

    /// Stops the node in its stages, then bus and certificates, and closes the store.
    ///
    /// # Errors
    /// [`Unfinished`] names the parts of the node that were aborted because they took longer than `grace`.
    pub async fn shutdown(mut self, grace: Duration) -> Result<(), Unfinished> {
        let stopped = self.node.shutdown(grace).await;
        self.stop.cancel();
        let ended = async { while self.helpers.join_next().await.is_some() {} };
        // Brokers give their clients a moment of their own, which is shorter.
        if tokio::time::timeout(Duration::from_secs(1), ended).await.is_err() {
            self.helpers.shutdown().await;
        }
        self.store.close().await;
        stopped
    }
}

fn mapper_config(mut config: MapperConfig, clock: SharedClock) -> MapperConfig {
    config.clock = clock;
    #[cfg(feature = "push-http")]
    config.publishers.push(Arc::new(kubeedge_mapper::push::HttpPublisher::new()));
    #[cfg(feature = "push-mqtt")]
    config.publishers.push(Arc::new(kubeedge_mapper::push::MqttPublisher::new()));
    config
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

async fn read(path: &str) -> Result<Vec<u8>, StartError> {
    tokio::fs::read(path).await.map_err(|source| StartError::File { path: path.into(), source })
}

/// As configured, else as the machine is called, else as upstream calls the nameless.
fn node_name(config: &EdgeCoreConfig) -> Result<NodeName, ConfigError> {
    let machine = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let given = &config.modules.edged.hostname_override;
    let mut names = [given.as_str(), machine.as_str(), "default-edge-node"].into_iter();
    let found = names.find_map(|name| NodeName::new(name).ok());
    found.ok_or_else(|| ConfigError::value("modules.edged.hostnameOverride", given, "it must be the name of a node"))
}

/// Address of this machine on the way to the cloud. Nothing is sent: connecting a UDP socket only looks at the routes.
fn own_address(server: &str) -> Option<IpAddr> {
    let target = server.parse::<SocketAddr>().unwrap_or(SocketAddr::from(([192, 0, 2, 1], 9)));
    let any: SocketAddr =
        if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}
