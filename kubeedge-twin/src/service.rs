//! The twins of a node: one commit per change, and telling everybody after it.

mod apply;
mod cells;
mod driver;
mod outgoing;
mod serve;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    bus::BusHandle,
    device::{DeviceInstance, DeviceState},
    message::Message,
    meta::{Collection, MetaError, MetaHandle, Selector},
    names::{DeviceId, NodeName, SharedClock},
    resource::Resource,
    service::{Subscription, WatchSlots},
    twin::{self, Delta, DeviceSelector, Twin, TwinError, TwinEvent, TwinHandle, TwinPatch, Twins},
};
use tokio::sync::broadcast;

pub use self::driver::TwinsDriver;
use self::{apply::Origin, cells::Cells, outgoing::Outgoing};
use crate::{
    membership::{self, InvalidMembership, MembershipError},
    persist,
    reduce::Change,
    state::SpecProperty,
};

/// What the twins of a node are made of.
#[derive(Clone)]
#[non_exhaustive]
pub struct TwinsConfig {
    /// The node.
    pub node: NodeName,
    /// Where twins and messages to the cloud are kept.
    pub store: MetaHandle,
    /// Where applications are.
    pub bus: BusHandle,
    /// Stamps values and messages.
    pub clock: SharedClock,
    /// Requests from the bus that may wait while others are served; default 64. When full, the bus holds publishers.
    pub requests: usize,
    /// Requests that are served, and publications that are under way, at the same time, each of another device;
    /// default 16.
    pub width: usize,
    /// Publications that may wait for the bus; default 1024, and never more than 4 MiB. When full, the oldest is
    /// dropped.
    pub publications: usize,
    /// Time for one publication; default 10 s. After it the publication is given up.
    pub publish_timeout: Duration,
    /// Events that a watcher may fall behind before it gets [`TwinEvent::Lagged`]; default 64.
    pub events: usize,
    /// Open watches; default 64. One more gets [`TwinError::Busy`].
    pub watches: usize,
}

impl TwinsConfig {
    /// The twins of `node` with default limits.
    pub fn new(node: NodeName, store: MetaHandle, bus: BusHandle, clock: SharedClock) -> Self {
        let publish_timeout = Duration::from_secs(10);
        let (requests, width, publications, events, watches) = (64, 16, 1024, 64, 64);
        Self { node, store, bus, clock, requests, width, publications, publish_timeout, events, watches }
    }
}

impl fmt::Debug for TwinsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TwinsConfig").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Devices that a membership message brought or took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipChange {
    /// Devices that are new on the node.
    pub added: Vec<DeviceId>,
    /// Devices that are no longer on the node.
    pub removed: Vec<DeviceId>,
}

/// The twins of the devices of a node. Clones share them.
///
/// A write resolves when the change and its message to the cloud are on disk; a write that fails has changed nothing.
/// A write whose future was dropped, or whose commit timed out, is looked up in the store before the next call on that
/// device.
///
/// Messages to the cloud lie in the [outbox](kubeedge_core::outbox) under `twin/<namespace>/<name>` (the whole twin, so
/// a newer one replaces an older one) and `state/<namespace>/<name>`.
///
/// Upstream: `edge/pkg/devicetwin`.
#[derive(Clone)]
pub struct DeviceTwins {
    shared: Arc<Shared>,
}

struct Shared {
    node: NodeName,
    store: MetaHandle,
    clock: SharedClock,
    cells: Cells,
    outgoing: Outgoing,
    events: broadcast::Sender<TwinEvent>,
    watches: WatchSlots,
}

impl DeviceTwins {
    /// Loads all twins from the store. Nothing is served on the bus until the driver runs.
    ///
    /// A damaged record is left out with a warning; it is overwritten once the device is set again.
    ///
    /// # Errors
    /// [`MetaError`] if the store cannot be read.
    pub async fn open(config: TwinsConfig) -> Result<(Self, TwinsDriver), MetaError> {
        let cells = Cells::default();
        for record in config.store.list(Selector::all(Collection::twins())).await? {
            match (persist::device_id(&record), persist::load(&record)) {
                (Some(id), Ok(device)) => cells.load(id, device),
                (_, loaded) => tracing::warn!(key = %record.key, error = ?loaded.err(), "record of a twin is damaged"),
            }
        }
        let shared = Shared {
            node: config.node,
            store: config.store,
            clock: config.clock,
            cells,
            outgoing: Outgoing::new(config.publications),
            events: broadcast::channel(config.events.clamp(1, 1 << 16)).0,
            watches: WatchSlots::new(config.watches),
        };
        let twins = Self { shared: Arc::new(shared) };
        let driver = TwinsDriver::new(twins.clone(), config.bus, config.requests, config.width, config.publish_timeout);
        Ok((twins, driver))
    }

