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
//! # State
//! A device is `online` once it answers (a refusal is an answer), and `offline` after
//! [`failures_until_offline`](MapperConfig::failures_until_offline) failures in a row; from then on it is asked less
//! and less often. A device that cannot be opened, because its settings are wrong or nobody speaks its protocol, is
//! `offline` too. Transitions are always told to the twins; a device with `stateReport.reportToCloud` repeats its state
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
mod device;
mod directive;
mod health;
mod property;
mod run;
mod watch;
mod wish;

use std::{collections::BTreeMap, sync::Arc};

use kubeedge_core::{device::DeviceInstance, mapper::DriverMaker, names::DeviceId};
use tokio::sync::watch as newest;

pub use self::{config::MapperConfig, run::MapperHostDriver};

/// The devices that there should be. Only the newest state counts, so nothing queues up.
type Wanted = BTreeMap<DeviceId, Arc<DeviceInstance>>;

/// Tells the mapper host which devices there are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MapperHost {
    wanted: Arc<newest::Sender<Wanted>>,
    protocols: Arc<[String]>,
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
    /// A host with a driver per protocol name, spelled as in `spec.protocol.protocolName`, and the part that runs it.
    pub fn new(
        config: MapperConfig,
        drivers: impl IntoIterator<Item = (String, DriverMaker)>,
    ) -> (Self, MapperHostDriver) {
        let drivers: BTreeMap<_, _> = drivers.into_iter().collect();
        let protocols = drivers.keys().cloned().collect();
        let (wanted, devices) = newest::channel(Wanted::new());
        (Self { wanted: Arc::new(wanted), protocols }, MapperHostDriver::new(config, drivers, devices))
    }

    /// Adds a device, or changes one. The same again does nothing; a change of settings opens the device anew, other
    /// changes are taken over as they are. What is known of the properties that stay is kept.
    ///
    /// # Errors
    /// [`UnknownProtocol`]; the device is known all the same, and is `offline` until it is changed or removed.
    pub fn set_device(&self, device: Arc<DeviceInstance>) -> Result<(), UnknownProtocol> {
        let known = self.protocols.contains(&device.protocol);
        let error = || UnknownProtocol {
            device: device.id.clone(),
            protocol: device.protocol.clone(),
            known: self.protocols.to_vec(),
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
        self.protocols.iter().any(|known| known == protocol)
    }

    /// Ends the polling of a device and closes it; tells whether it was there.
    pub fn remove_device(&self, device: &DeviceId) -> bool {
        self.wanted.send_if_modified(|wanted| wanted.remove(device).is_some())
    }
}
