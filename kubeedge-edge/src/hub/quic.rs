//! QUIC (RFC 9000) to a cloud of ours.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use kubeedge_core::{
    message::Message,
    transport::{
        CloudEndpoint, Link, LinkError, Transport,
        stream::{self, StreamLink},
    },
};
use quinn::{
    ClientConfig, ConnectError, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
};
use tokio::{io::Join, net::lookup_host, sync::watch};

use super::dial::{self, DialSettings, Server};
use crate::pki::Identity;

/// The protocol that both ends name in the TLS handshake.
const ALPN: &[u8] = b"kubeedge";

/// A UDP socket from which several nodes may dial. Cheap to clone; closed when the last clone and the last link are gone.
#[derive(Clone)]
pub struct QuicSocket(Endpoint);

impl QuicSocket {
    /// Opens the socket; port 0 for any. Must be called within a runtime.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Endpoint::client(address).map(Self)
    }
}

impl fmt::Debug for QuicSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicSocket").field("address", &self.0.local_addr().ok()).finish()
    }
}

/// Dials a CloudHub of ours over QUIC, showing the certificate of the node. Use it where links are lossy, or addresses
/// change: a connection survives both.
///
/// A Go CloudHub speaks the QUIC from before the IETF, which nothing of today can meet: dials to it fail with an error
/// that says so.
#[derive(Clone, Debug)]
pub struct Quic {
    identity: watch::Receiver<Option<Identity>>,
    settings: DialSettings,
    socket: Option<QuicSocket>,
}

impl Quic {
    /// Dials as `identity`.
    pub fn new(identity: Identity) -> Self {
        Self::following(watch::channel(Some(identity)).1)
    }

    /// Dials as whoever `identity` shows at that moment.
    pub fn following(identity: watch::Receiver<Option<Identity>>) -> Self {
        Self { identity, settings: DialSettings::default(), socket: None }
    }

    /// Dials from that socket, for programs that are many nodes; by default each link has one of its own. Clouds of the
    /// other address family cannot be reached then.
    pub fn socket(mut self, socket: QuicSocket) -> Self {
        self.socket = Some(socket);
        self
    }

    /// How it dials.
    pub fn settings(mut self, settings: DialSettings) -> Self {
        self.settings = settings;
        self
    }

    fn config(&self, identity: &Identity) -> Result<ClientConfig, LinkError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| LinkError::Failed(error);
        let mut tls = (*identity.client_config()).clone();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let tls = QuicClientConfig::try_from(tls).map_err(|error| failed(error.into()))?;
        let mut config = ClientConfig::new(Arc::new(tls));
        let mut transport = TransportConfig::default();
        let idle =
            self.settings.dead_after.try_into().map_err(|error: quinn::VarIntBoundsExceeded| failed(error.into()))?;
        transport
            .max_idle_timeout(Some(idle))
            // Only if nothing else is sent: the keepalives of the session normally come more often, and are confirmed.
            .keep_alive_interval(Some(self.settings.dead_after * 2 / 3))
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None);
        config.transport_config(Arc::new(transport));
        Ok(config)
    }

    async fn connect(&self, endpoint: &CloudEndpoint, identity: &Identity) -> Result<QuicLink, LinkError> {
        let peer = &endpoint.server;
        let unreachable = |source: io::Error| LinkError::Unreachable { peer: peer.clone(), source: source.into() };
        let server = Server::parse(peer)?;
        let host = server.host();
        let config = self.config(identity)?;
        let mut failure = None;
        for address in lookup_host((host.as_str(), server.port)).await.map_err(unreachable)? {
            let socket = match &self.socket {
                Some(socket) => socket.clone(),
                None => QuicSocket::bind(any_port(address)).map_err(unreachable)?,
            };
            let connecting = socket.0.connect_with(config.clone(), address, &host);
            match connecting.map_err(|error| not_dialed(peer, error))?.await {
                Ok(connection) => {
                    let (send, receive) = connection.open_bi().await.map_err(|error| broken(peer, error))?;
                    let (hello, limit) = (self.settings.hello(endpoint), self.settings.max_message);
                    let link = stream::connect(tokio::io::join(receive, send), peer, &hello, limit).await;
                    let link = link.map_err(|error| reason(peer, &connection, error))?;
                    return Ok(QuicLink { link, connection, _socket: socket });
                }
                Err(error) => failure = Some(broken(peer, error)),
            }
        }
        Err(failure.unwrap_or_else(|| unreachable(io::ErrorKind::NotFound.into())))
    }
}

#[async_trait]
impl Transport for Quic {
    async fn dial(&self, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
        let identity = dial::identity(&self.identity).await?;
        let dial = Box::pin(self.connect(&endpoint, &identity));
        Ok(Box::new(self.settings.in_time(dial, || silent(&endpoint.server)).await?))
    }
}

fn any_port(peer: SocketAddr) -> SocketAddr {
    if peer.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

fn not_dialed(peer: &str, error: ConnectError) -> LinkError {
    LinkError::Unreachable { peer: peer.to_owned(), source: error.into() }
}

/// A Go CloudHub does not answer at all.
fn silent(peer: &str) -> LinkError {
    let why = "no answer over QUIC: nothing is there, or a Go CloudHub, whose QUIC is the one from before the IETF; \
               use the WebSocket (modules.edgeHub.websocket) with it";
    LinkError::Unreachable { peer: peer.to_owned(), source: why.into() }
}

fn broken(peer: &str, error: ConnectionError) -> LinkError {
    /// TLS alerts are errors of QUIC from here on.
    const ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
    let alert = match &error {
        ConnectionError::TransportError(error) => ALERTS.contains(&u64::from(error.code)),
        ConnectionError::ConnectionClosed(close) => ALERTS.contains(&u64::from(close.error_code)),
        _ => false,
    };
    match error {
        ConnectionError::TimedOut | ConnectionError::VersionMismatch => silent(peer),
        ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed => LinkError::Closed,
        error if alert => LinkError::Untrusted { peer: peer.to_owned(), source: error.into() },
        error => LinkError::Unreachable { peer: peer.to_owned(), source: error.into() },
    }
}

/// What a failure of the stream means: the connection knows it best.
fn reason(peer: &str, connection: &Connection, error: LinkError) -> LinkError {
    match (error, connection.close_reason()) {
        (LinkError::Unreachable { .. }, Some(why)) => broken(peer, why),
        (error, _) => error,
    }
}

/// The link, with what it lives on.
struct QuicLink {
    link: StreamLink<Join<RecvStream, SendStream>>,
    connection: Connection,
    _socket: QuicSocket,
}

impl QuicLink {
    fn reason(&self, error: LinkError) -> LinkError {
        reason(&self.connection.remote_address().to_string(), &self.connection, error)
    }
}

impl Stream for QuicLink {
    type Item = Result<Message, LinkError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.link.poll_next_unpin(cx).map(|item| item.map(|item| item.map_err(|error| self.reason(error))))
    }
}

impl Sink<Message> for QuicLink {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.link.poll_ready_unpin(cx).map_err(|error| self.reason(error))
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), LinkError> {
        self.link.start_send_unpin(message).map_err(|error| self.reason(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.link.poll_flush_unpin(cx).map_err(|error| self.reason(error))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let closed = self.link.poll_close_unpin(cx);
        if closed.is_ready() {
            self.connection.close(VarInt::from_u32(0), b"");
        }
        closed.map_err(|error| self.reason(error))
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

impl fmt::Debug for QuicLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicLink").field("peer", &self.connection.remote_address()).finish_non_exhaustive()
    }
}