    /// A typed handle without layers.
    pub fn handle(&self) -> TwinHandle {
        TwinHandle::of(self.clone())
    }

    /// The devices of the node.
    pub async fn devices(&self) -> Result<Vec<DeviceId>, TwinError> {
        let mut present = Vec::new();
        for id in self.shared.cells.ids() {
            if self.shared.lock(&id).await?.is_some() {
                present.push(id);
            }
        }
        Ok(present)
    }

    /// Takes over a Device object: the device is on the node, its properties have these types, and desired values that
    /// the spec did not say last time become the desired values ([`Change::Spec`]). Calling it again with the same
    /// object changes nothing.
    ///
    /// A property whose name or desired value is not acceptable is left out with a warning; the others do not suffer.
    ///
    /// # Errors
    /// As for the writes of [`Twins`].
    pub async fn set_device(&self, device: Arc<DeviceInstance>, description: &str) -> Result<(), TwinError> {
        let spec = |property: &kubeedge_core::device::PropertyInstance| {
            let value_type = property.visitor.value_type.twin_type().to_owned();
            (property.visitor.property.clone(), SpecProperty { value_type, desired: property.desired.clone() })
        };
        let spec: BTreeMap<_, _> = device.properties.iter().map(spec).collect();
        self.shared.admit(&device.id, Some(description), Some(spec)).await.map(drop)
    }

    /// Forgets a device with its twin, and what the cloud has not yet heard of it. Fine if it is not there.
    ///
    /// # Errors
    /// As for the writes of [`Twins`].
    pub async fn remove_device(&self, device: DeviceId) -> Result<(), TwinError> {
        self.shared.dismiss(device, true).await.map(drop)
    }

    /// Carries out a membership message of the cloud: a change (`membership`) or the whole list (`membership/detail`).
    ///
    /// New devices are announced on `membership/updated`. A device whose Device object is on the node stays until
    /// [`DeviceTwins::remove_device`]: membership and objects travel in separate queues, so a removal may be older than
    /// the object. Twins that the list carries are applied as [`Change::CloudSync`].
    ///
    /// # Errors
    /// [`MembershipError`] tells a message that is wrong from one that may be tried again.
    pub async fn handle_membership(&self, message: &Message) -> Result<MembershipChange, MembershipError> {
        let (added, removed) = match &message.resource {
            Resource::Membership => {
                let [added, removed] = membership::members(&message.content, ["added_devices", "removed_devices"])?;
                (added, removed.into_iter().map(|member| member.id).collect())
            }
            Resource::MembershipDetail => {
                let [devices] = membership::members(&message.content, ["devices"])?;
                let mut others = self.devices().await?;
                others.retain(|id| devices.iter().all(|member| member.id != *id));
                (devices, others)
            }
            other => return Err(InvalidMembership::Resource(other.to_string()).into()),
        };
        let mut change = MembershipChange::default();
        for member in added {
            if self.shared.admit(&member.id, member.description.as_deref(), None).await? {
                change.added.push(member.id.clone());
            }
            if !member.twin.is_empty() {
                self.shared.apply(&member.id, Change::CloudSync(member.twin), Origin::Cloud(None)).await?;
            }
        }
        for id in removed {
            if self.shared.dismiss(id.clone(), false).await? {
                change.removed.push(id);
            }
        }
        Ok(change)
    }
}

#[async_trait]
impl Twins for DeviceTwins {
    async fn get(&self, device: DeviceId) -> Result<Twin, TwinError> {
        match self.shared.lock(&device).await? {
            Some(cell) => Ok(cell.device.twin.to_twin(device)),
            None => Err(TwinError::UnknownDevice(device)),
        }
    }

    async fn desire(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError> {
        self.shared.apply(&device, Change::Desire(patch), Origin::Node).await
    }

    async fn report(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError> {
        self.shared.apply(&device, Change::Report(patch), Origin::Node).await
    }

    async fn report_state(&self, device: DeviceId, state: DeviceState) -> Result<(), TwinError> {
        self.shared.apply(&device, Change::ReportState(state), Origin::Node).await.map(drop)
    }

    async fn watch(&self, select: DeviceSelector) -> Result<Subscription<TwinEvent>, TwinError> {
        let slot = self.shared.watches.take().ok_or(TwinError::Busy)?;
        Ok(twin::watch(&self.shared.events, select).holding(slot))
    }
}

impl fmt::Debug for DeviceTwins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceTwins").field("node", &self.shared.node).finish_non_exhaustive()
    }
}
