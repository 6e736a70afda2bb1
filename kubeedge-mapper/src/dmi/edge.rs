//! The role of EdgeCore: mappers register and report here, and are told of their devices.
//!
//! Per protocol there is one mapper; the last that registers is the one. What it was told is compared with what there
//! is, and the difference is brought to it: models before their devices, one call after the other, each with a deadline,
//! and again with growing pauses until it succeeds or something newer is to be told. Mappers do not wait for each other.
//!
//! Addresses of mappers, and for each device which version of it the mapper has, are in the store: after a restart only
//! what changed meanwhile is told. Before a device is told its record says "not certain", so that a crash in between
//! leads to one call too many and never to one too few.
//!
//! Upstream: `edge/pkg/devicetwin/dmiserver`, `edge/pkg/devicetwin/dmiclient`. There calls are serial, have no retry,
//! and a restart tells nothing; one report per second is taken from all mappers together.

mod config;
mod driver;
mod lane;
mod persist;
mod plan;
mod reports;
mod server;
mod state;

use std::sync::Arc;

use kubeedge_core::names::DeviceId;

use self::state::Shared;
pub use self::{config::DmiConfig, driver::DmiDriver};
use super::DmiDevice;

/// Tells which devices mappers of their own process look after. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DmiHost {
    shared: Arc<Shared>,
}

impl DmiHost {
    /// A host, and the part that serves mappers and calls them.
    pub fn new(config: DmiConfig) -> (Self, DmiDriver) {
        let (reports, carrier) = reports::channel(&config);
        let shared = Arc::new(Shared::new(config, reports));
        (Self { shared: Arc::clone(&shared) }, DmiDriver::new(shared, carrier))
    }

    /// Adds a device, or changes one; it goes to the mapper that registered for its protocol, now or later. The same
    /// again does nothing.
    pub fn set_device(&self, device: DmiDevice) {
        self.shared.set(device);
    }

    /// Takes a device from its mapper; tells whether it was there.
    pub fn remove_device(&self, device: &DeviceId) -> bool {
        self.shared.remove(device)
    }

    /// All devices that there were at the start are set by now. Until then mappers lose none that the last run told
    /// them of, and a mapper that registers waits a moment for its answer.
    pub fn all_set(&self) {
        self.shared.all_set();
    }
}
