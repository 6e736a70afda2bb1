use std::time::Duration;

use kubeedge_core::twin::TwinHandle;

use crate::backoff::Backoff;

/// What a mapper host needs, and how it goes about its work.
#[derive(Clone)]
#[non_exhaustive]
pub struct MapperConfig {
    /// Where values and states go, and desired values come from.
    pub twins: TwinHandle,
    /// Time between reads of a property that does not say. Default: 1 s.
    pub collect_cycle: Duration,
    /// Longest time between reports of a property that does not say. Default: 60 s.
    pub report_cycle: Duration,
    /// Time between reports of a state for a device that does not say. Default: 60 s.
    pub state_cycle: Duration,
    /// Longest time for one call on a driver or on the twins. Default: 10 s.
    pub call_timeout: Duration,
    /// Failures in a row after which a device is offline. Default: 3.
    pub failures_until_offline: u32,
    /// Pauses between tries of what failed. Default: 1 s up to 10 s.
    pub backoff: Backoff,
}

impl MapperConfig {
    /// The defaults.
    pub fn new(twins: TwinHandle) -> Self {
        Self {
            twins,
            collect_cycle: Duration::from_secs(1),
            report_cycle: Duration::from_secs(60),
            state_cycle: Duration::from_secs(60),
            call_timeout: Duration::from_secs(10),
            failures_until_offline: 3,
            backoff: Backoff::default(),
        }
    }
}

impl std::fmt::Debug for MapperConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapperConfig")
            .field("collect_cycle", &self.collect_cycle)
            .field("report_cycle", &self.report_cycle)
            .field("state_cycle", &self.state_cycle)
            .field("call_timeout", &self.call_timeout)
            .field("failures_until_offline", &self.failures_until_offline)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}
