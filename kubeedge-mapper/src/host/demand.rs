//! Reads and writes on demand.

use std::{fmt, sync::Arc};

use kubeedge_core::{
    mapper::{DriverError, ValueType},
    names::{DeviceId, PropertyName, UnixMillis},
    service::Causes,
};
use tokio::sync::oneshot;

use crate::convert::ConvertError;

/// A property that was read on demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyReading {
    /// Its value as text.
    pub text: String,
    /// Its type.
    pub value_type: ValueType,
    /// When the device had it.
    pub at: UnixMillis,
}

/// Why something was not read or written on demand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemandError {
    /// There is no such device here.
    #[error("device {0} is not on this mapper")]
    UnknownDevice(DeviceId),
    /// The device has no such property.
    #[error("there is no property {0}")]
    UnknownProperty(PropertyName),
    /// The property can only be read.
    #[error("property {0} is read only")]
    ReadOnly(PropertyName),
    /// The value is not one that the property can have.
    #[error("value is not acceptable")]
    Value(#[from] ConvertError),
    /// The driver or the device did not do it.
    #[error("device did not do it")]
    Driver(#[from] DriverError),
    /// Too many wait for this device already.
    #[error("too many are waiting for this device")]
    Busy,
    /// No answer in time. A write that was under way may or may not have been done; one that waited was not.
    #[error("no answer in time")]
    TimedOut,
    /// The mapper does not run.
    #[error("mapper does not run")]
    Stopped,
}

/// What was done on demand, for those who keep a record of it. Reads are not recorded.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Audit<'a> {
    /// On whose demand, as the caller of [`MapperHost::write`](super::MapperHost::write) says.
    pub origin: &'a str,
    /// The device.
    pub device: &'a DeviceId,
    /// The property.
    pub property: &'a PropertyName,
    /// The value that was to be written.
    pub value: &'a str,
    /// Whether it was, or why not.
    pub outcome: Result<(), &'a DemandError>,
}

/// Is told of each write on demand, by the task of the device: it must not block.
#[derive(Clone)]
pub struct AuditHook(Arc<dyn Fn(&Audit<'_>) + Send + Sync>);

impl AuditHook {
    /// Calls `hook`.
    pub fn new(hook: impl Fn(&Audit<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }
}

impl fmt::Debug for AuditHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditHook").finish_non_exhaustive()
    }
}

/// A read or write that somebody waits for.
#[derive(Debug)]
pub(super) struct Demand {
    pub(super) property: PropertyName,
    pub(super) want: Want,
    pub(super) origin: String,
    pub(super) reply: oneshot::Sender<Result<PropertyReading, DemandError>>,
}

#[derive(Debug)]
pub(super) enum Want {
    Read,
    Write(String),
}

impl Demand {
    pub(super) fn answer(
        self,
        device: &DeviceId,
        audit: Option<&AuditHook>,
        outcome: Result<PropertyReading, DemandError>,
    ) {
        if let Want::Write(value) = &self.want {
            let (origin, property) = (&self.origin, &self.property);
            match &outcome {
                Ok(_) => tracing::info!(%device, %property, value, origin, "written on demand"),
                Err(error) => {
                    tracing::warn!(%device, %property, value, origin, error = %Causes(error), "not written on demand");
                }
            }
            if let Some(AuditHook(hook)) = audit {
                let outcome = outcome.as_ref().map(drop);
                hook(&Audit { origin, device, property, value, outcome });
            }
        }
        // Whoever asked may have gone since.
        let _ = self.reply.send(outcome);
    }
}
