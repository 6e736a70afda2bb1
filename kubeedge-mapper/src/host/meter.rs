//! What the figures of the host are made of; nothing without the feature `metrics`.

use std::time::Duration;

use kubeedge_core::{device::DeviceState, mapper::DriverError};

use super::MapperConfig;
#[cfg(feature = "metrics")]
use crate::metrics::{DeviceFigures, MapperMetrics};

/// What was asked of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
}

/// The part of one device.
#[derive(Debug, Default)]
pub(super) struct Meter {
    #[cfg(feature = "metrics")]
    figures: Option<DeviceFigures>,
}

#[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self, unused_variables, reason = "there are no figures"))]
impl Meter {
    pub(super) fn new(config: &MapperConfig, protocol: &str) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            figures: config.metrics.as_ref().map(|metrics: &MapperMetrics| metrics.device(protocol)),
        }
    }

    pub(super) fn set_protocol(&mut self, protocol: &str) {
        #[cfg(feature = "metrics")]
        if let Some(figures) = &mut self.figures {
            figures.set_protocol(protocol);
        }
    }

    pub(super) fn exchange(&mut self, operation: Operation, took: Duration, error: Option<&DriverError>) {
        #[cfg(feature = "metrics")]
        if let Some(figures) = &self.figures {
            figures.exchange(operation, took, error);
        }
    }

    pub(super) fn turn(&mut self, state: Option<&DeviceState>, reports: usize, demands: usize) {
        #[cfg(feature = "metrics")]
        if let Some(figures) = &mut self.figures {
            figures.turn(state, reports, demands);
        }
    }
}
