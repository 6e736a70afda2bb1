use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    CloudCoreError,
    stage::{Alarm, Stage},
};
use crate::{
    commands::DeviceCommands,
    hub::{HubDoor, HubHandle},
    ownership::InstanceName,
    pki::{JoinToken, Pki},
};

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Where a cloud listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) websocket: Option<SocketAddr>,
    pub(super) quic: Option<SocketAddr>,
    pub(super) https: Option<SocketAddr>,
    pub(super) admission: Option<SocketAddr>,
    pub(super) commands: Option<SocketAddr>,
}

/// A running cloud. Dropping it ends everything at once; [`shutdown`](Self::shutdown) does so in order.
#[must_use = "a cloud that is dropped ends"]
pub struct CloudCoreHandle {
    pub(super) addresses: Addresses,
    pub(super) door: HubDoor,
    pub(super) api_url: Option<String>,
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) client: Client,
    pub(super) hub: HubHandle,
    pub(super) device_commands: DeviceCommands,
    pub(super) pki: Arc<Pki>,
    pub(super) instance: Option<InstanceName>,
    pub(super) alarm: Alarm,
    pub(super) abort: CancellationToken,
    /// In the order in which they end.
    pub(super) stages: Vec<Stage>,
    pub(super) abort_on_drop: DropGuard,
}

impl CloudCoreHandle {
    /// Where nodes connect over a WebSocket; port 0 if nowhere.
    pub fn websocket_addr(&self) -> SocketAddr {
        self.addresses.websocket.unwrap_or(NOWHERE)
    }

    /// Where nodes connect over QUIC, if anywhere.
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.addresses.quic
    }

    /// Where nodes get their certificates; port 0 if nowhere.
    pub fn https_addr(&self) -> SocketAddr {
        self.addresses.https.unwrap_or(NOWHERE)
    }

    /// Where the webhook that judges devices is served, if anywhere.
    pub fn admission_addr(&self) -> Option<SocketAddr> {
        self.addresses.admission
    }

    /// Where commands to devices are taken over HTTP, if anywhere.
    pub fn commands_addr(&self) -> Option<SocketAddr> {
        self.addresses.commands
    }

    /// Sends commands to devices.
    pub fn device_commands(&self) -> &DeviceCommands {
        &self.device_commands
    }

    /// Lets in nodes that come over links of the embedder's.
    pub fn door(&self) -> &HubDoor {
        &self.door
    }

    /// URL of the embedded Kubernetes API, if there is one.
    pub fn api_url(&self) -> Option<String> {
        self.api_url.clone()
    }

    /// The administrator's kubeconfig of the embedded API, if it was written.
    pub fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// The client of the Kubernetes API that the controllers use.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Sends to nodes, and tells which are connected.
    pub fn hub(&self) -> &HubHandle {
        &self.hub
    }

    /// The name under which this cloud claims the sessions of nodes; none if it claims none.
    pub fn instance(&self) -> Option<&InstanceName> {
        self.instance.as_ref()
    }

    /// The join token that was written last.
    pub fn join_token(&self) -> JoinToken {
        self.pki.join_token()
    }

    /// Waits for a part to end by itself, which none should.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn stopped(&self) -> CloudCoreError {
        CloudCoreError::Stopped { part: self.alarm.raised().await }
    }

    /// Ends the cloud in stages: no new connections and a farewell to all nodes; the controllers; the ledger, with what it
    /// has still to write; the Lease of this instance; the embedded API. What is not done after `grace` is cut off.
    pub async fn shutdown(self, grace: Duration) {
        let deadline = Instant::now() + grace;
        for stage in &self.stages {
            if !stage.end(deadline.saturating_duration_since(Instant::now())).await {
                tracing::warn!("cloud does not end in time and is cut off");
                break;
            }
        }
        self.abort.cancel();
        for stage in &self.stages {
            // Dropped at their next await: this is for the order, not for them to do anything.
            stage.end(Duration::from_millis(100)).await;
        }
        drop(self.abort_on_drop);
    }
}

impl fmt::Debug for CloudCoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudCoreHandle")
            .field("addresses", &self.addresses)
            .field("api_url", &self.api_url)
            .finish_non_exhaustive()
    }
}
