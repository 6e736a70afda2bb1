//! Sends what must reach the cloud, until it is settled.

mod deliver;
mod queue;

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use kubeedge_core::{
    layer::OutboxDrops,
    meta::MetaHandle,
    outbox,
    uplink::{LinkState, UplinkHandle},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    deliver::{Delivery, Landed, Outcome, Sending},
    queue::Queue,
};
use crate::meta::{Change, Follower};

/// Limits and times of an [`OutboxSender`].
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    pub(super) concurrency: usize,
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { concurrency: 128, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(60) }
    }
}

impl OutboxConfig {
    /// How many entries may wait for their answers at a time; default 128, at least 4: a cloud of ours confirms the values
    /// of a device with its next write of them, which may be a second later. Streams take at most four slots and a quarter
    /// of them, each stream one, and entries of state that have failed before at most half: so neither a long stream nor
    /// what the cloud never answers holds up fresh state.
    pub fn concurrency(mut self, entries: usize) -> Self {
        self.concurrency = entries.max(4);
        self
    }

    /// Pauses after a failure: between half and all of `first`, which doubles up to `longest`. Default 1 s and 60 s.
    /// They start over with each new link.
    pub fn retry(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_pause, self.longest_pause) = (first, longest);
        self
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    state: usize,
    streams: usize,
}

/// How many entries wait for the cloud. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OutboxDepth {
    counts: watch::Receiver<Counts>,
    drops: OutboxDrops,
}

impl OutboxDepth {
    /// How many entries of state there are. 0 until the sender has looked.
    pub fn state(&self) -> usize {
        self.counts.borrow().state
    }

    /// How many entries of streams there are. 0 until the sender has looked.
    pub fn streams(&self) -> usize {
        self.counts.borrow().streams
    }

    /// How many entries of streams were dropped since the start, because newer ones needed the room.
    pub fn dropped(&self) -> u64 {
        self.drops.total()
    }

    /// Resolves when nothing waits for the cloud; at once if the sender has ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn emptied(&mut self) {
        // An error means that the sender is gone: nothing will change any more.
        let _ = self.counts.wait_for(|counts| *counts == Counts::default()).await;
    }
}

/// Sends the entries of the [outbox](kubeedge_core::outbox) whenever there is a link, and takes each away once it is
/// settled: by the answer of the cloud, or by being written to the link if a KubeEdge cloud answers no message of its
/// kind ([`outbox::settled_by`]).
///
/// * At least once: an entry is sent until it is settled, over links and restarts. What is settled by being written may
///   be lost with the link that it was written to.
/// * State: newest wins. Of each subject at most one message is under way; an entry that was replaced meanwhile stays,
///   and is sent anew.
/// * Streams: in order. Of each stream one message is under way; up to 16 that were written are taken away in one commit,
///   so a crash may send these again. An entry that fails holds up its stream, and nothing else.
/// * An answer that this will never work (4xx, but not 408, 409 or 429) drops the entry, with a warning. Any other
///   failure, silence included, is tried again after a pause.
/// * In memory it keeps subjects and numbers, not messages.
#[must_use = "nothing is sent unless it runs"]
#[derive(Debug)]
pub struct OutboxSender {
    config: OutboxConfig,
    store: MetaHandle,
    uplink: UplinkHandle,
    drops: OutboxDrops,
    counts: watch::Sender<Counts>,
}

impl OutboxSender {
    /// Sends what lies in `store` through `uplink`.
    pub fn new(config: OutboxConfig, store: MetaHandle, uplink: UplinkHandle) -> Self {
        Self { config, store, uplink, drops: OutboxDrops::default(), counts: watch::Sender::default() }
    }

    /// Shows `drops` in its [`OutboxDepth`].
    pub fn drops(mut self, drops: OutboxDrops) -> Self {
        self.drops = drops;
        self
    }

    /// How many entries there are.
    pub fn depth(&self) -> OutboxDepth {
        OutboxDepth { counts: self.counts.subscribe(), drops: self.drops.clone() }
    }

    /// Runs until `shutdown`, or until the store is closed. What is under way then is sent again at the next start.
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    pub async fn run(self, shutdown: CancellationToken) {
        let _stopped: Option<()> = shutdown.run_until_cancelled(self.send_all()).await;
    }

    async fn send_all(self) {
        let mut queue = Queue::new(&self.config);
        let mut follower = Follower::new(self.store.clone(), outbox::selector());
        let mut under_way: FuturesUnordered<Sending> = FuturesUnordered::new();
        let delivery = Delivery { store: self.store.clone(), uplink: self.uplink.clone() };
        let mut link = self.uplink.state();
        let mut connected = LinkState::default();
        loop {
            let state = *link.borrow_and_update();
            if state != connected {
                connected = state;
                queue.restart();
            }
            if state.is_connected() {
                while let Some(job) = queue.take(Instant::now()) {
                    under_way.push(delivery.start(job));
                }
            }
            let counts = Counts { state: queue.subjects.len(), streams: queue.lanes.len() };
            // Observers are told of changes only.
            self.counts.send_if_modified(|known| std::mem::replace(known, counts) != counts);
            let due = queue.next_due().filter(|_| state.is_connected());
            tokio::select! {
                biased;
                change = follower.next_patiently() => match change {
                    Some(Change::Listed(records)) => queue.replace_all(records),
                    Some(Change::Put(record)) => queue.put(&record),
                    Some(Change::Deleted(key)) => queue.remove(&key),
                    None => return,
                },
                Some((landed, outcome)) = under_way.next() => land(&mut queue, &landed, &outcome),
                changed = link.changed() => if changed.is_err() {
                    // The hub is gone, and with it every chance to send.
                    return;
                },
                () = wait(due) => {}
            }
        }
    }
}

fn land(queue: &mut Queue, landed: &Landed, outcome: &Outcome) {
    match (landed, outcome) {
        (Landed::State(subject, revision), Outcome::Settled) => queue.subjects.settled(subject, *revision),
        (Landed::State(subject, _), Outcome::NoLink) => queue.subjects.returned(subject),
        (Landed::State(subject, _), Outcome::Failed) => queue.subjects.failed(subject, Instant::now()),
        (Landed::Stream(stream, gone), Outcome::Settled) => queue.lanes.landed(stream, gone),
        (Landed::Stream(stream, gone), Outcome::NoLink) => queue.lanes.returned(stream, gone),
        (Landed::Stream(stream, gone), Outcome::Failed) => queue.lanes.failed(stream, gone, Instant::now()),
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
