use std::time::Duration;

use kubeedge_core::{
    meta::{MetaError, MetaEvent, MetaHandle, MetaKey, Record, Selector},
    service::{Causes, Subscription},
};
use tokio::time::{Instant, sleep_until};

/// How long a store that fails is left alone: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a [`Follower`] sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All selected records as they are now; what is not among them is gone. First, and again after falling behind.
    Listed(Vec<Record>),
    /// A record was written.
    Put(Record),
    /// A record was removed.
    Deleted(MetaKey),
}

/// Follows the selected records of a store: all of them first, then each change, and all of them again when too many
/// changes came at once.
#[derive(Debug)]
pub struct Follower {
    store: MetaHandle,
    select: Selector,
    watch: Option<Subscription<MetaEvent>>,
    /// Until when the store is left alone.
    again: Option<Instant>,
    pause: Duration,
}

impl Follower {
    /// Follows `select` in `store`; nothing is asked of the store before [`Follower::next`].
    pub fn new(store: MetaHandle, select: Selector) -> Self {
        Self { store, select, watch: None, again: None, pause: PAUSES.0 }
    }

    /// The next change.
    ///
    /// # Errors
    /// What the store said. [`MetaError::Closed`] when it ended; after any other error the next call lists again.
    ///
    /// # Cancel safety
    /// No change is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Change, MetaError> {
        loop {
            let Some(watch) = &mut self.watch else { return self.list().await };
            match watch.next().await {
                Some(MetaEvent::Put(record)) => return Ok(Change::Put(record)),
                Some(MetaEvent::Deleted(key, _)) => return Ok(Change::Deleted(key)),
                Some(MetaEvent::Lagged(missed)) => {
                    tracing::debug!(missed, collection = %self.select.collection, "fell behind the store, listing again");
                    self.watch = None;
                }
                Some(_) => {}
                None => return Err(MetaError::Closed),
            }
        }
    }

    /// The next change, however long the store fails: it is asked again after 1 s, then 2, 4 and so on up to 30 s, and
    /// each failure is told as a warning. `None` when the store is closed.
    ///
    /// # Cancel safety
    /// No change is lost when the future is dropped, and a pause goes on.
    pub async fn next_patiently(&mut self) -> Option<Change> {
        loop {
            if let Some(again) = self.again {
                sleep_until(again).await;
                self.again = None;
            }
            match self.next().await {
                Ok(change) => {
                    self.pause = PAUSES.0;
                    return Some(change);
                }
                Err(MetaError::Closed) => return None,
                Err(error) => {
                    let collection = &self.select.collection;
                    tracing::warn!(%collection, error = %Causes(&error), "store cannot be followed, trying again");
                    self.again = Some(Instant::now() + self.pause);
                    self.pause = (self.pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    async fn list(&mut self) -> Result<Change, MetaError> {
        // An empty commit changes nothing and tells where the store is: the watch starts there, so nothing between it
        // and the list is missed. What comes twice is the same record again.
        let at = self.store.commit(Vec::new()).await?;
        let watch = self.store.watch(self.select.clone(), at).await?;
        let records = self.store.list(self.select.clone()).await?;
        self.watch = Some(watch);
        Ok(Change::Listed(records))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use futures_util::FutureExt as _;
    use kubeedge_core::{
        meta::{Collection, MetaRequest},
        testing::MemoryStore,
    };
    use tower::ServiceExt as _;

    use super::*;

    fn record(name: &str, value: &str) -> Record {
        Record::new(MetaKey::new(Collection::twins(), "default", name), value.to_owned())
    }

    #[tokio::test]
    async fn a_follower_that_fell_behind_lists_again() {
        let store = MetaHandle::of(MemoryStore::new());
        store.put(record("early", "1")).await.unwrap();
        let mut follower = Follower::new(store.clone(), Selector::all(Collection::twins()));
        let Change::Listed(listed) = follower.next().await.unwrap() else { panic!("a list comes first") };
        assert_eq!(listed.len(), 1);
        // More than a store keeps for a watcher that does not read.
        for count in 0..3000 {
            store.put(record("busy", &count.to_string())).await.unwrap();
        }
        store.delete(record("early", "").key).await.unwrap();
        let Change::Listed(listed) = follower.next().await.unwrap() else { panic!("missed changes went unnoticed") };
        assert_eq!(listed.iter().map(|record| &*record.value).collect::<Vec<_>>(), [b"2999"]);
        store.put(record("late", "1")).await.unwrap();
        assert!(matches!(follower.next().await.unwrap(), Change::Put(late) if &*late.key.name == "late"));
    }

    #[tokio::test]
    async fn each_change_comes_once_and_in_order() {
        let store = MetaHandle::of(MemoryStore::new());
        store.put(record("a", "1")).await.unwrap();
        let mut follower = Follower::new(store.clone(), Selector::all(Collection::twins()));
        assert!(matches!(follower.next().await.unwrap(), Change::Listed(all) if all.len() == 1));
        store.put(record("b", "1")).await.unwrap();
        store.delete(record("a", "").key).await.unwrap();
        assert!(matches!(follower.next().await.unwrap(), Change::Put(new) if &*new.key.name == "b"));
        assert!(matches!(follower.next().await.unwrap(), Change::Deleted(key) if &*key.name == "a"));
        assert!(follower.next().now_or_never().is_none(), "nothing comes twice");
    }

    /// A store that fails as often as it is told to, and counts how often it was asked.
    fn failing(failures: u64) -> (MetaHandle, Arc<AtomicU64>) {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let store = MetaHandle::of(MemoryStore::new());
        let service = tower::service_fn(move |request: MetaRequest| {
            let (store, busy) = (store.clone(), count.fetch_add(1, Ordering::Relaxed) < failures);
            async move { if busy { Err(MetaError::Busy.into()) } else { store.oneshot(request).await } }
        });
        (MetaHandle::new(service), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_store_is_asked_ever_more_rarely_however_often_somebody_waits() {
        let (store, asked) = failing(8);
        let mut follower = Follower::new(store, Selector::all(Collection::twins()));
        let start = Instant::now();
        let change = loop {
            // As in a loop in which something else happens all the time.
            let wait = follower.next_patiently();
            if let Ok(change) = tokio::time::timeout(Duration::from_millis(10), wait).await {
                break change;
            }
        };
        assert!(matches!(change, Some(Change::Listed(_))));
        let waited = start.elapsed().as_secs();
        assert!((121..=123).contains(&waited), "1, 2, 4, 8, 16 and three times 30 s: {waited} s");
        assert!(asked.load(Ordering::Relaxed) < 20, "it is left alone meanwhile");
    }
}
