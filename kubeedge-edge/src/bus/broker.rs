//! A small MQTT 3.1.1 broker for the applications of one node.

mod access;
mod attach;
mod connection;
mod router;
mod session;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use self::{
    access::{BrokerAccess, InvalidAccess},
    attach::BrokerBus,
};
use self::{connection::Connection, router::Router};

/// Connections that still end get so long, of the second that a shutdown may take.
const GRACE: Duration = Duration::from_millis(700);
/// Pause after a failed accept, for example without free file descriptors: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a broker listens on, and its limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BrokerConfig {
    /// Where it listens; port 0 takes a free one. It must be loopback if [`access`](Self::access) lets strangers in.
    pub addr: SocketAddr,
    /// Who may connect, and use which topics. By default everybody on this machine may use all.
    pub access: BrokerAccess,
    /// TLS for all clients, with or without certificates of theirs; plain TCP by default.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Messages that wait for one subscriber. Default 100.
    ///
    /// Upstream: `mqttSessionQueueSize`.
    pub session_queue: usize,
    /// How long in all a client may hold publishers between two moments at which it had caught up. After that QoS 0
    /// messages that find its queue full are dropped, and a QoS 1 or 2 message closes its connection. Default 1 s.
    pub patience: Duration,
    /// Longest packet, in bytes; a longer one closes the connection. Default 1 MiB.
    pub max_packet: usize,
    /// Clients at a time; further ones are turned away. Default 256.
    pub max_clients: usize,
    /// Subscriptions of one client; further ones are refused. Default 1000.
    pub max_subscriptions: usize,
    /// Bytes of all retained messages; a message over it is delivered, but not retained. Default 4 MiB.
    pub max_retained: usize,
    /// QoS 1 and 2 messages sent to one client and not confirmed. Default 32.
    pub inflight: u16,
    /// A client has so long to send its CONNECT, and to take bytes that are sent to it. Default 10 s.
    pub timeout: Duration,
}

impl BrokerConfig {
    /// The defaults, on `addr`.
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            access: BrokerAccess::open(),
            tls: None,
            session_queue: 100,
            patience: Duration::from_secs(1),
            max_packet: 1024 * 1024,
            max_clients: 256,
            max_subscriptions: 1000,
            max_retained: 4 * 1024 * 1024,
            inflight: 32,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Other machines could use it without a password: listen on loopback, or name users.
    #[error("broker address {0} can be reached from other machines and asks for no password")]
    Exposed(SocketAddr),
    /// The address cannot be listened on.
    #[error("broker cannot listen on {addr}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What the connections of a broker share.
#[derive(Debug)]
struct Shared {
    config: BrokerConfig,
    router: Router,
}

/// An MQTT 3.1.1 broker: QoS 0, 1 and 2, retained messages, wills, keepalive; clean sessions only, in memory.
///
/// A client that asks for a persistent session gets a fresh one and is told so (session present 0). Topics that start
/// with `$` are routed like others, but a leading wildcard does not match them. Nothing is published under `$SYS`, and
/// shared subscriptions (`$share/`) are refused.
///
/// Upstream: `edge/pkg/eventbus/mqtt` (internal broker).
#[derive(Debug)]
pub struct EmbeddedBroker {
    listener: TcpListener,
    addr: SocketAddr,
    shared: Closer,
}

impl EmbeddedBroker {
    /// Listens, but lets nobody in before [`run`](Self::run).
    ///
    /// # Errors
    /// [`BrokerError::Exposed`] for an address beyond loopback that lets strangers in, [`BrokerError::Bind`] if the
    /// address is taken or not ours.
    pub async fn bind(config: BrokerConfig) -> Result<Self, BrokerError> {
        let addr = config.addr;
        if config.access.lets_strangers_in() && !addr.ip().to_canonical().is_loopback() {
            return Err(BrokerError::Exposed(addr));
        }
        let listener = TcpListener::bind(addr).await.map_err(|source| BrokerError::Bind { addr, source })?;
        let addr = listener.local_addr().map_err(|source| BrokerError::Bind { addr, source })?;
        let router = Router::new(config.max_retained);
        Ok(Self { listener, addr, shared: Closer(Arc::new(Shared { config, router })) })
    }

    /// Where it listens, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// A bus that joins the broker in process, without a socket. It works from now on, and ends with the broker.
    pub fn bus(&self) -> BrokerBus {
        BrokerBus::new(Arc::clone(&self.shared.0))
    }

    /// Serves clients until `shutdown`, then closes their connections; within a second all is gone.
    ///
    /// # Cancel safety
    /// Dropping the future stops the broker at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, addr, shared: closer } = self;
        let shared = &closer.0;
        // Dropped before its end, the set aborts its tasks.
        let mut connections = JoinSet::new();
        tracing::info!(%addr, "mqtt broker is listening");
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((_, peer)) if connections.len() >= shared.config.max_clients => {
                    tracing::warn!(%peer, limit = shared.config.max_clients, "mqtt client turned away: too many clients");
                }
                Ok((stream, peer)) => {
                    // Small packets must not wait for each other; without it they only come later.
                    let _ = stream.set_nodelay(true);
                    let connection = Connection::new(Arc::clone(shared), peer);
                    match &shared.config.tls {
                        None => drop(connections.spawn(connection.serve(stream, shutdown.clone()))),
                        Some(tls) => {
                            let accepting = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
                            connections.spawn(connection.serve_tls(accepting, shutdown.clone()));
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "mqtt broker cannot accept a client");
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
        drop(listener);
        shared.router.close();
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            connections.shutdown().await;
        }
        tracing::info!(%addr, "mqtt broker has stopped");
    }
}

/// Ends the subscriptions of a broker that does not run any more.
#[derive(Debug)]
struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.router.close();
    }
}
