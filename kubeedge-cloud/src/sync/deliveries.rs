//! Writing down what nodes acknowledge, without keeping their sessions waiting.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use kubeedge_core::names::{NodeName, Uid};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{LedgerEntry, LedgerError, SyncLedger},
    owners::{Alone, Owners, Standing},
};
use crate::hub::{Deliveries, ObjectChange, ObjectEvent};

/// Writes at a time.
const WRITES: usize = 128;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(10);

type Key = (NodeName, Uid);

/// A ledger that is written behind: what nodes acknowledge is known at once, and written as soon as can be. A failed write
/// is repeated until it works. One entry per node and object waits at most, as a newer one replaces it.
///
/// Only the records of nodes that are ours are written, see [`Owners`]: those of a node that may become ours wait, and those
/// of one that is another's are dropped. A record that the ledger refuses is remembered as long as the node is connected,
/// so that the object is not sent again and again.
///
/// What is not yet written when the process ends is sent to the node again, which does no harm.
#[derive(Clone)]
pub struct DeliveryLog(Arc<Shared>);

struct Shared {
    ledger: Arc<dyn SyncLedger>,
    owners: Arc<dyn Owners>,
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Default)]
struct Pending {
    /// What can be written, in this order.
    order: VecDeque<Key>,
    nodes: HashMap<NodeName, HashMap<Uid, Write>>,
    /// Number of the last entry.
    last: u64,
}

#[derive(Clone)]
struct Write {
    entry: LedgerEntry,
    has: bool,
    /// Tells a newer entry from the one that is being written.
    number: u64,
    pause: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the order.
    Queued,
    /// On its way, or waiting for its next attempt.
    Writing,
    /// Until the node is ours.
    Parked,
    /// The ledger will not have it.
    Refused,
}

impl Pending {
    fn put(&mut self, node: &NodeName, entry: LedgerEntry, has: bool) {
        let key = (node.clone(), entry.uid.clone());
        self.last += 1;
        let writes = self.nodes.entry(node.clone()).or_default();
        let waiting = writes.get(&key.1).map(|write| write.state).filter(|state| *state != State::Refused);
        let queued = waiting.is_none();
        let state = waiting.unwrap_or(State::Queued);
        writes.insert(key.1.clone(), Write { entry, has, number: self.last, pause: FIRST_PAUSE, state });
        if queued {
            self.order.push_back(key);
        }
    }

    fn get_mut(&mut self, (node, uid): &Key) -> Option<&mut Write> {
        self.nodes.get_mut(node)?.get_mut(uid)
    }

    fn remove(&mut self, (node, uid): &Key) {
        if let Some(writes) = self.nodes.get_mut(node) {
            writes.remove(uid);
            if writes.is_empty() {
                self.nodes.remove(node);
            }
        }
    }

    /// Puts into the order what is in `state`.
    fn queue(&mut self, node: &NodeName, state: State) {
        for (uid, write) in self.nodes.get_mut(node).into_iter().flatten() {
            if write.state == state {
                write.state = State::Queued;
                self.order.push_back((node.clone(), uid.clone()));
            }
        }
    }

    /// The next entry to write.
    fn next(&mut self, owners: &dyn Owners) -> Option<(Key, Write)> {
        while let Some(key) = self.order.pop_front() {
            let Some(write) = self.get_mut(&key) else { continue };
            match owners.standing(&key.0) {
                Standing::Owner => {
                    write.state = State::Writing;
                    let write = write.clone();
                    return Some((key, write));
                }
                Standing::Candidate => write.state = State::Parked,
                Standing::Other => {
                    self.nodes.remove(&key.0);
                }
            }
        }
        None
    }
}

impl DeliveryLog {
    /// A log in front of `ledger`, for a cloud that is alone. Nothing is written unless [`run`](Self::run) does.
    pub fn new(ledger: Arc<dyn SyncLedger>) -> Self {
        Self::owned(ledger, Arc::new(Alone))
    }

    /// A log in front of `ledger`, for the nodes that are ours by `owners`, whose changes this log takes.
    pub fn owned(ledger: Arc<dyn SyncLedger>, owners: Arc<dyn Owners>) -> Self {
        Self(Arc::new(Shared { ledger, owners, pending: Mutex::default(), wake: Notify::new() }))
    }

    /// All that `node` has, with what is not yet written.
    pub async fn list(&self, node: &NodeName) -> Result<Vec<LedgerEntry>, LedgerError> {
        let written = self.0.ledger.list(node).await?;
        let mut entries: HashMap<Uid, LedgerEntry> =
            written.into_iter().map(|entry| (entry.uid.clone(), entry)).collect();
        for (uid, write) in self.pending().nodes.get(node).into_iter().flatten() {
            if write.has {
                entries.insert(uid.clone(), write.entry.clone());
            } else {
                entries.remove(uid);
            }
        }
        Ok(entries.into_values().collect())
    }

    /// Takes the record of something away that `node` cannot be told of.
    pub(crate) fn forget(&self, node: &NodeName, entry: LedgerEntry) {
        self.put(node, entry, false);
    }

