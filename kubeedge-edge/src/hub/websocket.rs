//! The transport of KubeEdge: WebSocket over TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Request, Uri};
use kubeedge_core::transport::{
    CloudEndpoint, Extensions, Link, LinkError, Transport,
    websocket::{self, WebSocketFrames, WebSocketLink},
};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, handshake::client::generate_key, protocol::WebSocketConfig},
};

use super::dial::{self, DialSettings, Server, link_error};
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
    settings: DialSettings,
    source: Option<IpAddr>,
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
        Self { identity, settings: DialSettings::default(), source: None }
    }

    /// How it dials.
    pub fn settings(mut self, settings: DialSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Address of this host from which connections are made, for gateways with several uplinks; default is for the system
    /// to choose. Clouds of the other address family cannot be reached then.
    pub fn source(mut self, address: IpAddr) -> Self {
        self.source = Some(address);
        self
    }

    async fn connect(&self, endpoint: &CloudEndpoint, identity: &Identity) -> Result<ClientLink, LinkError> {
        let peer = &endpoint.server;
        let unreachable = |source: io::Error| LinkError::Unreachable { peer: peer.clone(), source: source.into() };
        let server = Server::parse(peer)?;
        let request = request(endpoint, self.settings.extensions)?;
        let host = server.host();
        let stream = match self.source {
            None => TcpStream::connect((host.as_str(), server.port)).await,
            Some(source) => connect_from(source, &host, server.port).await,
        };
        let stream = stream.map_err(unreachable)?;
        self.tune(&stream).map_err(unreachable)?;
        let secured = TlsConnector::from(identity.client_config()).connect(server.name, stream).await;
        let stream = secured.map_err(|error| link_error(peer, error))?;
        // One frame of the cloud may hold a whole message, so both have the same limit.
        let config = WebSocketConfig::default()
            .read_buffer_size(8 * 1024)
            .write_buffer_size(8 * 1024)
            .max_write_buffer_size(self.settings.max_message.saturating_mul(2).max(64 * 1024))
            .max_message_size(Some(self.settings.max_message))
            .max_frame_size(Some(self.settings.max_message));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, response)) => {
                let extensions = self.settings.extensions.common(chosen(response.headers()));
                let frames = WebSocketFrames::new(socket, peer.as_str()).broken_is(link_error);
                Ok(websocket::link(frames, extensions, self.settings.max_message))
            }
            Err(error) => Err(handshake_error(peer, error)),
        }
    }

    fn tune(&self, stream: &TcpStream) -> io::Result<()> {
        use rustix::net::sockopt;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, self.settings.dead_after)?;
        sockopt::set_tcp_keepintvl(stream, (self.settings.dead_after / 3).max(Duration::from_secs(1)))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        #[cfg(target_os = "linux")]
        sockopt::set_tcp_user_timeout(stream, u32::try_from(self.settings.dead_after.as_millis()).unwrap_or(u32::MAX))?;
        Ok(())
    }
}

type ClientLink = WebSocketLink<TlsStream<TcpStream>>;

#[async_trait]
impl Transport for WebSocket {
    async fn dial(&self, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
        let identity = dial::identity(&self.identity).await?;
        let dial = Box::pin(self.connect(&endpoint, &identity));
        Ok(Box::new(self.settings.in_time(dial, || LinkError::TimedOut).await?))
    }
}

/// As `TcpStream::connect`, from `source`.
async fn connect_from(source: IpAddr, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no address of {host} fits {source}"));
    for address in lookup_host((host, port)).await?.filter(|address| address.is_ipv4() == source.is_ipv4()) {
        let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What the cloud has chosen of our offer. A Go cloud does not know of it.
fn chosen(headers: &HeaderMap) -> Extensions {
    let value = headers.get(Extensions::HEADER).and_then(|value| value.to_str().ok());
    value.map_or(Extensions::none(), Extensions::parse)
}

fn request(endpoint: &CloudEndpoint, offer: Extensions) -> Result<Request<()>, LinkError> {
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
    let mut request = Request::builder()
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
        .map_err(failed)?;
    if !offer.is_none()
        && let Ok(offer) = HeaderValue::try_from(offer.to_string())
    {
        request.headers_mut().insert(Extensions::HEADER, offer);
    }
    Ok(request)
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
