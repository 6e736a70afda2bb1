#![allow(clippy::unwrap_used)]
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::object::{Kind, NodeObject};

/// A ledger in memory that fails as often as it is told to.
#[derive(Default)]
struct Fickle {
    entries: Mutex<HashMap<Key, LedgerEntry>>,
    failures: AtomicUsize,
    writes: AtomicUsize,
}

impl Fickle {
    fn attempt(&self) -> Result<(), LedgerError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let failing = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() { Err(LedgerError::Unavailable("away".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl SyncLedger for Fickle {
    async fn list(&self, node: &NodeName) -> Result<Vec<LedgerEntry>, LedgerError> {
        let entries = self.entries.lock().unwrap();
        Ok(entries.iter().filter(|((of, _), _)| of == node).map(|(_, entry)| entry.clone()).collect())
    }

    async fn record(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.attempt()?;
        self.entries.lock().unwrap().insert((node.clone(), entry.uid.clone()), entry.clone());
        Ok(())
    }

    async fn forget(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.attempt()?;
        self.entries.lock().unwrap().remove(&(node.clone(), entry.uid.clone()));
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeName>, LedgerError> {
        Ok(self.entries.lock().unwrap().keys().map(|(node, _)| node.clone()).collect())
    }
}

fn change(event: ObjectEvent, version: u64) -> ObjectChange {
    let value: Value = json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "u", "resourceVersion": version.to_string() },
    });
    ObjectChange::new(event, Arc::new(NodeObject::new(&Kind::POD, value).unwrap()))
}

fn node() -> NodeName {
    NodeName::new("edge-1").unwrap()
}

async fn settled(log: &DeliveryLog) {
    while !log.pending().nodes.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failed_writes_are_repeated_and_known_meanwhile() {
    let ledger = Arc::new(Fickle::default());
    ledger.failures.store(3, Ordering::SeqCst);
    let log = DeliveryLog::new(ledger.clone());
    log.delivered(&node(), &change(ObjectEvent::Update, 7));
    assert_eq!(log.list(&node()).await.unwrap()[0].version.unwrap().number(), 7);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (log, shutdown) = (log.clone(), shutdown.clone());
        async move { log.run(shutdown).await }
    });
    settled(&log).await;
    assert_eq!(ledger.writes.load(Ordering::SeqCst), 4);
    assert_eq!(ledger.list(&node()).await.unwrap().len(), 1);

    log.delivered(&node(), &change(ObjectEvent::Delete, 8));
    assert!(log.list(&node()).await.unwrap().is_empty());
    settled(&log).await;
    assert!(ledger.list(&node()).await.unwrap().is_empty());
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_last_word_is_written_even_at_the_end() {
    let ledger = Arc::new(Fickle::default());
    let log = DeliveryLog::new(ledger.clone());
    for version in 1..=100 {
        log.delivered(&node(), &change(ObjectEvent::Update, version));
    }
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    log.run(shutdown).await;
    assert_eq!(ledger.writes.load(Ordering::SeqCst), 1, "only the newest of each object");
    assert_eq!(ledger.list(&node()).await.unwrap()[0].version.unwrap().number(), 100);
    // An API that is away does not hold up the end.
    ledger.failures.store(1000, Ordering::SeqCst);
    log.delivered(&node(), &change(ObjectEvent::Update, 101));
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    log.run(shutdown).await;
}

/// Standings as a test sets them.
#[derive(Default)]
struct Moods {
    standings: Mutex<HashMap<NodeName, Standing>>,
    changed: Mutex<Vec<NodeName>>,
    wake: Notify,
}

impl Moods {
    fn set(&self, node: &NodeName, standing: Standing) {
        self.standings.lock().unwrap().insert(node.clone(), standing);
        self.changed.lock().unwrap().push(node.clone());
        self.wake.notify_one();
    }
}

#[async_trait]
impl Owners for Moods {
    fn standing(&self, node: &NodeName) -> Standing {
        self.standings.lock().unwrap().get(node).copied().unwrap_or(Standing::Candidate)
    }

    async fn changed(&self) -> Vec<NodeName> {
        loop {
            let changed = std::mem::take(&mut *self.changed.lock().unwrap());
            if !changed.is_empty() {
                return changed;
            }
            self.wake.notified().await;
        }
    }

    fn nodes(&self) -> Vec<NodeName> {
        Vec::new()
    }

    fn clears(&self, _: &NodeName) -> bool {
        true
    }

    async fn release(&self, _: &NodeName) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn records_wait_until_the_node_is_ours_and_are_dropped_when_it_is_not() {
    let (ledger, moods) = (Arc::new(Fickle::default()), Arc::new(Moods::default()));
    let log = DeliveryLog::owned(ledger.clone(), moods.clone());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (log, shutdown) = (log.clone(), shutdown.clone());
        async move { log.run(shutdown).await }
    });
    let other = NodeName::new("edge-2").unwrap();
    for of in [&node(), &other] {
        log.delivered(of, &change(ObjectEvent::Update, 7));
        log.delivered(of, &change(ObjectEvent::Update, 8));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ledger.writes.load(Ordering::SeqCst), 0);
    assert_eq!(log.list(&node()).await.unwrap().len(), 1, "it is known all the same");

    moods.set(&node(), Standing::Owner);
    moods.set(&other, Standing::Other);
    settled(&log).await;
    assert_eq!(ledger.list(&node()).await.unwrap()[0].version.unwrap().number(), 8);
    assert_eq!((ledger.list(&other).await.unwrap(), ledger.writes.load(Ordering::SeqCst)), (vec![], 1));
    log.delivered(&other, &change(ObjectEvent::Update, 9));
    assert_eq!(log.list(&other).await.unwrap(), [], "nothing is taken for a node of another instance");

    // Lost while a failed write waits for its next attempt.
    ledger.failures.store(1, Ordering::SeqCst);
    log.delivered(&node(), &change(ObjectEvent::Update, 9));
    tokio::time::sleep(Duration::from_millis(10)).await;
    moods.set(&node(), Standing::Other);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        (ledger.list(&node()).await.unwrap()[0].version.unwrap().number(), ledger.writes.load(Ordering::SeqCst)),
        (8, 2)
    );
    // And won again before that.
    moods.set(&node(), Standing::Owner);
    log.delivered(&node(), &change(ObjectEvent::Update, 10));
    settled(&log).await;
    assert_eq!(ledger.list(&node()).await.unwrap()[0].version.unwrap().number(), 10);
    shutdown.cancel();
    running.await.unwrap();
}