    /// Nothing is known of `node` any more: it was deleted. What waits is dropped, and its records are taken away at once.
    ///
    /// # Errors
    /// The first of them, after all were tried.
    pub async fn purge(&self, node: &NodeName) -> Result<(), LedgerError> {
        self.pending().nodes.remove(node);
        let entries = self.0.ledger.list(node).await?;
        let mut entries = entries.iter();
        let mut forgets = FuturesUnordered::new();
        let mut outcome = Ok(());
        loop {
            while forgets.len() < WRITES
                && let Some(entry) = entries.next()
            {
                forgets.push(self.0.ledger.forget(node, entry));
            }
            match forgets.next().await {
                None => return outcome,
                Some(forgotten) => outcome = outcome.and(forgotten),
            }
        }
    }

    /// The nodes that there is something about.
    pub async fn nodes(&self) -> Result<Vec<NodeName>, LedgerError> {
        self.0.ledger.nodes().await
    }

    /// Nodes whose records somebody else has changed; waits for them.
    pub(crate) async fn touched(&self) -> Vec<NodeName> {
        self.0.ledger.touched().await
    }

    /// What was refused is tried again.
    pub(crate) fn insist(&self, node: &NodeName) {
        self.pending().queue(node, State::Refused);
        self.0.wake.notify_one();
    }

    /// The session of `node` has ended: what was refused is forgotten, and the objects are sent again in the next one.
    pub(crate) fn disconnected(&self, node: &NodeName) {
        let mut pending = self.pending();
        if let Some(writes) = pending.nodes.get_mut(node) {
            writes.retain(|_, write| write.state != State::Refused);
            if writes.is_empty() {
                pending.nodes.remove(node);
            }
        }
    }

    pub(super) fn put(&self, node: &NodeName, entry: LedgerEntry, has: bool) {
        if self.0.owners.standing(node) == Standing::Other {
            tracing::debug!(%node, object = %entry.path, "record of another instance's node not written");
            return;
        }
        self.pending().put(node, entry, has);
        self.0.wake.notify_one();
    }

    /// Writes until `shutdown`, and then what can be written at the first attempt.
    ///
    /// # Cancel safety
    /// What was not written stays in the log.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut writes = FuturesUnordered::new();
        loop {
            while writes.len() < WRITES
                && let Some((key, write)) = self.next()
            {
                writes.push(self.write(key, write, &shutdown));
            }
            let ending = shutdown.is_cancelled();
            if ending && writes.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(()) = writes.next(), if !writes.is_empty() => {}
                nodes = self.0.owners.changed() => nodes.iter().for_each(|node| self.reconsider(node)),
                () = self.0.wake.notified() => {}
                () = shutdown.cancelled(), if !ending => {}
            }
        }
    }

    /// The standing of `node` has changed.
    fn reconsider(&self, node: &NodeName) {
        let mut pending = self.pending();
        match self.0.owners.standing(node) {
            Standing::Owner => pending.queue(node, State::Parked),
            Standing::Candidate => {}
            Standing::Other => {
                pending.nodes.remove(node);
            }
        }
    }

    fn next(&self) -> Option<(Key, Write)> {
        self.pending().next(&*self.0.owners)
    }

    /// Writes once, and waits after a failure, so that the entry is tried again later.
    async fn write(&self, key: Key, write: Write, shutdown: &CancellationToken) {
        let (node, entry) = (&key.0, &write.entry);
        let ledger = &self.0.ledger;
        let written = if write.has { ledger.record(node, entry).await } else { ledger.forget(node, entry).await };
        let next = match written {
            Ok(()) => None,
            Err(err @ LedgerError::Refused(_)) => {
                tracing::debug!(%node, object = %entry.path, err = &err as &dyn std::error::Error, "record not written");
                Some(State::Refused)
            }
            Err(err) => {
                tracing::warn!(%node, object = %entry.path, err = &err as &dyn std::error::Error, "record not yet written");
                let pause = tokio::time::sleep(write.pause.mul_f64(0.8 + 0.4 * fastrand::f64()));
                shutdown.run_until_cancelled(pause).await.map(|()| State::Queued)
            }
        };
        let mut pending = self.pending();
        // The node may be another's by now.
        let Some(waiting) = pending.get_mut(&key) else { return };
        let newer = waiting.number != write.number;
        match next {
            _ if newer => waiting.state = State::Queued,
            Some(state) => {
                waiting.pause = (waiting.pause * 2).min(LAST_PAUSE);
                waiting.state = state;
            }
            None => pending.remove(&key),
        }
        if newer || next == Some(State::Queued) {
            pending.order.push_back(key);
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deliveries for DeliveryLog {
    fn delivered(&self, node: &NodeName, change: &ObjectChange) {
        self.put(node, LedgerEntry::of(&change.object), change.event != ObjectEvent::Delete);
    }

    /// What was recorded before may be wrong now: it counts as never acknowledged, so that the node is told again.
    fn uncertain(&self, node: &NodeName, change: &ObjectChange) {
        self.put(node, LedgerEntry::of(&change.object).acknowledged(None, None), true);
    }
}

impl fmt::Debug for DeliveryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryLog").field("nodes", &self.pending().nodes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "deliveries/tests.rs"]
mod tests;
