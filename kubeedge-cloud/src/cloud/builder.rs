use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kube::Client;
use kubeedge_core::{
    message::Message,
    names::{SharedClock, SystemClock},
    service::BoxError,
};
use tokio::net::TcpListener;
use tower::Service;

use super::{CloudCoreError, CloudCoreHandle, api::ApiSource, assembly};
use crate::{
    config::{CloudCoreConfig, SyncControllerConfig},
    hub::{Authorization, Destination, FromNode, HubConfig, UplinkRouter},
    ownership::{InstanceName, LeaseTimes},
    pki::{PkiConfig, PkiFiles},
    sync::SyncLedger,
};

const DEFAULT_SWEEP: Duration = Duration::from_secs(60);
const DEFAULT_STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Descriptors that are not for sockets of nodes: the HTTPS port and the embedded API may take 384 each, and without some
/// for connections to Kubernetes nothing goes on.
const OTHER_DESCRIPTORS: u64 = 960;

/// Sockets that nodes may have, of what this process may open.
fn sockets() -> usize {
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let sockets = open_files.map(|files| files - (files / 2).min(OTHER_DESCRIPTORS));
    sockets.and_then(|sockets| usize::try_from(sockets).ok()).unwrap_or(usize::MAX)
}

/// The cloud. Start with [`builder`](Self::builder) or [`from_config`](Self::from_config).
#[derive(Debug)]
#[non_exhaustive]
pub struct CloudCore;

/// Where a port is.
pub(super) enum Endpoint {
    Address(SocketAddr),
    Listener(TcpListener),
}

/// Settings of a cloud; nothing happens before [`spawn`](Self::spawn).
pub struct CloudCoreBuilder {
    pub(super) source: ApiSource,
    pub(super) pki: PkiConfig,
    pub(super) hub: HubConfig,
    pub(super) websocket: Option<Endpoint>,
    pub(super) quic: Option<SocketAddr>,
    pub(super) https: Option<Endpoint>,
    pub(super) admission: Option<SocketAddr>,
    pub(super) commands: Option<SocketAddr>,
    pub(super) clock: SharedClock,
    pub(super) router: UplinkRouter,
    pub(super) edge_controller: bool,
    pub(super) device_controller: bool,
    pub(super) resync: bool,
    pub(super) authorization: Authorization,
    pub(super) ledger: LedgerSource,
    pub(super) instance: Option<InstanceName>,
    pub(super) lease_times: LeaseTimes,
    pub(super) sweep: Duration,
    pub(super) status_interval: Duration,
}

/// Where it is remembered what nodes have.
pub(super) enum LedgerSource {
    Crd,
    Sqlite(PathBuf),
    Given(Arc<dyn SyncLedger>),
}

impl CloudCore {
    /// A cloud on the Kubernetes API behind `client`, with upstream's defaults: ports 10000 and 10002 on all addresses.
    pub fn builder(client: Client) -> CloudCoreBuilder {
        CloudCoreBuilder::new(ApiSource::Client(client))
    }

