//! The twin seam: desired and reported values of devices.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    device::DeviceState,
    names::{DeviceId, PropertyName, UnixMillis},
    service::{BoxError, Subscription, layered_error, seam},
};

/// A value of a twin property, as text, with the time of its writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinValue {
    /// The value as the wire has it: always text, whatever the type.
    pub value: String,
    /// When it was written.
    pub at: UnixMillis,
}

/// Counters of who changed a value how often; decides between cloud and edge.
///
/// Upstream: `edge/pkg/devicetwin/dttype` (`TwinVersion`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TwinVersion {
    /// Changes made in the cloud.
    pub cloud: i64,
    /// Changes made at the edge.
    pub edge: i64,
}

/// One property of a twin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinProperty {
    /// The value that somebody wants. Wire name: `expected`.
    #[doc(alias = "expected")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub desired: Option<TwinValue>,
    /// The value that the device has. Wire name: `actual`.
    #[doc(alias = "actual")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reported: Option<TwinValue>,
    /// Type of the values in the words of the wire, `string` unless told.
    pub value_type: String,
    /// Whether the property may be deleted over MQTT.
    pub optional: bool,
    /// Versions of `desired`.
    #[serde(default)]
    pub desired_version: TwinVersion,
    /// Versions of `reported`.
    #[serde(default)]
    pub reported_version: TwinVersion,
}

/// The twin of a device: what it should be and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// The device.
    pub device: DeviceId,
    /// Its state as last reported.
    pub state: Option<DeviceState>,
    /// Its properties.
    pub properties: BTreeMap<PropertyName, TwinProperty>,
}

/// A new value of one property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyPatch {
    /// The value.
    pub value: String,
    /// Its type in the words of the wire (`int`, `float`, `boolean`, `string`, ...), if the writer knows it.
    pub value_type: Option<String>,
}

/// Changes of several properties. `None` removes the value.
pub type TwinPatch = BTreeMap<PropertyName, Option<PropertyPatch>>;

/// Desired values that a device has not reached: property and desired value.
pub type Delta = BTreeMap<PropertyName, String>;

/// Which devices a watch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceSelector {
    /// Every device of the node.
    All,
    /// One device.
    One(DeviceId),
}

impl DeviceSelector {
    /// Whether `device` is selected.
    pub fn matches(&self, device: &DeviceId) -> bool {
        match self {
            Self::All => true,
            Self::One(only) => only == device,
        }
    }
}

/// An item of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TwinEvent {
    /// The twin after a change, and which properties changed.
    Changed {
        /// The twin as it is now.
        twin: Twin,
        /// The properties that the change touched.
        changed: Vec<PropertyName>,
    },
    /// The device was removed from the node.
    Removed(DeviceId),
    /// So many events were missed because the watcher was slow: get the twins again.
    Lagged(u64),
}

/// The watch that an implementation of [`Twins`] gives: what is sent to `events` and is about `select`, from now on.
///
/// A watcher that falls behind by more than the channel holds gets [`TwinEvent::Lagged`].
pub fn watch(events: &broadcast::Sender<TwinEvent>, select: DeviceSelector) -> Subscription<TwinEvent> {
    let items = stream::unfold((events.subscribe(), select), |(mut events, select)| async move {
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(count)) => TwinEvent::Lagged(count),
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            let selected = match &event {
                TwinEvent::Changed { twin, .. } => select.matches(&twin.device),
                TwinEvent::Removed(device) => select.matches(device),
                TwinEvent::Lagged(_) => true,
            };
            if selected {
                return Some((event, (events, select)));
            }
        }
    });
    Subscription::new(items, CancellationToken::new())
}

/// Twins of the devices of a node. A resolved write is durable.
///
/// Upstream: `edge/pkg/devicetwin`.
#[async_trait]
#[doc(alias = "devicetwin")]
pub trait Twins: Send + Sync + 'static {
    /// The twin of a device.
    async fn get(&self, device: DeviceId) -> Result<Twin, TwinError>;

    /// Sets desired values; tells what the device has still to reach.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have changed the twin, but never in part.
    async fn desire(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError>;

    /// Sets reported values; tells what the device has still to reach. Cancel safety as for `desire`.
    async fn report(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError>;

    /// Sets the state of the device. Cancel safety as for `desire`.
    async fn report_state(&self, device: DeviceId, state: DeviceState) -> Result<(), TwinError>;

    /// Follows changes from now on.
    async fn watch(&self, select: DeviceSelector) -> Result<Subscription<TwinEvent>, TwinError>;
}

/// A call on the twins, as layers see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TwinRequest {
    /// See [`Twins::get`].
    Get(DeviceId),
    /// See [`Twins::desire`].
    Desire(DeviceId, TwinPatch),
    /// See [`Twins::report`].
    Report(DeviceId, TwinPatch),
    /// See [`Twins::report_state`].
    ReportState(DeviceId, DeviceState),
    /// See [`Twins::watch`].
    Watch(DeviceSelector),
}

