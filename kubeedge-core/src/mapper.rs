//! The mapper seam: a driver that is open on one device, and the protocol that opens it.

mod protocol;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::protocol::{DriverMaker, Protocol, ProtocolRequest, ProtocolResponse, ProtocolService, driver_maker};
use crate::{
    device::{ConfigData, DeviceState},
    names::{PropertyName, UnixMillis},
    service::{BoxError, Subscription, layered_error, seam},
};

/// Where a driver finds a property on its device.
#[derive(Clone, Debug, PartialEq)]
pub struct Visitor {
    /// The property.
    pub property: PropertyName,
    /// Type of its values.
    pub value_type: ValueType,
    /// Settings in the words of the protocol: those of the model, overlaid key by key with those of the device.
    pub config: Arc<ConfigData>,
}

/// Type of a property, as a device model declares it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum ValueType {
    /// Whole number.
    Int,
    /// Number with a fraction.
    Float,
    /// Number with a fraction, double precision.
    Double,
    /// Text.
    #[default]
    String,
    /// True or false.
    Boolean,
    /// Bytes; base64 as text.
    Bytes,
    /// Stream of frames; not read or written as a value.
    Stream,
}

impl ValueType {
    /// The word of the twin wire for it.
    ///
    /// Upstream: `edge/pkg/devicetwin/dtcommon` (accepted twin types).
    pub fn twin_type(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Double => "double",
            Self::String | Self::Stream => "string",
            Self::Boolean => "boolean",
            Self::Bytes => "bytes",
        }
    }
}

/// A value on the side of the device.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Whole number.
    Int(i64),
    /// Number with a fraction.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A value read from a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The value.
    pub value: Value,
    /// When the device had it.
    pub at: UnixMillis,
}

/// News of a property from a device that speaks by itself.
#[derive(Debug)]
pub struct Reading {
    /// The property.
    pub property: PropertyName,
    /// Its value, or why what came is none.
    pub outcome: Result<Sample, DriverError>,
}

/// What a search for devices found: enough to write a Device object for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovered {
    /// A name that is unique on this line or network.
    pub name: String,
    /// Protocol settings that would open it.
    pub config: ConfigData,
}

/// A driver that is open on one device.
///
/// Calls come one at a time for devices that share a line: the caller sees to that.
///
/// Upstream: `staging/src/github.com/kubeedge/mapper-framework` (driver template).
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// Reads a property.
    async fn read(&self, visitor: Visitor) -> Result<Sample, DriverError>;

    /// Writes a property; resolved when the device has taken it.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have written.
    async fn write(&self, visitor: Visitor, value: Value) -> Result<(), DriverError>;

    /// Opens a stream with the news of all of `visitors`, for protocols where devices speak by themselves: the caller
    /// then does not poll until the stream ends. What is known already comes first.
    ///
    /// The stream is bounded; of each property the newest reading is kept for a slow caller. It ends when it cannot go
    /// on, which by itself says nothing about the device.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`] from drivers that are polled, the default.
    async fn subscribe(&self, visitors: Vec<Visitor>) -> Result<Subscription<Reading>, DriverError> {
        drop(visitors);
        Err(DriverError::Unsupported)
    }

    /// The state of the device as the driver sees it, without an exchange if it can. [`DeviceState::Unknown`], the
    /// default, leaves the judgement to the caller, who goes by reads and writes.
    async fn health(&self) -> Result<DeviceState, DriverError> {
        Ok(DeviceState::Unknown)
    }
}

/// A call on a driver, as layers see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DriverRequest {
    /// See [`Driver::read`].
    Read(Visitor),
    /// See [`Driver::write`].
    Write(Visitor, Value),
    /// See [`Driver::subscribe`].
    Subscribe(Vec<Visitor>),
    /// See [`Driver::health`].
    Health,
}

/// An answer of a driver, as layers see it.
#[derive(Debug)]
#[non_exhaustive]
pub enum DriverResponse {
    /// To a read.
    Sample(Sample),
    /// To a write.
    Written,
    /// To a subscription.
    Subscribed(Subscription<Reading>),
    /// To the question of health.
    Health(DeviceState),
}

/// Why a driver did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The settings are wrong: no retry helps until they are changed.
    #[error("setting {field} is {value}: {reason}")]
    Config {
        /// The setting at fault.
        field: String,
        /// What it says.
        value: String,
        /// What it should be.
        reason: String,
    },
    /// The device does not answer or the line is down: try again later.
    #[error("device is offline")]
    Offline(#[source] BoxError),
    /// The device answered that it will not do this.
    #[error("device refused: {0}")]
    Refused(String),
    /// The driver has no such call.
    #[error("driver does not do this")]
    Unsupported,
    /// Too much is waiting already.
    #[error("driver is busy")]
    Busy,
    /// No answer in time.
    #[error("no answer from the device in time")]
    TimedOut,
    /// The driver or a layer failed in its own way.
    #[error("driver failed")]
    Failed(#[source] BoxError),
}
layered_error!(DriverError);

impl DriverError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Offline(_) | Self::Busy | Self::TimedOut)
    }
}

seam! {
    /// [`Driver`] as a tower service.
    service DriverService of Driver;
    /// Typed calls on an open driver. Cheap to clone.
    handle DriverHandle;
    request DriverRequest; response DriverResponse; error DriverError;
    call(driver, request) {
        match request {
            DriverRequest::Read(visitor) => driver.read(visitor).await.map(DriverResponse::Sample),
            DriverRequest::Write(visitor, value) => {
                driver.write(visitor, value).await.map(|()| DriverResponse::Written)
            }
            DriverRequest::Subscribe(visitors) => driver.subscribe(visitors).await.map(DriverResponse::Subscribed),
            DriverRequest::Health => driver.health().await.map(DriverResponse::Health),
        }
    }
}

impl DriverHandle {
    /// Reads a property; see [`Driver::read`].
    pub async fn read(&self, visitor: Visitor) -> Result<Sample, DriverError> {
        match self.ask(DriverRequest::Read(visitor)).await? {
            DriverResponse::Sample(sample) => Ok(sample),
            _ => Err(DriverError::Failed("not an answer to read".into())),
        }
    }

    /// Writes a property; see [`Driver::write`].
    pub async fn write(&self, visitor: Visitor, value: Value) -> Result<(), DriverError> {
        match self.ask(DriverRequest::Write(visitor, value)).await? {
            DriverResponse::Written => Ok(()),
            _ => Err(DriverError::Failed("not an answer to write".into())),
        }
    }

    /// Opens a stream of news; see [`Driver::subscribe`].
    pub async fn subscribe(&self, visitors: Vec<Visitor>) -> Result<Subscription<Reading>, DriverError> {
        match self.ask(DriverRequest::Subscribe(visitors)).await? {
            DriverResponse::Subscribed(readings) => Ok(readings),
            _ => Err(DriverError::Failed("not an answer to subscribe".into())),
        }
    }

    /// The state as the driver sees it; see [`Driver::health`].
    pub async fn health(&self) -> Result<DeviceState, DriverError> {
        match self.ask(DriverRequest::Health).await? {
            DriverResponse::Health(state) => Ok(state),
            _ => Err(DriverError::Failed("not an answer to health".into())),
        }
    }
}
