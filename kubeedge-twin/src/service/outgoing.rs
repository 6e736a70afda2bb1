//! What waits to be published: bounded, and nobody ever waits for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kubeedge_core::{bus::Event, names::DeviceId, topic::DeviceTopic};
use tokio::sync::Notify;

use crate::lanes::Lanes;

/// Most bytes that wait.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// One lane per device, and one for the node as such.
pub(super) type Lane = Option<DeviceId>;

#[derive(Debug)]
pub(super) struct Outgoing {
    lanes: Mutex<Lanes<Lane, Event>>,
    arrived: Notify,
}

impl Outgoing {
    pub(super) fn new(most: usize) -> Self {
        Self { lanes: Mutex::new(Lanes::new(most, MAX_WAITING)), arrived: Notify::new() }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes<Lane, Event>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a publication, at the cost of the oldest if there is no room.
    pub(super) fn push(&self, lane: Lane, topic: &DeviceTopic, payload: Bytes) {
        let weight = payload.len();
        let dropped = self.lanes().push(lane, Event::new(topic.topic(), payload), weight);
        if dropped > 0 {
            tracing::debug!(dropped, "publications dropped: the bus is slow or away");
        }
        self.arrived.notify_one();
    }

    /// The next publication that may go; its lane is busy until [`Outgoing::done`].
    pub(super) fn take(&self) -> Option<(Lane, Event)> {
        self.lanes().take()
    }

    pub(super) fn done(&self, lane: &Lane) {
        self.lanes().done(lane);
    }

    /// Resolves when something was left since the last time. Cancel safe.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
