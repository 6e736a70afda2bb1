//! The seams in memory, and the conformance suites that every implementation of a seam has to pass.
//!
//! A suite panics with what went wrong; run it from a test:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use kubeedge_core::{meta::MetaHandle, testing::{self, MemoryStore}};
//!
//! testing::meta_suite(MetaHandle::of(MemoryStore::new())).await;
//! # });
//! ```

mod bus;
mod bus_suite;
mod driver_suite;
mod meta;
mod meta_suite;
mod transport_suite;
mod twin_suite;

use std::sync::atomic::{AtomicI64, Ordering};

pub use self::{
    bus::MemoryBus, bus_suite::bus_suite, driver_suite::driver_suite, meta::MemoryStore, meta_suite::meta_suite,
    transport_suite::transport_suite, twin_suite::twin_suite,
};
use crate::names::{UnixMillis, WallClock};

/// A wall clock that a test moves by hand.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: UnixMillis) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Moves it forward.
    pub fn advance(&self, by: std::time::Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl WallClock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}
