use kubeedge_core::{
    meta::{MetaError, MetaEvent, MetaHandle, MetaKey, Record, Selector},
    service::Subscription,
};

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
}

impl Follower {
    /// Follows `select` in `store`; nothing is asked of the store before [`Follower::next`].
    pub fn new(store: MetaHandle, select: Selector) -> Self {
        Self { store, select, watch: None }
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
    use kubeedge_core::{meta::Collection, testing::MemoryStore};

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
}