    /// A cloud as `cloudcore.yaml` says, with the cluster or the embedded API that it names.
    pub fn from_config(config: &CloudCoreConfig) -> CloudCoreBuilder {
        let source = if config.embedded_api.enable {
            ApiSource::Embedded(config.embedded_api.clone())
        } else {
            ApiSource::Cluster(config.kube_api_config.clone())
        };
        let (modules, hub) = (&config.modules, &config.modules.cloud_hub);
        // All addresses were checked when the configuration was read.
        let ip = |text: &str| text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let mut builder = CloudCoreBuilder::new(source);
        builder.pki = PkiConfig {
            advertise_addresses: hub.advertise_address.iter().map(|text| ip(text)).collect(),
            dns_names: hub.dns_names.clone(),
            ca_files: Some(PkiFiles { certificate: hub.tls_ca_file.clone(), key: hub.tls_ca_key_file.clone() }),
            server_files: Some(PkiFiles {
                certificate: hub.tls_cert_file.clone(),
                key: hub.tls_private_key_file.clone(),
            }),
            edge_certificate_validity: Duration::from_secs(86_400) * hub.edge_cert_signing_duration,
            token_refresh_period: Duration::from_secs(3_600) * hub.token_refresh_duration,
        };
        let sockets = sockets();
        if usize::try_from(hub.node_limit).is_ok_and(|nodes| nodes > sockets) && hub.websocket.enable {
            tracing::warn!(
                node_limit = hub.node_limit,
                sockets,
                "modules.cloudHub.nodeLimit is more than this process may open sockets for: raise its limit of open files"
            );
        }
        builder.hub = HubConfig::default()
            .keepalive(Duration::from_secs(hub.keepalive_interval.into()))
            .node_limit(usize::try_from(hub.node_limit).unwrap_or(usize::MAX))
            .sockets(sockets)
            .write_timeout(Duration::from_secs(hub.write_timeout.into()));
        builder.edge_controller = modules.edge_controller.enable;
        builder.device_controller = modules.device_controller.enable;
        builder.status_interval = Duration::from_millis(modules.device_controller.status_interval.into());
        let sync = &modules.sync_controller;
        builder.resync = sync.enable;
        if sync.ledger == SyncControllerConfig::SQLITE {
            builder.ledger = LedgerSource::Sqlite(sync.ledger_data_source.clone());
        }
        builder.instance = sync.node_leases.then(|| InstanceName::random(&host_name()));
        builder.authorization = hub.authorization.level();
        builder.websocket = hub
            .websocket
            .enable
            .then(|| Endpoint::Address(SocketAddr::new(ip(&hub.websocket.address), hub.websocket.port)));
        builder.quic = hub.quic.enable.then(|| SocketAddr::new(ip(&hub.quic.address), hub.quic.port));
        let admission = &modules.admission;
        builder.admission = admission.enable.then(|| SocketAddr::new(ip(&admission.address), admission.port));
        let commands = &modules.device_controller.command_server;
        builder.commands = commands.enable.then(|| SocketAddr::new(ip(&commands.address), commands.port));
        builder.https(SocketAddr::new(ip(&hub.https.address), hub.https.port))
    }
}

