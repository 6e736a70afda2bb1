use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    names::{SharedClock, SystemClock},
    twin::TwinHandle,
};

use super::demand::AuditHook;
use crate::{backoff::Backoff, push::Publisher};

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
    /// Failures in a row after which a device is offline: no more than one each beat. Default: 2.
    pub failures_until_offline: u32,
    /// Pauses between tries of what failed. Default: 1 s up to 10 s.
    pub backoff: Backoff,
    /// Is told of each write on demand. Default: nobody.
    pub audit: Option<AuditHook>,
    /// Who carries out the push methods of properties. Default: nobody.
    pub publishers: Vec<Arc<dyn Publisher>>,
    /// Figures that the host keeps. Default: none.
    #[cfg(feature = "metrics")]
    pub metrics: Option<crate::metrics::MapperMetrics>,
    /// Tells the wall-clock time. Default: that of the operating system.
    pub clock: SharedClock,
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
            failures_until_offline: 2,
            backoff: Backoff::default(),
            audit: None,
            publishers: Vec::new(),
            #[cfg(feature = "metrics")]
            metrics: None,
            clock: Arc::new(SystemClock),
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
