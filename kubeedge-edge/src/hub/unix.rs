//! A Unix socket to a cloud on the same machine.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use kubeedge_core::transport::{CloudEndpoint, Extensions, Hello, Link, LinkError, Transport, stream};
use tokio::{net::UnixStream, time::timeout};

/// Dials a cloud of ours through a Unix socket; see `HubDoor::unix` in `kubeedge-cloud`.
///
/// Whoever may open the socket may be any node: there is no certificate. The server of the endpoint is not used.
#[derive(Clone, Debug)]
pub struct Unix {
    path: PathBuf,
    handshake_timeout: Duration,
    max_message: usize,
    extensions: Extensions,
}

impl Unix {
    /// Dials the socket at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            handshake_timeout: Duration::from_secs(30),
            max_message: 16 * 1024 * 1024,
            extensions: Extensions::all(),
        }
    }

    /// How long a dial may take; default 30 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Longest message that is accepted, in bytes; a longer one ends the link. Default 16 MiB.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// What is offered to the cloud; default all.
    pub fn extensions(mut self, extensions: Extensions) -> Self {
        self.extensions = extensions;
        self
    }
}

#[async_trait]
impl Transport for Unix {
    async fn dial(&self, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
        let peer = self.path.display().to_string();
        let hello = Hello::new(endpoint.node).project(endpoint.project).extensions(self.extensions);
        let dial = async {
            let socket = UnixStream::connect(&self.path)
                .await
                .map_err(|source| LinkError::Unreachable { peer: peer.clone(), source: source.into() })?;
            stream::connect(socket, &peer, &hello, self.max_message).await
        };
        match timeout(self.handshake_timeout, dial).await {
            Ok(link) => Ok(Box::new(link?)),
            Err(_) => Err(LinkError::TimedOut),
        }
    }
}
