//! The metadata store of an edge: what is on it survives a crash, and nothing else.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use kubeedge_core::{
    meta::{Collection, MetaError, MetaEvent, MetaKey, MetaStore, MetaWrite, Precondition, Record, Revision, Selector},
    names::{NodeName, ResourceVersion},
    outbox,
    service::Subscription,
    testing::MemoryStore,
};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{
    history::{Copy, Event, History},
    mutation::Mutation,
};

type Result<T> = std::result::Result<T, MetaError>;

/// A disk with a metadata store on it. Cheap to clone; clones share everything.
///
/// Commits are carried out in order by `step`, which the world calls, whether or not the caller still waits: so does the
/// thread of a real store. A commit is durable at one step, and its caller knows at a later one.
#[derive(Clone)]
pub struct Disk {
    edge: NodeName,
    history: History,
    memory: MemoryStore,
    state: Arc<Mutex<State>>,
}

struct State {
    now: Duration,
    rng: fastrand::Rng,
    mutation: Mutation,
    full: bool,
    /// Longest time that a commit takes.
    latency: Duration,
    commits: VecDeque<Commit>,
    done: VecDeque<(Duration, Caller, Result<Revision>)>,
    /// What the last change of an object has replaced.
    replaced: Option<Record>,
}

type Caller = oneshot::Sender<Result<Revision>>;

struct Commit {
    due: Duration,
    writes: Vec<MetaWrite>,
    /// Nobody, if the caller has been told already.
    caller: Option<Caller>,
}

impl Disk {
    pub(crate) fn new(edge: NodeName, history: History, seed: u64, mutation: Mutation) -> Self {
        let state = State {
            now: Duration::ZERO,
            rng: fastrand::Rng::with_seed(seed),
            mutation,
            full: false,
            latency: Duration::from_millis(10),
            commits: VecDeque::new(),
            done: VecDeque::new(),
            replaced: None,
        };
        Self { edge, history, memory: MemoryStore::new(), state: Arc::new(Mutex::new(state)) }
    }

    /// Takes no more commits, or takes them again.
    pub(crate) fn full(&self, full: bool) {
        self.lock().full = full;
    }

    /// How long commits take at most.
    pub(crate) fn latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// The power fails: what is not yet durable never will be.
    pub(crate) fn crash(&self) {
        let mut state = self.lock();
        state.commits.clear();
        state.done.clear();
        if state.mutation == Mutation::DiskReverts
            && let Some(older) = state.replaced.take()
        {
            drop(self.apply(vec![MetaWrite::Put(older, Precondition::Always)]));
        }
        if state.mutation == Mutation::DiskForgets {
            let found = self.objects();
            if !found.is_empty() {
                let record = &found[state.rng.usize(..found.len())];
                let write = MetaWrite::Delete(record.key.clone(), Precondition::Always);
                drop(self.memory.commit(vec![write]).now_or_never());
            }
        }
    }

    /// Carries out what is due at `now`.
    pub(crate) fn step(&self, now: Duration) {
        let mut state = self.lock();
        state.now = now;
        while state.commits.front().is_some_and(|first| first.due <= now) {
            let Some(commit) = state.commits.pop_front() else { break };
            if state.mutation == Mutation::DiskReverts
                && let Some(older) = commit.writes.iter().find_map(|write| self.replaces(write))
            {
                state.replaced = Some(older);
            }
            let outcome =
                if state.full && !commit.writes.is_empty() { Err(MetaError::Full) } else { self.apply(commit.writes) };
            if let Some(caller) = commit.caller {
                let due = now + state.delay();
                state.done.push_back((due, caller, outcome));
            }
        }
        while state.done.front().is_some_and(|(due, ..)| *due < now) {
            let Some((_, caller, outcome)) = state.done.pop_front() else { break };
            // Whoever asked may have gone.
            drop(caller.send(outcome));
        }
    }

    fn apply(&self, writes: Vec<MetaWrite>) -> Result<Revision> {
        let events: Vec<Event> = writes.iter().filter_map(|write| self.event(write)).collect();
        let outcome = self.memory.commit(writes).now_or_never().unwrap_or(Err(MetaError::Busy));
        if outcome.is_ok() {
            for event in events {
                self.history.add(event);
            }
        }
        outcome
    }

