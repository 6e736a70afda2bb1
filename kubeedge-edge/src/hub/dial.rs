//! What all dials have in common.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use kubeedge_core::transport::{CloudEndpoint, Extensions, Hello, LinkError};
use rustls::pki_types::ServerName;
use tokio::{sync::watch, time::timeout};

use crate::pki::Identity;

/// How a transport of this crate dials, whatever carries the link.
#[derive(Clone, Debug)]
pub struct DialSettings {
    pub(super) timeout: Duration,
    pub(super) max_message: usize,
    pub(super) dead_after: Duration,
    pub(super) extensions: Extensions,
}

impl Default for DialSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            max_message: 16 * 1024 * 1024,
            dead_after: Duration::from_secs(30),
            extensions: Extensions::all(),
        }
    }
}

impl DialSettings {
    /// The defaults; see each setting.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a dial may take, from the first packet to the last handshake; default 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Longest message that is accepted, in bytes; a longer one ends the link. Default 16 MiB.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// How long what was sent may stay unconfirmed by the peer's kernel (over QUIC: by the peer) until the connection counts
    /// as dead; default 30 s. The cloud never answers keepalives, so only this tells a silent cloud from one that is gone.
    /// A Unix socket needs no such time.
    pub fn dead_after(mut self, timeout: Duration) -> Self {
        self.dead_after = timeout;
        self
    }

    /// What is offered to the cloud; default all. A Go cloud takes nothing of it.
    pub fn extensions(mut self, extensions: Extensions) -> Self {
        self.extensions = extensions;
        self
    }

    /// What a link that carries frames of its own begins with.
    pub(super) fn hello(&self, endpoint: &CloudEndpoint) -> Hello {
        Hello::new(endpoint.node.clone()).project(endpoint.project.clone()).extensions(self.extensions)
    }

    /// Gives `dial` its time; `silent` is the error when it is over.
    pub(super) async fn in_time<T>(
        &self,
        dial: impl Future<Output = Result<T, LinkError>>,
        silent: impl FnOnce() -> LinkError,
    ) -> Result<T, LinkError> {
        timeout(self.timeout, dial).await.unwrap_or_else(|_| Err(silent()))
    }
}

/// `host:port`, where the host may be an IPv6 address in brackets.
pub(super) struct Server {
    pub(super) name: ServerName<'static>,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn parse(server: &str) -> Result<Self, LinkError> {
        let wrong = || LinkError::Failed(format!("server {server:?} is not host:port").into());
        if let Ok(address) = server.parse::<SocketAddr>() {
            return Ok(Self { name: ServerName::IpAddress(address.ip().into()), port: address.port() });
        }
        let (host, port) = server.rsplit_once(':').ok_or_else(wrong)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
        Ok(Self { name, port: port.parse().map_err(|_| wrong())? })
    }

    /// The host as the resolver takes it.
    pub(super) fn host(&self) -> String {
        match &self.name {
            ServerName::IpAddress(ip) => std::net::IpAddr::from(*ip).to_string(),
            name => name.to_str().into_owned(),
        }
    }
}

/// The newest identity; waits for the first one.
pub(super) async fn identity(identities: &watch::Receiver<Option<Identity>>) -> Result<Identity, LinkError> {
    let mut identities = identities.clone();
    let identity = match identities.wait_for(Option::is_some).await {
        Ok(identity) => identity.clone(),
        Err(_) => None,
    };
    identity.ok_or_else(|| LinkError::Failed("the node has no certificate".into()))
}

/// What a failure of the socket means; TLS speaks through it, too.
pub(super) fn link_error(peer: &str, error: io::Error) -> LinkError {
    let peer = peer.to_owned();
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) {
        LinkError::Untrusted { peer, source: error.into() }
    } else {
        LinkError::Unreachable { peer, source: error.into() }
    }
}
