//! The mapper host: opens drivers on devices, polls them, reports to the twins and carries out what is desired.
//!
//! Per device there is one task, and within it one exchange at a time; devices that share a line take turns as their
//! driver sees to. Every call on a driver has a deadline, so one that hangs stalls its own device and line only.
//!
//! # What is reported
//! Every property is read at its `collectCycle`. A property with `reportToCloud` is reported when its value changes, and
//! at least once per `reportCycle`; all that is read in one beat goes into one report. While the twins do not take
//! reports the latest value of each property waits. Beats that were missed are skipped.
//!
//! A driver of a protocol where devices speak by themselves is listened to instead of polled, until its stream ends.
//!
//! # State
//! A device is `online` once it answers (a refusal is an answer), and `offline` after
//! [`failures_until_offline`](MapperConfig::failures_until_offline) failures in a row; from then on it is asked less
//! and less often. A device that cannot be opened, because its settings are wrong or nobody speaks its protocol, is
//! `offline` too. Drivers may know better: what [`Driver::health`](kubeedge_core::mapper::Driver::health) says is asked
//! after each beat, and counts. Transitions are always told to the twins; a device with `stateReport.reportToCloud` repeats its state
//! at its cycle.
//!
//! # Desired values
//! The desired value of a `ReadWrite` property is written if the device does not have it, read back, and reported: when
//! it is new, when the device is opened, and when the device comes back from being offline. A failed write is repeated
//! with growing pauses until it succeeds or something else is desired. What somebody sets on the device itself in
//! between stays, and is reported. A desired value that the model does not allow (type, minimum, maximum) is logged once
//! and not written: the device goes on with the value that it has, and the twin keeps showing the difference.
//!
//! Upstream: `staging/src/github.com/kubeedge/mapper-framework` (loops). There every value is written at each start and
//! reported at each cycle, and nothing is repeated that failed.

mod config;
mod demand;
mod device;
mod directive;
mod health;
mod meter;
mod property;
mod run;
mod watch;
mod wish;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kubeedge_core::{
    device::{ConfigData, DeviceInstance},
    mapper::{Discovered, DriverError, DriverMaker},
    names::{DeviceId, PropertyName},
};
use tokio::{
    sync::{mpsc, oneshot, watch as newest},
    time::timeout,
};

use self::demand::{Demand, Want};
#[cfg(feature = "metrics")]
pub(crate) use self::meter::Operation;
pub use self::{
    config::MapperConfig,
    demand::{Audit, AuditHook, DemandError, PropertyReading},
    run::MapperHostDriver,
};

/// The devices that there should be. Only the newest state counts, so nothing queues up.
type Wanted = BTreeMap<DeviceId, Arc<DeviceInstance>>;

/// Tells the mapper host which devices there are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MapperHost {
    wanted: Arc<newest::Sender<Wanted>>,
    drivers: Arc<BTreeMap<String, DriverMaker>>,
    demands: mpsc::Sender<(DeviceId, Demand)>,
    deadline: Duration,
}

/// No driver speaks the protocol of a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("device {device} has protocol {protocol:?}, but this mapper has only {}", known.join(", "))]
pub struct UnknownProtocol {
    /// The device.
    pub device: DeviceId,
    /// The protocol that it asks for.
    pub protocol: String,
    /// The protocols that there are drivers for.
    pub known: Vec<String>,
}

impl MapperHost {
    /// Demands on their way to their devices at most.
    const DEMANDS: usize = 256;

    /// A host with a driver per protocol name, spelled as in `spec.protocol.protocolName`, and the part that runs it.
    pub fn new(
        config: MapperConfig,
        drivers: impl IntoIterator<Item = (String, DriverMaker)>,
    ) -> (Self, MapperHostDriver) {
        let drivers: BTreeMap<_, _> = drivers.into_iter().collect();
        let (wanted, devices) = newest::channel(Wanted::new());
        let (demands, demanded) = mpsc::channel(Self::DEMANDS);
        let host = Self {
            wanted: Arc::new(wanted),
            drivers: Arc::new(drivers.clone()),
            demands,
            deadline: config.call_timeout,
        };
        (host, MapperHostDriver::new(config, drivers, devices, demanded))
    }

