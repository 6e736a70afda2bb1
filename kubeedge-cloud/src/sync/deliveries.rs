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

use super::ledger::{LedgerEntry, LedgerError, SyncLedger};
use crate::hub::{Deliveries, ObjectChange, ObjectEvent};

/// Writes at a time.
const WRITES: usize = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(10);

type Key = (NodeName, Uid);

/// A ledger that is written behind: what nodes acknowledge is known at once, and written as soon as can be. A failed write
/// is repeated until it works or is refused for good. One entry per node and object waits at most, as a newer one
/// replaces it.
///
/// What is not yet written when the process ends is sent to the node again, which does no harm.
#[derive(Clone)]
pub struct DeliveryLog(Arc<Shared>);

struct Shared {
    ledger: Arc<dyn SyncLedger>,
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Default)]
struct Pending {
    order: VecDeque<Key>,
    entries: HashMap<Key, Write>,
}

#[derive(Clone)]
struct Write {
    entry: LedgerEntry,
    has: bool,
    /// Tells a newer entry from the one that is being written.
    number: u64,
    pause: Duration,
}

impl DeliveryLog {
    /// A log in front of `ledger`. Nothing is written unless [`run`](Self::run) does.
    pub fn new(ledger: Arc<dyn SyncLedger>) -> Self {
        Self(Arc::new(Shared { ledger, pending: Mutex::default(), wake: Notify::new() }))
    }

    /// All that `node` has, with what is not yet written.
    pub async fn list(&self, node: &NodeName) -> Result<Vec<LedgerEntry>, LedgerError> {
        let written = self.0.ledger.list(node).await?;
        let mut entries: HashMap<Uid, LedgerEntry> =
            written.into_iter().map(|entry| (entry.uid.clone(), entry)).collect();
        for ((_, uid), write) in self.pending().entries.iter().filter(|((of, _), _)| of == node) {
            if write.has {
                entries.insert(uid.clone(), write.entry.clone());
            } else {
                entries.remove(uid);
            }
        }
        Ok(entries.into_values().collect())
    }

    /// Nothing is known of `node` any more: it was deleted.
    pub async fn purge(&self, node: &NodeName) -> Result<(), LedgerError> {
        for entry in self.list(node).await? {
            self.put(node, entry, false);
        }
        Ok(())
    }

    /// The nodes that there is something about.
    pub async fn nodes(&self) -> Result<Vec<NodeName>, LedgerError> {
        self.0.ledger.nodes().await
    }

    pub(super) fn put(&self, node: &NodeName, entry: LedgerEntry, has: bool) {
        let key = (node.clone(), entry.uid.clone());
        {
            let mut pending = self.pending();
            let number = pending.entries.get(&key).map_or(0, |write| write.number + 1);
            let write = Write { entry, has, number, pause: FIRST_PAUSE };
            if pending.entries.insert(key.clone(), write).is_none() {
                pending.order.push_back(key);
            }
        }
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
                Some(()) = writes.next(), if !writes.is_empty() => {}
                () = self.0.wake.notified() => {}
                () = shutdown.cancelled(), if !ending => {}
            }
        }
    }

    fn next(&self) -> Option<(Key, Write)> {
        let mut pending = self.pending();
        let key = pending.order.pop_front()?;
        let write = pending.entries.get(&key)?.clone();
        Some((key, write))
    }

    /// Writes once, and waits after a failure, so that the entry is tried again later.
    async fn write(&self, key: Key, write: Write, shutdown: &CancellationToken) {
        let (node, entry) = (&key.0, &write.entry);
        let ledger = &self.0.ledger;
        let written = if write.has { ledger.record(node, entry).await } else { ledger.forget(node, entry).await };
        let retry = match written {
            Ok(()) => false,
            Err(err @ LedgerError::Refused(_)) => {
                tracing::debug!(%node, object = %entry.path, err = &err as &dyn std::error::Error, "record not written");
                false
            }
            Err(err) => {
                tracing::warn!(%node, object = %entry.path, err = &err as &dyn std::error::Error, "record not yet written");
                let pause = tokio::time::sleep(write.pause.mul_f64(0.8 + 0.4 * fastrand::f64()));
                shutdown.run_until_cancelled(pause).await.is_some()
            }
        };
        let mut pending = self.pending();
        match pending.entries.get_mut(&key) {
            // A newer one came meanwhile.
            Some(newer) if newer.number != write.number => pending.order.push_back(key),
            Some(same) if retry => {
                same.pause = (same.pause * 2).min(LAST_PAUSE);
                pending.order.push_back(key);
            }
            _ => {
                pending.entries.remove(&key);
            }
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
}

impl fmt::Debug for DeliveryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryLog").field("pending", &self.pending().entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "deliveries/tests.rs"]
mod tests;
