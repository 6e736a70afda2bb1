use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    meta::{MetaError, MetaEvent, MetaKey, MetaStore, MetaWrite, Record, Revision, Selector},
    service::Subscription,
};

/// Commits that a watch can reach back to.
const HISTORY: usize = 1024;

/// A metadata store in memory. Clones share the records, so a clone taken before a "crash" is what the disk would hold.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<MetaEvent>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<MetaKey, Record>,
    revision: Revision,
    history: VecDeque<MetaEvent>,
    forgotten: Revision,
    fail_commits: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { state: Arc::default(), events: broadcast::channel(HISTORY).0 }
    }

    /// Lets every commit of something fail, as a full or broken disk does, or heals it.
    pub fn fail_commits(&self, fail: bool) {
        self.lock().fail_commits = fail;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn revision_of(event: &MetaEvent) -> Revision {
    match event {
        MetaEvent::Put(record) => record.revision,
        MetaEvent::Deleted(_, revision) => *revision,
        MetaEvent::Lagged(_) => Revision::default(),
    }
}

fn selected(select: &Selector, event: &MetaEvent) -> bool {
    match event {
        MetaEvent::Put(record) => select.matches(&record.key),
        MetaEvent::Deleted(key, _) => select.matches(key),
        MetaEvent::Lagged(_) => true,
    }
}

#[async_trait]
impl MetaStore for MemoryStore {
    async fn get(&self, key: MetaKey) -> Result<Option<Record>, MetaError> {
        Ok(self.lock().records.get(&key).cloned())
    }

    async fn list(&self, select: Selector) -> Result<Vec<Record>, MetaError> {
        Ok(self.lock().records.values().filter(|record| select.matches(&record.key)).cloned().collect())
    }

    async fn commit(&self, writes: Vec<MetaWrite>) -> Result<Revision, MetaError> {
        let mut state = self.lock();
        if state.fail_commits && !writes.is_empty() {
            return Err(MetaError::Failed("commits are told to fail".into()));
        }
        for write in &writes {
            let found = state.records.get(write.key()).map(|record| record.revision);
            if !write.only_if().holds(found) {
                return Err(MetaError::Conflict { key: write.key().clone() });
            }
        }
        state.revision.0 += 1;
        let revision = state.revision;
        for write in writes {
            let event = match write {
                MetaWrite::Put(mut record, _) => {
                    record.revision = revision;
                    state.records.insert(record.key.clone(), record.clone());
                    MetaEvent::Put(record)
                }
                MetaWrite::Delete(key, _) if state.records.remove(&key).is_some() => MetaEvent::Deleted(key, revision),
                MetaWrite::Delete(..) => continue,
            };
            if state.history.len() == HISTORY
                && let Some(oldest) = state.history.pop_front()
            {
                state.forgotten = revision_of(&oldest);
            }
            state.history.push_back(event.clone());
            // Nobody watching is fine.
            let _ = self.events.send(event);
        }
        Ok(revision)
    }

    async fn watch(&self, select: Selector, after: Revision) -> Result<Subscription<MetaEvent>, MetaError> {
        let (missed, live) = {
            let state = self.lock();
            let mut missed: Vec<_> = state
                .history
                .iter()
                .filter(|event| revision_of(event) > after && selected(&select, event))
                .cloned()
                .collect();
            if after < state.forgotten {
                missed.insert(0, MetaEvent::Lagged(state.forgotten.0 - after.0));
            }
            (missed, self.events.subscribe())
        };
        let live = futures_util::stream::unfold((live, select), |(mut live, select)| async move {
            loop {
                let event = match live.recv().await {
                    Ok(event) if selected(&select, &event) => event,
                    Ok(_) => continue,
                    Err(broadcast::error::RecvError::Lagged(count)) => MetaEvent::Lagged(count),
                    Err(broadcast::error::RecvError::Closed) => return None,
                };
                return Some((event, (live, select)));
            }
        });
        let items = futures_util::StreamExt::chain(futures_util::stream::iter(missed), live);
        Ok(Subscription::new(items, CancellationToken::new()))
    }
}
