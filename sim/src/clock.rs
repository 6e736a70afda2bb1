//! Wall clocks that can be set wrong.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use kubeedge_core::names::{UnixMillis, WallClock};

/// 2027-01-01T00:00:00Z.
const START: i64 = 1_798_761_600_000;

/// The clock of one host: simulated time, and how wrong it is.
#[derive(Debug, Default)]
pub(crate) struct HostClock {
    elapsed: AtomicI64,
    skew: AtomicI64,
}

impl HostClock {
    pub(crate) fn tick(&self, elapsed: Duration) {
        self.elapsed.store(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Jumps by so many milliseconds, forth or back.
    pub(crate) fn jump(&self, by: i64) {
        self.skew.fetch_add(by, Ordering::Relaxed);
    }
}

impl WallClock for HostClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(START + self.elapsed.load(Ordering::Relaxed) + self.skew.load(Ordering::Relaxed))
    }
}
