//! What is to be written of which device, and when. Pure: no clock, no task.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use kubeedge_core::{
    device::DeviceStatusStatus,
    names::{DeviceId, MessageId, NodeName, Uid},
};
use tokio::time::Instant;

use super::report::Changes;
use crate::object::Pause;

/// Reports of one device that wait for the same write, to be confirmed by name. Of more, the oldest are written and not
/// confirmed: the edge sends them again.
const REPORTS: usize = 64;

/// Reports of one device that become one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The node that has sent them.
    pub(super) node: NodeName,
    /// The reports, oldest first.
    pub(super) reports: Vec<MessageId>,
    /// What they come to.
    pub(super) changes: Changes,
}

impl Batch {
    fn merge(&mut self, later: Self) {
        if self.node != later.node {
            // The device has moved: what the old node said of it is of no interest any more.
            *self = later;
            return;
        }
        self.changes.merge(later.changes);
        self.reports.retain(|report| !later.reports.contains(report));
        self.reports.extend(later.reports);
        self.reports.drain(..self.reports.len().saturating_sub(REPORTS));
    }
}

/// A DeviceStatus as we have left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The Device that it belongs to.
    pub(super) owner: Uid,
    /// Its version.
    pub(super) version: String,
    /// What is in it.
    pub(super) status: DeviceStatusStatus,
}

/// A write that is due.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) device: DeviceId,
    pub(super) batch: Arc<Batch>,
    pub(super) known: Option<Arc<Known>>,
}

/// When a write is due, and its place among those of the same moment.
type Turn = (Instant, u64);

/// An entry for each device that reports: what is known of its object, what is being written, and what comes next.
///
/// A device is written when it reports, but not before `interval` has gone by since its last write; what it reports
/// meanwhile is merged. Devices are taken in the order in which they are due, so one that reports all the time does not
/// go before another. At most one write of a device is under way.
#[derive(Debug)]
pub(super) struct Board {
    interval: Duration,
    entries: HashMap<DeviceId, Entry>,
    turns: BTreeMap<Turn, DeviceId>,
    last: u64,
}

#[derive(Debug, Default)]
struct Entry {
    known: Option<Arc<Known>>,
    waiting: Option<Batch>,
    writing: Option<Arc<Batch>>,
    /// When it waits, and nothing is being written.
    turn: Option<Turn>,
    not_before: Option<Instant>,
    pauses: Option<Pause>,
}

impl Board {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, entries: HashMap::new(), turns: BTreeMap::new(), last: 0 }
    }

    /// Takes a report.
    pub(super) fn put(&mut self, device: &DeviceId, batch: Batch, now: Instant) {
        let entry = self.entries.entry(device.clone()).or_default();
        match &mut entry.waiting {
            Some(waiting) => waiting.merge(batch),
            None => entry.waiting = Some(batch),
        }
        self.arrange(device, now);
    }

    /// The write that is due longest, if one is: to be given back to [`written`](Self::written), [`failed`](Self::failed)
    /// or [`given_up`](Self::given_up).
    pub(super) fn take(&mut self, now: Instant) -> Option<Job> {
        let (turn, _) = self.turns.first_key_value().filter(|((due, _), _)| *due <= now)?;
        let turn = *turn;
        let device = self.turns.remove(&turn)?;
        let entry = self.entries.get_mut(&device)?;
        entry.turn = None;
        let batch = Arc::new(entry.waiting.take()?);
        entry.writing = Some(batch.clone());
        // From its start, so that writes that take long are not the rarer for it.
        entry.not_before = Some(now + self.interval);
        Some(Job { known: entry.known.clone(), batch, device })
    }

    /// When the next write is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.turns.first_key_value().map(|((due, _), _)| *due)
    }

    /// The write is durable.
    pub(super) fn written(&mut self, job: &Job, known: Known, now: Instant) {
        let Some(entry) = self.writing(job) else { return };
        entry.known = Some(Arc::new(known));
        entry.pauses = None;
        self.arrange(&job.device, now);
    }

    /// The write has failed: it is tried again after a pause, with what has come since. Nothing is known of the object.
    pub(super) fn failed(&mut self, job: &Job, now: Instant) {
        let Some(entry) = self.writing(job) else { return };
        entry.known = None;
        let mut batch = Batch::clone(&job.batch);
        if let Some(later) = entry.waiting.take() {
            batch.merge(later);
        }
        entry.waiting = Some(batch);
        let pause = entry.pauses.get_or_insert_default().next().unwrap_or_default();
        entry.not_before = entry.not_before.max(Some(now + pause));
        self.arrange(&job.device, now);
    }

    /// The reports of this write are not to be written. What has come since is.
    pub(super) fn given_up(&mut self, job: &Job, now: Instant) {
        let Some(entry) = self.writing(job) else { return };
        (entry.known, entry.pauses) = (None, None);
        if entry.waiting.is_none() {
            self.entries.remove(&job.device);
        }
        self.arrange(&job.device, now);
    }

    /// The object of a device was made, or found.
    pub(super) fn learn(&mut self, device: &DeviceId, known: Known) {
        self.entries.entry(device.clone()).or_default().known = Some(Arc::new(known));
    }

    /// The device is gone. Gives the reports that were not yet being written.
    pub(super) fn forget(&mut self, device: &DeviceId) -> Option<Batch> {
        let entry = self.entries.remove(device)?;
        if let Some(turn) = entry.turn {
            self.turns.remove(&turn);
        }
        entry.waiting
    }

    /// The devices that have an entry.
    pub(super) fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.entries.keys()
    }

    /// The entry from which the write was taken, unless it is another by now: then this write is no business of it.
    fn writing(&mut self, job: &Job) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&job.device)?;
        let batch = entry.writing.take_if(|batch| Arc::ptr_eq(batch, &job.batch));
        batch.is_some().then_some(entry)
    }

    /// Gives what waits its turn, unless it has one or is to wait for the end of a write.
    fn arrange(&mut self, device: &DeviceId, now: Instant) {
        let Some(entry) = self.entries.get_mut(device) else { return };
        if entry.waiting.is_none() || entry.writing.is_some() || entry.turn.is_some() {
            return;
        }
        self.last += 1;
        let turn = (entry.not_before.map_or(now, |start| start.max(now)), self.last);
        entry.turn = Some(turn);
        self.turns.insert(turn, device.clone());
    }
}

#[cfg(test)]
#[path = "board/tests.rs"]
mod tests;