/// An answer of the twins, as layers see it.
#[derive(Debug)]
#[non_exhaustive]
pub enum TwinResponse {
    /// To a get.
    Twin(Twin),
    /// To a write of values.
    Applied(Delta),
    /// To a write of the state.
    StateSet,
    /// To a watch.
    Watching(Subscription<TwinEvent>),
}

/// Why the twins did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TwinError {
    /// No such device on this node.
    #[error("device {0} is not on this node")]
    UnknownDevice(DeviceId),
    /// The values are not acceptable; nothing was changed.
    #[error("property {property} is refused: {reason}")]
    Invalid {
        /// The property at fault.
        property: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Too much is waiting already.
    #[error("twins are busy")]
    Busy,
    /// No answer in time; a write may still have been done.
    #[error("no answer from the twins in time")]
    TimedOut,
    /// The store or a layer failed in its own way; nothing was changed.
    #[error("twins failed")]
    Failed(#[source] BoxError),
}
layered_error!(TwinError);

impl TwinError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::TimedOut | Self::Failed(_))
    }
}

seam! {
    /// [`Twins`] as a tower service.
    service TwinService of Twins;
    /// Typed calls on twins. Cheap to clone.
    handle TwinHandle;
    request TwinRequest; response TwinResponse; error TwinError;
    call(twins, request) {
        match request {
            TwinRequest::Get(device) => twins.get(device).await.map(TwinResponse::Twin),
            TwinRequest::Desire(device, patch) => twins.desire(device, patch).await.map(TwinResponse::Applied),
            TwinRequest::Report(device, patch) => twins.report(device, patch).await.map(TwinResponse::Applied),
            TwinRequest::ReportState(device, state) => {
                twins.report_state(device, state).await.map(|()| TwinResponse::StateSet)
            }
            TwinRequest::Watch(select) => twins.watch(select).await.map(TwinResponse::Watching),
        }
    }
}

impl TwinHandle {
    /// The twin of a device; see [`Twins::get`].
    pub async fn get(&self, device: DeviceId) -> Result<Twin, TwinError> {
        match self.ask(TwinRequest::Get(device)).await? {
            TwinResponse::Twin(twin) => Ok(twin),
            _ => Err(TwinError::Failed("not an answer to get".into())),
        }
    }

    /// Sets desired values; see [`Twins::desire`].
    pub async fn desire(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError> {
        match self.ask(TwinRequest::Desire(device, patch)).await? {
            TwinResponse::Applied(delta) => Ok(delta),
            _ => Err(TwinError::Failed("not an answer to desire".into())),
        }
    }

    /// Sets reported values; see [`Twins::report`].
    pub async fn report(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError> {
        match self.ask(TwinRequest::Report(device, patch)).await? {
            TwinResponse::Applied(delta) => Ok(delta),
            _ => Err(TwinError::Failed("not an answer to report".into())),
        }
    }

    /// Sets the state of the device; see [`Twins::report_state`].
    pub async fn report_state(&self, device: DeviceId, state: DeviceState) -> Result<(), TwinError> {
        match self.ask(TwinRequest::ReportState(device, state)).await? {
            TwinResponse::StateSet => Ok(()),
            _ => Err(TwinError::Failed("not an answer to report_state".into())),
        }
    }

    /// Follows changes; see [`Twins::watch`].
    pub async fn watch(&self, select: DeviceSelector) -> Result<Subscription<TwinEvent>, TwinError> {
        match self.ask(TwinRequest::Watch(select)).await? {
            TwinResponse::Watching(subscription) => Ok(subscription),
            _ => Err(TwinError::Failed("not an answer to watch".into())),
        }
    }
}
