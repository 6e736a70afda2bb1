//! A Kubernetes API in memory, run by the world and not by its callers.

mod path;
mod serve;
mod store;
mod watch;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch as signal;

pub use self::path::Place;
use self::{serve::Pending, store::Change};
use crate::history::{Event, History};

/// What the API does to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trouble {
    /// Nobody can reach it; watches are cut.
    pub down: bool,
    /// Of 100 requests, so many are answered 503 and not carried out.
    pub refuses: u8,
    /// Of 100 requests, so many are carried out and their answers lost.
    pub loses_answers: u8,
    /// Longest time that a request is on its way, and its answer.
    pub latency: Duration,
}

/// A Kubernetes API. Cheap to clone; clones share everything.
///
/// Requests are carried out by `step`, which the world calls: one that has been sent is carried out
/// whether or not its sender is still there.
#[derive(Clone)]
pub struct Api(Arc<Mutex<State>>);

struct State {
    history: History,
    now: Duration,
    rng: fastrand::Rng,
    trouble: Trouble,
    objects: BTreeMap<Place, Value>,
    /// Every change, by its version.
    changes: Vec<Change>,
    version: u64,
    uids: u64,
    /// Watches from before this version are refused.
    compacted: u64,
    /// Up to which version watches of a kind are told.
    stalled: BTreeMap<String, u64>,
    /// Watches of an earlier epoch end.
    epoch: u64,
    requests: VecDeque<Pending>,
    replies: VecDeque<(Duration, serve::Reply)>,
    moved: signal::Sender<u64>,
}

impl Api {
    pub(crate) fn new(history: History, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            history,
            now: Duration::ZERO,
            rng: fastrand::Rng::with_seed(seed),
            trouble: Trouble::default(),
            objects: BTreeMap::new(),
            changes: Vec::new(),
            version: 100,
            uids: 0,
            compacted: 0,
            stalled: BTreeMap::new(),
            epoch: 0,
            requests: VecDeque::new(),
            replies: VecDeque::new(),
            moved: signal::Sender::new(0),
        })))
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::new(serve::Door(self.clone()), "default")
    }

    /// Carries out what is due at `now`.
    pub(crate) fn step(&self, now: Duration) {
        let mut state = self.lock();
        state.now = now;
        state.serve();
    }

    pub(crate) fn trouble(&self, trouble: Trouble) {
        let mut state = self.lock();
        state.trouble = trouble;
        if trouble.down {
            state.cut_watches();
        }
    }

    /// Ends all watches.
    pub(crate) fn cut_watches(&self) {
        self.lock().cut_watches();
    }

    /// Watches of `plural` get no news until [`flow`](Self::flow).
    pub(crate) fn stall(&self, plural: &str) {
        let mut state = self.lock();
        let version = state.version;
        state.stalled.entry(plural.to_owned()).or_insert(version);
    }

    /// All watches get all news.
    pub(crate) fn flow(&self) {
        let mut state = self.lock();
        state.stalled.clear();
        state.signal();
    }

    /// Forgets the versions up to now, so that watches have to list again.
    pub(crate) fn compact(&self) {
        let mut state = self.lock();
        state.compacted = state.version;
        state.cut_watches();
    }

    /// As an operator: makes an object, unless there is one.
    pub(crate) fn create(&self, place: &Place, mut object: Value) -> bool {
        let mut state = self.lock();
        if state.objects.contains_key(place) {
            return false;
        }
        object["metadata"]["name"] = place.name.as_str().into();
        if !place.namespace.is_empty() {
            object["metadata"]["namespace"] = place.namespace.as_str().into();
        }
        state.insert(place, object);
        true
    }

    /// As an operator: changes an object, if it is there.
    pub(crate) fn edit(&self, place: &Place, edit: impl FnOnce(&mut Value)) -> bool {
        let mut state = self.lock();
        let Some(mut object) = state.objects.get(place).cloned() else { return false };
        edit(&mut object);
        state.update(place, object);
        true
    }

    /// As an operator: deletes an object, if it is there.
    pub(crate) fn remove(&self, place: &Place) -> bool {
        self.lock().delete(place).is_some()
    }

    /// As an operator: asks for the end of a pod, which its node then confirms.
    pub(crate) fn terminate(&self, place: &Place) -> bool {
        self.edit(place, |pod| {
            if !pod["metadata"]["deletionTimestamp"].is_string() {
                pod["metadata"]["deletionTimestamp"] = "2027-01-01T00:00:00Z".into();
                pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
            }
        })
    }

    /// All objects.
    pub fn objects(&self) -> BTreeMap<Place, Value> {
        self.lock().objects.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cut_watches(&mut self) {
        self.epoch += 1;
        self.signal();
    }

    fn signal(&self) {
        self.moved.send_modify(|moved| *moved += 1);
    }

    fn note(&self, event: Event) {
        self.history.add(event);
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("version", &self.lock().version).finish_non_exhaustive()
    }
}
