//! How fast edges may dial.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

/// Lets so many dial at a time, and so many per second.
#[derive(Debug)]
pub(crate) struct Gate {
    slots: Semaphore,
    interval: Option<Duration>,
    next: Mutex<Instant>,
}

impl Gate {
    /// `rate` per second, 0 for as many as may; `dials` at a time.
    pub(crate) fn new(rate: f64, dials: usize) -> Self {
        let interval = (rate > 0.0).then(|| Duration::from_secs_f64(1.0 / rate));
        Self { slots: Semaphore::new(dials.max(1)), interval, next: Mutex::new(Instant::now()) }
    }

    /// Waits for one's turn. `None` never comes, as the gate is not closed.
    pub(crate) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        let slot = self.slots.acquire().await.ok();
        if let Some(interval) = self.interval {
            let turn = {
                let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
                let turn = (*next).max(Instant::now());
                *next = turn + interval;
                turn
            };
            sleep_until(turn).await;
        }
        slot
    }
}
