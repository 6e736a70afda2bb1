//! The transport of KubeEdge: WebSocket over TLS.

mod link;

use std::{io, net::SocketAddr, time::Duration};

use async_trait::async_trait;
use http::{HeaderValue, Request, Uri};
use kubeedge_core::transport::{CloudEndpoint, Link, LinkError, Transport};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, handshake::client::generate_key, protocol::WebSocketConfig},
};

use self::link::WebSocketLink;
use crate::pki::Identity;

/// Dials a CloudHub over TLS, showing the certificate of the node.
///
/// Dials wait for the first identity as long as there is none, and use the newest one: a renewed certificate is shown
/// from the next dial on.
///
/// Upstream: `edge/pkg/edgehub/clients/wsclient`, `pkg/viaduct`.
#[derive(Clone, Debug)]
pub struct WebSocket {
    identity: watch::Receiver<Option<Identity>>,
    handshake_timeout: Duration,
    max_message: usize,
    dead_after: Duration,
}

/// Longest text of a refusal that is kept.
const REASON: usize = 512;

impl WebSocket {
    /// Dials as `identity`.
    pub fn new(identity: Identity) -> Self {
        Self::following(watch::channel(Some(identity)).1)
    }

    /// Dials as whoever `identity` shows at that moment.
    pub fn following(identity: watch::Receiver<Option<Identity>>) -> Self {
        Self {
            identity,
            handshake_timeout: Duration::from_secs(30),
            max_message: 16 * 1024 * 1024,
            dead_after: Duration::from_secs(30),
        }
    }

    /// How long a dial may take, from the TCP connection to the last handshake; default 30 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Longest message that is accepted, in bytes; a longer one ends the link. Default 16 MiB.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// How long sent bytes may stay unconfirmed by the peer's kernel until the connection counts as dead; default 30 s.
    /// The cloud never answers keepalives, so only this tells a silent cloud from one that is gone.
    pub fn dead_after(mut self, timeout: Duration) -> Self {
        self.dead_after = timeout;
        self
    }

    async fn connect(&self, endpoint: &CloudEndpoint, identity: &Identity) -> Result<WebSocketLink, LinkError> {
        let peer = &endpoint.server;
        let unreachable = |source: io::Error| LinkError::Unreachable { peer: peer.clone(), source: source.into() };
        let (name, port) = split(peer)?;
        let request = request(endpoint)?;
        let host = match &name {
            ServerName::IpAddress(ip) => std::net::IpAddr::from(*ip).to_string(),
            name => name.to_str().into_owned(),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        self.tune(&stream).map_err(unreachable)?;
        let secured = TlsConnector::from(identity.client_config()).connect(name, stream).await;
        let stream = secured.map_err(|error| link_error(peer, error))?;
        // One frame of the cloud may hold a whole message, so both have the same limit.
        let config = WebSocketConfig::default()
            .read_buffer_size(8 * 1024)
            .write_buffer_size(8 * 1024)
            .max_write_buffer_size(self.max_message.saturating_mul(2).max(64 * 1024))
            .max_message_size(Some(self.max_message))
            .max_frame_size(Some(self.max_message));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(WebSocketLink::new(socket, peer.clone())),
            Err(error) => Err(handshake_error(peer, error)),
        }
    }

    fn tune(&self, stream: &TcpStream) -> io::Result<()> {
        use rustix::net::sockopt;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, self.dead_after)?;
        sockopt::set_tcp_keepintvl(stream, (self.dead_after / 3).max(Duration::from_secs(1)))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        #[cfg(target_os = "linux")]
        sockopt::set_tcp_user_timeout(stream, u32::try_from(self.dead_after.as_millis()).unwrap_or(u32::MAX))?;
        Ok(())
    }
}

#[async_trait]
impl Transport for WebSocket {
    async fn dial(&self, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
        let mut identity = self.identity.clone();
        let identity = match identity.wait_for(Option::is_some).await {
            Ok(identity) => identity.clone(),
            Err(_) => None,
        };
        let identity = identity.ok_or_else(|| LinkError::Failed("the node has no certificate".into()))?;
        match timeout(self.handshake_timeout, self.connect(&endpoint, &identity)).await {
            Ok(link) => Ok(Box::new(link?)),
            Err(_) => Err(LinkError::TimedOut),
        }
    }
}

/// `host:port`, where the host may be an IPv6 address in brackets.
fn split(server: &str) -> Result<(ServerName<'static>, u16), LinkError> {
    let wrong = || LinkError::Failed(format!("server {server:?} is not host:port").into());
    if let Ok(address) = server.parse::<SocketAddr>() {
        return Ok((ServerName::IpAddress(address.ip().into()), address.port()));
    }
    let (host, port) = server.rsplit_once(':').ok_or_else(wrong)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
    Ok((name, port.parse().map_err(|_| wrong())?))
}

fn request(endpoint: &CloudEndpoint) -> Result<Request<()>, LinkError> {
    let CloudEndpoint { server, node, project, .. } = endpoint;
    let failed = |error: http::Error| LinkError::Failed(error.into());
    // An empty segment makes a Go cloud answer with a redirect.
    if project.is_empty() || project.contains(['/', '?', '#']) {
        return Err(LinkError::Failed(format!("project {project:?} is not a path segment").into()));
    }
    let uri = Uri::builder()
        .scheme("wss")
        .authority(server.as_str())
        .path_and_query(format!("/{project}/{node}/events"))
        .build()
        .map_err(failed)?;
    let project = HeaderValue::from_str(project).map_err(|error| LinkError::Failed(error.into()))?;
    Request::builder()
        .uri(uri)
        .header("Host", server)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Node_id", node.as_str())
        .header("Project_id", project)
        // Without it a Go cloud opens the connection and never reads from it.
        .header("Connectionuse", "msg")
        .body(())
        .map_err(failed)
}

/// What a failure of the socket means; TLS speaks through it, too.
fn link_error(peer: &str, error: io::Error) -> LinkError {
    let peer = peer.to_owned();
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) {
        LinkError::Untrusted { peer, source: error.into() }
    } else {
        LinkError::Unreachable { peer, source: error.into() }
    }
}

fn handshake_error(peer: &str, error: tungstenite::Error) -> LinkError {
    match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let text: String = String::from_utf8_lossy(body).trim().chars().take(REASON).collect();
            let reason = format!("{} {text}", response.status());
            LinkError::Refused { peer: peer.to_owned(), reason: reason.trim_end().to_owned() }
        }
        tungstenite::Error::Io(error) => link_error(peer, error),
        error => LinkError::Unreachable { peer: peer.to_owned(), source: error.into() },
    }
}
