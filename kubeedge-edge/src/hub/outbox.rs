//! Sends what must reach the cloud, until it is answered.

mod queue;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use kubeedge_core::{
    answer::Answer,
    message::Message,
    meta::{MetaError, MetaHandle, Record, Revision},
    outbox,
    uplink::{LinkState, UplinkError, UplinkHandle},
    words::Operation,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::queue::Queue;
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
        Self { concurrency: 16, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(60) }
    }
}

impl OutboxConfig {
    /// How many entries may wait for their answers at a time; default 16, at least 2. Entries that have failed before
    /// take at most half of it, so that what the cloud never answers does not hold up the rest.
    pub fn concurrency(mut self, entries: usize) -> Self {
        self.concurrency = entries.max(2);
        self
    }

    /// Pauses after a failure: between half and all of `first`, which doubles up to `longest`. Default 1 s and 60 s.
    /// They start over with each new link.
    pub fn retry(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_pause, self.longest_pause) = (first, longest);
        self
    }
}

/// How many entries wait for the cloud. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OutboxDepth(watch::Receiver<usize>);

impl OutboxDepth {
    /// How many entries a node should have at most. Entries are kept by subject, so their number grows with the number
    /// of devices and pods and not with time; a writer whose subjects are without number asks [`Self::has_room`] first.
    pub const LIMIT: usize = 10_000;

    /// How many there are. 0 until the sender has looked.
    pub fn entries(&self) -> usize {
        *self.0.borrow()
    }

    /// Whether a writer may add subjects.
    pub fn has_room(&self) -> bool {
        self.entries() < Self::LIMIT
    }

    /// Resolves when nothing waits for the cloud; at once if the sender has ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn emptied(&mut self) {
        // An error means that the sender is gone: nothing will change any more.
        let _ = self.0.wait_for(|entries| *entries == 0).await;
    }
}

/// Sends the entries of the [outbox](kubeedge_core::outbox) whenever there is a link, and takes each away once the cloud
/// has answered.
///
/// * At least once: an entry is sent until it is answered, over links and restarts. Of each subject at most one message
///   is under way.
/// * Newest wins: an entry that was replaced while it was under way stays, and is sent anew.
/// * An answer that this will never work (4xx, but not 408, 409 or 429) drops the entry, with a warning. Any other
///   failure, silence included, is tried again after a pause.
/// * In memory it keeps the subjects, not the messages.
#[must_use = "nothing is sent unless it runs"]
#[derive(Debug)]
pub struct OutboxSender {
    config: OutboxConfig,
    store: MetaHandle,
    uplink: UplinkHandle,
    depth: watch::Sender<usize>,
}

type Sending = BoxFuture<'static, (Arc<str>, Revision, Outcome)>;

/// What became of an entry that was sent.
#[derive(Debug)]
enum Outcome {
    /// It is settled: answered, refused for good, or no longer there.
    Settled,
    /// Nothing was heard because there is no link.
    NoLink,
    /// To be tried again.
    Failed,
}

impl OutboxSender {
    /// Sends what lies in `store` through `uplink`.
    pub fn new(config: OutboxConfig, store: MetaHandle, uplink: UplinkHandle) -> Self {
        Self { config, store, uplink, depth: watch::Sender::new(0) }
    }

    /// How many entries there are.
    pub fn depth(&self) -> OutboxDepth {
        OutboxDepth(self.depth.subscribe())
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
        let mut link = self.uplink.state();
        let mut connected = LinkState::default();
        loop {
            let state = *link.borrow_and_update();
            if state != connected {
                connected = state;
                queue.restart();
            }
            if state.is_connected() {
                while let Some((subject, revision)) = queue.take(Instant::now()) {
                    under_way.push(self.send(subject, revision));
                }
            }
            // Observers are told of changes only.
            self.depth.send_if_modified(|depth| std::mem::replace(depth, queue.len()) != queue.len());
            let due = queue.next_due().filter(|_| state.is_connected());
            tokio::select! {
                change = follower.next_patiently() => match change {
                    Some(Change::Listed(records)) => queue.replace_all(records),
                    Some(Change::Put(record)) => queue.put(&record),
                    Some(Change::Deleted(key)) => queue.remove(&key.name),
                    None => return,
                },
                Some((subject, revision, outcome)) = under_way.next() => match outcome {
                    Outcome::Settled => queue.settled(&subject, revision),
                    Outcome::NoLink => queue.returned(&subject),
                    Outcome::Failed => queue.failed(&subject, Instant::now()),
                },
                changed = link.changed() => if changed.is_err() {
                    // The hub is gone, and with it every chance to send.
                    return;
                },
                () = wait(due) => {}
            }
        }
    }

    /// Sends the newest entry about `subject`.
    fn send(&self, subject: Arc<str>, revision: Revision) -> Sending {
        let (store, uplink) = (self.store.clone(), self.uplink.clone());
        Box::pin(async move {
            let record = match store.get(outbox::key(subject.clone())).await {
                Ok(Some(record)) => record,
                Ok(None) => return (subject, revision, Outcome::Settled),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, %subject, "outbox entry cannot be read");
                    return (subject, revision, Outcome::Failed);
                }
            };
            let sent = record.revision;
            let outcome = match outbox::message(&record) {
                Ok(message) => match uplink.request(message).await {
                    Ok(reply) => judge(&subject, &reply),
                    Err(UplinkError::Disconnected) => Verdict::Retry(Outcome::NoLink),
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, %subject, "outbox entry not answered");
                        Verdict::Retry(Outcome::Failed)
                    }
                },
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, %subject, "outbox entry is damaged, dropped");
                    Verdict::Done
                }
            };
            let outcome = match outcome {
                Verdict::Done => settle(&store, &record).await,
                Verdict::Retry(outcome) => outcome,
            };
            (subject, sent, outcome)
        })
    }
}

enum Verdict {
    Done,
    Retry(Outcome),
}

fn judge(subject: &str, reply: &Message) -> Verdict {
    if reply.operation == Operation::Error {
        tracing::warn!(subject, reason = ?reply.content, "the cloud failed on an outbox entry");
        return Verdict::Retry(Outcome::Failed);
    }
    match Answer::read(&reply.content) {
        Answer::Refused(status) if matches!(status.code, 400..500) && !matches!(status.code, 408 | 409 | 429) => {
            tracing::warn!(
                subject,
                code = status.code,
                reason = status.message,
                "the cloud refused an outbox entry, dropped"
            );
            Verdict::Done
        }
        Answer::Refused(status) => {
            tracing::debug!(
                subject,
                code = status.code,
                reason = status.message,
                "the cloud could not take an outbox entry"
            );
            Verdict::Retry(Outcome::Failed)
        }
        _ => Verdict::Done,
    }
}

/// Takes an entry away, unless it was replaced.
async fn settle(store: &MetaHandle, record: &Record) -> Outcome {
    match store.commit(vec![outbox::settle(record)]).await {
        Ok(_) | Err(MetaError::Conflict { .. }) => Outcome::Settled,
        Err(error) => {
            // It will be sent again: the cloud takes a repetition.
            tracing::warn!(error = &error as &dyn std::error::Error, key = %record.key, "outbox entry cannot be removed");
            Outcome::Failed
        }
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
