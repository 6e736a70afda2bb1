//! A Unix socket to a cloud on the same machine.

use std::path::PathBuf;

use async_trait::async_trait;
use kubeedge_core::transport::{CloudEndpoint, Link, LinkError, Transport, stream};
use tokio::net::UnixStream;

use super::dial::DialSettings;

/// Dials a cloud of ours through a Unix socket; see `HubDoor::unix` in `kubeedge-cloud`.
///
/// Whoever may open the socket may be any node: there is no certificate. The server of the endpoint is not used.
#[derive(Clone, Debug)]
pub struct Unix {
    path: PathBuf,
    settings: DialSettings,
}

impl Unix {
    /// Dials the socket at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), settings: DialSettings::default() }
    }

    /// How it dials.
    pub fn settings(mut self, settings: DialSettings) -> Self {
        self.settings = settings;
        self
    }
}

#[async_trait]
impl Transport for Unix {
    async fn dial(&self, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
        let peer = self.path.display().to_string();
        let dial = async {
            let socket = UnixStream::connect(&self.path)
                .await
                .map_err(|source| LinkError::Unreachable { peer: peer.clone(), source: source.into() })?;
            stream::connect(socket, &peer, &self.settings.hello(&endpoint), self.settings.max_message).await
        };
        Ok(Box::new(self.settings.in_time(dial, || LinkError::TimedOut).await?))
    }
}
