//! What all dials have in common.

use std::{io, net::SocketAddr};

use kubeedge_core::transport::LinkError;
use rustls::pki_types::ServerName;
use tokio::sync::watch;

use crate::pki::Identity;

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