impl CloudCoreBuilder {
    fn new(source: ApiSource) -> Self {
        let any = |port| Endpoint::Address(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        Self {
            source,
            pki: PkiConfig::new(Vec::new()),
            hub: HubConfig::default(),
            websocket: Some(any(10000)),
            quic: None,
            https: Some(any(10002)),
            admission: None,
            commands: None,
            clock: Arc::new(SystemClock),
            router: UplinkRouter::new(),
            edge_controller: true,
            device_controller: true,
            resync: true,
            authorization: Authorization::default(),
            ledger: LedgerSource::Crd,
            instance: Some(InstanceName::random("cloudcore")),
            lease_times: LeaseTimes::default(),
            sweep: DEFAULT_SWEEP,
            status_interval: DEFAULT_STATUS_INTERVAL,
        }
    }

    /// Certificates. Without addresses and names, the address of this host is certified.
    pub fn pki(mut self, pki: PkiConfig) -> Self {
        self.pki = pki;
        self
    }

    /// Limits and times of the hub.
    pub fn hub(mut self, hub: HubConfig) -> Self {
        self.hub = hub;
        self
    }

    /// Where nodes connect; port 0 for any.
    pub fn websocket(mut self, address: SocketAddr) -> Self {
        self.websocket = Some(Endpoint::Address(address));
        self
    }

    /// Nodes connect to this listener.
    pub fn websocket_listener(mut self, listener: TcpListener) -> Self {
        self.websocket = Some(Endpoint::Listener(listener));
        self
    }

    /// Nodes connect over no WebSocket, but over QUIC, or through [`CloudCoreHandle::door`].
    pub fn without_websocket(mut self) -> Self {
        self.websocket = None;
        self
    }

    /// Where nodes of ours may connect over QUIC, a UDP port; port 0 for any. Default: nowhere.
    pub fn quic(mut self, address: SocketAddr) -> Self {
        self.quic = Some(address);
        self
    }

    /// Where nodes get their certificates; port 0 for any.
    pub fn https(mut self, address: SocketAddr) -> Self {
        self.https = Some(Endpoint::Address(address));
        self
    }

    /// Nodes get their certificates from this listener.
    pub fn https_listener(mut self, listener: TcpListener) -> Self {
        self.https = Some(Endpoint::Listener(listener));
        self
    }

    /// Hands out no certificates: nodes have to get them elsewhere, or come in by links that need none.
    pub fn without_https(mut self) -> Self {
        self.https = None;
        self
    }

    /// Where the webhook that judges devices is served, with the certificate of the hub; port 0 for any. Default: nowhere.
    /// See [`admission`](crate::admission).
    pub fn admission(mut self, address: SocketAddr) -> Self {
        self.admission = Some(address);
        self
    }

    /// Where commands to devices are taken over HTTP, without TLS and without asking who sends them; port 0 for any. Default:
    /// nowhere. See [`commands`](crate::commands).
    ///
    /// # Errors
    /// [`spawn`](Self::spawn) refuses an address that other machines can reach.
    pub fn commands(mut self, address: SocketAddr) -> Self {
        self.commands = Some(address);
        self
    }

    /// What nodes may ask for, beyond what is always checked; default: all.
    pub fn authorization(mut self, authorization: Authorization) -> Self {
        self.authorization = authorization;
        self
    }

    /// The clock of messages and certificates; default: that of the system.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Remembers in `ledger` what nodes have acknowledged; default: in ObjectSyncs and ClusterObjectSyncs.
    ///
    /// A ledger that other clouds cannot see, such as [`SqliteLedger`](crate::sync::SqliteLedger), is only for a cloud that is
    /// alone with its API: another one would not know what to take away from a node that comes to it.
    pub fn ledger(mut self, ledger: Arc<dyn SyncLedger>) -> Self {
        self.ledger = LedgerSource::Given(ledger);
        self
    }

    /// The name under which this cloud claims the sessions of nodes, if there may be others on the same API; default: a
    /// random one. No two that run at the same time may have the same. See [`ownership`](crate::ownership).
    pub fn instance(mut self, name: InstanceName) -> Self {
        self.instance = Some(name);
        self
    }

    /// When the Lease of this cloud is renewed, and what its silence means.
    pub fn lease_times(mut self, times: LeaseTimes) -> Self {
        self.lease_times = times;
        self
    }

    /// Claims no sessions: this cloud is the only one on its API, now and later.
    pub fn alone(mut self) -> Self {
        self.instance = None;
        self
    }

    /// How often each connected node is compared with its records, and records of nodes that are gone are looked for;
    /// default 60 s. What is seen to change is acted upon at once, so this is for what was missed.
    pub fn sweep(mut self, every: Duration) -> Self {
        self.sweep = every;
        self
    }

    /// Shortest time between two writes of one DeviceStatus; default 1 s, zero for none. What a device reports meanwhile is
    /// written together, the newest value of each property winning, and confirmed to the node then.
    pub fn status_interval(mut self, interval: Duration) -> Self {
        self.status_interval = interval;
        self
    }

    /// Passes messages of nodes for `destination` to a part of the embedder's, in place of our own if there is one.
    pub fn route<S>(mut self, destination: Destination, part: S) -> Self
    where
        S: Service<FromNode, Response = Option<Message>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
    {
        self.router = self.router.route(destination, part);
        self
    }

    /// Starts the cloud. Resolves when nodes can connect.
    ///
    /// As long as the Kubernetes API cannot be reached, this waits and tries again; put a timeout around it if that is not
    /// wanted. Once it runs, the cloud outlives any outage of the API.
    ///
    /// # Errors
    /// [`CloudCoreError`], when an operator has to do something about it.
    ///
    /// # Cancel safety
    /// What was started is stopped.
    pub async fn spawn(mut self) -> Result<CloudCoreHandle, CloudCoreError> {
        if self.pki.advertise_addresses.is_empty() {
            self.pki.advertise_addresses.push(host_address());
        }
        assembly::spawn(self).await
    }
}

impl Endpoint {
    pub(super) async fn listen(self, what: &'static str) -> Result<TcpListener, CloudCoreError> {
        match self {
            Self::Address(address) => bind(what, address).await,
            Self::Listener(listener) => Ok(listener),
        }
    }
}

pub(super) async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, CloudCoreError> {
    TcpListener::bind(address).await.map_err(|source| CloudCoreError::Bind { what, address, source })
}

pub(super) fn bind_udp(what: &'static str, address: SocketAddr) -> Result<UdpSocket, CloudCoreError> {
    UdpSocket::bind(address).map_err(|source| CloudCoreError::Bind { what, address, source })
}

/// The name of this host, for readers; it need not be true.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The address from which this host would speak to others; nothing is sent for it. Loopback if it speaks to nobody.
fn host_address() -> IpAddr {
    let ask = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // TEST-NET-1: any address beyond the local networks shows the default route.
        socket.connect(("192.0.2.1", 9))?;
        Ok(socket.local_addr()?.ip())
    };
    ask().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

impl fmt::Debug for CloudCoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudCoreBuilder").field("hub", &self.hub).field("pki", &self.pki).finish_non_exhaustive()
    }
}
