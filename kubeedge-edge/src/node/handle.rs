use std::{fmt, time::Duration};

use kubeedge_core::{
    bus::BusHandle,
    meta::MetaHandle,
    names::NodeName,
    twin::TwinHandle,
    uplink::{LinkState, UplinkHandle},
};
use kubeedge_twin::DeviceTwins;
use tokio::sync::watch;

use super::parts::{Parts, Stopped, Unfinished};
use crate::{edged::Edged, hub::OutboxDepth};

/// A running edge node. Dropping it aborts all of its tasks; see [`EdgeNodeHandle::shutdown`].
#[must_use = "a dropped node is aborted"]
pub struct EdgeNodeHandle {
    pub(super) name: NodeName,
    pub(super) store: MetaHandle,
    pub(super) bus: Option<BusHandle>,
    pub(super) uplink: UplinkHandle,
    pub(super) device_twins: DeviceTwins,
    pub(super) twins: TwinHandle,
    pub(super) outbox: OutboxDepth,
    pub(super) pods: Option<Edged>,
    pub(super) ended: watch::Receiver<Option<Stopped>>,
    pub(super) parts: Parts,
}

impl EdgeNodeHandle {
    /// Name of the node.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Calls to the cloud over whatever link there is.
    pub fn uplink(&self) -> &UplinkHandle {
        &self.uplink
    }

    /// The twins of the devices.
    pub fn twins(&self) -> &TwinHandle {
        &self.twins
    }

    /// The twins with what is known of membership. An embedder with devices of its own puts their Devices and
    /// DeviceModels into the store: twins without a Device there are forgotten at the next start.
    pub fn device_twins(&self) -> &DeviceTwins {
        &self.device_twins
    }

    /// The metadata store, with the limits of the outbox around it: what is left for the cloud goes in here.
    pub fn store(&self) -> &MetaHandle {
        &self.store
    }

    /// The event bus, if the node has one.
    pub fn bus(&self) -> Option<&BusHandle> {
        self.bus.as_ref()
    }

    /// The pods, if the node has a runtime for them.
    pub fn pods(&self) -> Option<&Edged> {
        self.pods.as_ref()
    }

    /// How much waits for the cloud.
    pub fn outbox(&self) -> OutboxDepth {
        self.outbox.clone()
    }

    /// The state of the link, and its changes.
    pub fn link_state(&self) -> watch::Receiver<LinkState> {
        self.uplink.state()
    }

    /// Resolves when a part of the node has ended, which none does by itself while the store is open: the node should
    /// then be shut down and built anew.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn stopped(&self) -> Stopped {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(stopped)) => stopped.clone(),
            _ => Stopped { part: "node" },
        }
    }

    /// Stops the node in stages: nothing more is taken from the cloud and what is under way is stored and answered, then
    /// the link is closed; then devices, drivers and pods; then the twins publish what is left. What the cloud has not
    /// yet heard stays in the outbox. Containers go on or are stopped as the settings of the pods say. The store is left
    /// open for the caller to close.
    ///
    /// # Errors
    /// [`Unfinished`] names the parts that were aborted because they took longer than `grace`.
    ///
    /// # Cancel safety
    /// If the future is dropped, what still runs is aborted.
    pub async fn shutdown(self, grace: Duration) -> Result<(), Unfinished> {
        self.parts.stop(grace).await
    }
}

impl fmt::Debug for EdgeNodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeNodeHandle").field("name", &self.name).field("uplink", &self.uplink).finish_non_exhaustive()
    }
}