    /// The object of Kubernetes that a write replaces by another version.
    fn replaces(&self, write: &MetaWrite) -> Option<Record> {
        let MetaWrite::Put(record, _) = write else { return None };
        let there = self.memory.get(record.key.clone()).now_or_never()?.ok()??;
        (there.version.is_some() && there.version < record.version).then_some(there)
    }

    /// What a write does, if that counts.
    fn event(&self, write: &MetaWrite) -> Option<Event> {
        let (edge, key) = (self.edge.clone(), write.key().clone());
        let there = self.memory.get(key.clone()).now_or_never()?.ok()?;
        let in_outbox = key.collection == Collection::outbox();
        match write {
            MetaWrite::Put(record, _) if in_outbox => {
                let (uid, number) = report(record)?;
                Some(Event::Left { edge, subject: key.name.to_string(), uid, number })
            }
            MetaWrite::Put(record, _) => Some(Event::Stored { edge, key, object: Some(copy(record)?) }),
            // What is not taken away conditionally is taken back.
            MetaWrite::Delete(_, Precondition::Unchanged(_)) if in_outbox => {
                let (uid, number) = report(&there?)?;
                Some(Event::Settled { edge, subject: key.name.to_string(), uid, number })
            }
            MetaWrite::Delete(..) => {
                copy(&there?)?;
                Some(Event::Stored { edge, key, object: None })
            }
            _ => None,
        }
    }

    /// All records of objects of Kubernetes.
    pub fn objects(&self) -> Vec<Record> {
        let collections = ["node", "pod", "configmap", "secret", "device", "devicemodel"];
        collections.into_iter().flat_map(|name| self.records(Collection::new(name).ok())).collect()
    }

    /// The entries of the outbox.
    pub fn outbox(&self) -> Vec<Record> {
        self.records(Some(Collection::outbox()))
    }

    fn records(&self, collection: Option<Collection>) -> Vec<Record> {
        let listed = collection.and_then(|of| self.memory.list(Selector::all(of)).now_or_never());
        listed.and_then(std::result::Result::ok).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn delay(&mut self) -> Duration {
        self.latency.mul_f64(self.rng.f64())
    }
}

/// An object of Kubernetes; what has no UID is the node's own.
pub(crate) fn copy(record: &Record) -> Option<Copy> {
    Some(Copy {
        uid: record.uid.as_ref()?.to_string(),
        version: record.version.map_or(0, ResourceVersion::number),
        json: String::from_utf8_lossy(&record.value).into_owned(),
    })
}

/// The UID and the number in an entry of the outbox.
fn report(entry: &Record) -> Option<(String, u64)> {
    let patch: Value = outbox::message(entry).ok()?.content.parse().ok()?;
    let number = patch["status"]["message"].as_str()?.parse().ok()?;
    Some((patch["metadata"]["uid"].as_str()?.to_owned(), number))
}

#[async_trait]
impl MetaStore for Disk {
    async fn get(&self, key: MetaKey) -> Result<Option<Record>> {
        self.memory.get(key).await
    }

    async fn list(&self, select: Selector) -> Result<Vec<Record>> {
        self.memory.list(select).await
    }

    async fn commit(&self, writes: Vec<MetaWrite>) -> Result<Revision> {
        let (caller, committed) = oneshot::channel();
        {
            let mut state = self.lock();
            let due = state.now + state.delay();
            // One writer.
            let due = state.commits.back().map_or(due, |last| due.max(last.due));
            if state.mutation == Mutation::DiskLies {
                state.commits.push_back(Commit { due, writes, caller: None });
                return Ok(Revision::default());
            }
            state.commits.push_back(Commit { due, writes, caller: Some(caller) });
        }
        committed.await.unwrap_or(Err(MetaError::Closed))
    }

    async fn watch(&self, select: Selector, after: Revision) -> Result<Subscription<MetaEvent>> {
        self.memory.watch(select, after).await
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("edge", &self.edge).finish_non_exhaustive()
    }
}