    /// Adds a device, or changes one. The same again does nothing; a change of settings opens the device anew, other
    /// changes are taken over as they are. What is known of the properties that stay is kept.
    ///
    /// # Errors
    /// [`UnknownProtocol`]; the device is known all the same, and is `offline` until it is changed or removed.
    pub fn set_device(&self, device: Arc<DeviceInstance>) -> Result<(), UnknownProtocol> {
        let known = self.drivers.contains_key(&device.protocol);
        let error = || UnknownProtocol {
            device: device.id.clone(),
            protocol: device.protocol.clone(),
            known: self.drivers.keys().cloned().collect(),
        };
        let outcome = if known { Ok(()) } else { Err(error()) };
        self.wanted.send_if_modified(|wanted| match wanted.get(&device.id) {
            Some(same) if *same == device => false,
            _ => {
                wanted.insert(device.id.clone(), device);
                true
            }
        });
        outcome
    }

    /// Whether a driver speaks `protocol`.
    pub fn speaks(&self, protocol: &str) -> bool {
        self.drivers.contains_key(protocol)
    }

    /// Ends the polling of a device and closes it; tells whether it was there.
    pub fn remove_device(&self, device: &DeviceId) -> bool {
        self.wanted.send_if_modified(|wanted| wanted.remove(device).is_some())
    }

    /// The device called `id`.
    pub fn device(&self, id: &DeviceId) -> Option<Arc<DeviceInstance>> {
        self.wanted.borrow().get(id).cloned()
    }

    /// All devices, by id.
    pub fn devices(&self) -> Vec<Arc<DeviceInstance>> {
        self.wanted.borrow().values().cloned().collect()
    }

    /// Reads a property now: after the exchange that is under way, and before the next one. The value is also reported,
    /// if the property is.
    ///
    /// # Errors
    /// [`DemandError`]; [`DemandError::TimedOut`] after [`call_timeout`](MapperConfig::call_timeout), waiting included.
    ///
    /// # Cancel safety
    /// A read whose caller has gone is not begun.
    pub async fn read(&self, device: &DeviceId, property: &PropertyName) -> Result<PropertyReading, DemandError> {
        self.demand(device, property, Want::Read, String::new()).await
    }

    /// Writes `value`, a text, to a property now, and reads it back: the answer is what the device has then. Its type
    /// and the limits of the model are checked before. `origin` says on whose behalf, for the audit.
    ///
    /// The desired value of the twin is left as it is.
    ///
    /// # Errors
    /// As for [`MapperHost::read`].
    ///
    /// # Cancel safety
    /// A write whose caller has gone is not begun; one under way is ended and answered to the audit.
    pub async fn write(
        &self,
        device: &DeviceId,
        property: &PropertyName,
        value: impl Into<String>,
        origin: impl Into<String>,
    ) -> Result<PropertyReading, DemandError> {
        self.demand(device, property, Want::Write(value.into()), origin.into()).await
    }

    /// Searches for devices of `protocol`; see [`Protocol::discover`](kubeedge_core::mapper::Protocol::discover). It may
    /// take long, and has no deadline here.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`] also if there is no driver for the protocol.
    pub async fn discover(&self, protocol: &str, scope: ConfigData) -> Result<Vec<Discovered>, DriverError> {
        match self.drivers.get(protocol) {
            Some(driver) => driver.discover(scope).await,
            None => Err(DriverError::Unsupported),
        }
    }

    async fn demand(
        &self,
        device: &DeviceId,
        property: &PropertyName,
        want: Want,
        origin: String,
    ) -> Result<PropertyReading, DemandError> {
        let (reply, answer) = oneshot::channel();
        let demand = Demand { property: property.clone(), want, origin, reply };
        let answered = async {
            self.demands.send((device.clone(), demand)).await.map_err(|_closed| DemandError::Stopped)?;
            answer.await.unwrap_or(Err(DemandError::Stopped))
        };
        timeout(self.deadline, answered).await.unwrap_or(Err(DemandError::TimedOut))
    }
}
