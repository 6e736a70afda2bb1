//! A list and a watch of a collection as one stream of changes.

use std::{collections::VecDeque, time::Duration};

use kubeedge_core::{
    meta::{Collection, MetaError, MetaEvent, MetaHandle, MetaKey, Record, Revision, Selector},
    service::Subscription,
};

/// How long a failing store is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// A change of a collection.
#[derive(Debug)]
pub(crate) enum Change {
    /// These are all of the records; what is not among them is gone.
    All(Vec<Record>),
    /// A record is new or was replaced.
    Put(Record),
    /// A record is gone.
    Deleted(MetaKey),
}

/// Follows a collection, listing it again whenever the watch has a gap.
pub(crate) struct Follow {
    store: MetaHandle,
    select: Selector,
    watch: Option<Subscription<MetaEvent>>,
    /// Newest revision that was listed: what is not newer was seen.
    listed: Option<Revision>,
    ready: VecDeque<Change>,
    pause: bool,
}

impl Follow {
    pub(crate) fn new(store: MetaHandle, collection: Collection) -> Self {
        let select = Selector::all(collection);
        Self { store, select, watch: None, listed: None, ready: VecDeque::new(), pause: false }
    }

    /// The next change; the first is everything.
    ///
    /// # Cancel safety
    /// No change is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            if self.pause {
                tokio::time::sleep(PAUSE).await;
                self.pause = false;
            }
            if let Err(error) = self.step().await {
                tracing::warn!(collection = %self.select.collection, error = %error, "store cannot be followed");
                self.pause = true;
            }
        }
    }

    async fn step(&mut self) -> Result<(), MetaError> {
        let Some(listed) = self.listed else {
            let records = self.store.list(self.select.clone()).await?;
            let newest = records.iter().map(|record| record.revision).max();
            self.listed = Some(newest.unwrap_or_default());
            self.ready.push_back(Change::All(records));
            return Ok(());
        };
        let Some(watch) = &mut self.watch else {
            self.watch = Some(self.store.watch(self.select.clone(), listed).await?);
            return Ok(());
        };
        match watch.next().await {
            Some(MetaEvent::Put(record)) if record.revision > listed => self.ready.push_back(Change::Put(record)),
            Some(MetaEvent::Deleted(key, at)) if at > listed => self.ready.push_back(Change::Deleted(key)),
            // The watch goes on behind the gap; only the list is made again.
            Some(MetaEvent::Lagged(_)) => self.listed = None,
            Some(_) => {}
            None => {
                self.watch = None;
                self.listed = None;
                self.pause = true;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt as _;
    use kubeedge_core::{meta::MetaService, testing::MemoryStore};

    use super::*;

    fn record(name: &str) -> Record {
        Record::new(MetaKey::new(Collection::new("pod").unwrap(), "shop", name), "{}")
    }

    #[tokio::test]
    async fn changes_come_once_and_a_gap_is_closed_by_a_new_list() {
        let store = MetaHandle::new(MetaService::new(MemoryStore::new()));
        store.put(record("a")).await.unwrap();
        let mut follow = Follow::new(store.clone(), Collection::new("pod").unwrap());
        assert!(matches!(follow.next().await, Change::All(records) if records.len() == 1));
        store.put(record("b")).await.unwrap();
        assert!(matches!(follow.next().await, Change::Put(record) if &*record.key.name == "b"));
        store.delete(record("a").key).await.unwrap();
        assert!(matches!(follow.next().await, Change::Deleted(key) if &*key.name == "a"));
        assert!(follow.next().now_or_never().is_none(), "nothing comes twice");

        for n in 0..3000 {
            store.put(record(&format!("n{n}"))).await.unwrap();
        }
        let mut records = match follow.next().await {
            Change::All(records) => records.len(),
            other => panic!("the gap is not noticed: {other:?}"),
        };
        store.put(record("last")).await.unwrap();
        while records < 3002 {
            match follow.next().await {
                Change::Put(record) if &*record.key.name == "last" => records += 1,
                Change::All(all) => records = all.len(),
                other => panic!("seen before: {other:?}"),
            }
        }
        assert_eq!(records, 3002);
    }
}
