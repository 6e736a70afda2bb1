//! The store: all objects in memory, every change in SQLite before anybody hears of it.
//!
//! One thread owns the database and makes all changes, several of them in one commit when they come fast. Readers see
//! the state as of the last commit. Each resource keeps a bounded history of its changes, from which watches are fed.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{registry::Registry, selector::FieldSelector, status::ApiError};

mod cache;
mod collector;
mod object;
mod sqlite;
mod transaction;
mod writer;

pub(crate) use cache::Since;
pub(crate) use object::{Change, ChangeKind, Key, Object};
pub use sqlite::StoreError;
pub(crate) use transaction::Transaction;

use cache::Cache;
use writer::{Job, Loaded};

/// Writes that may wait for the database; a further one waits for a place.
const WRITE_QUEUE: usize = 1024;

/// The time, as milliseconds matter to nobody here.
pub(crate) type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// A handle to the store. The writer thread ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Store {
    state: State,
    jobs: mpsc::Sender<Job>,
    clock: Clock,
    secrets: Arc<Secrets>,
}

/// Secrets that live in the database.
pub(crate) struct Secrets {
    pub(crate) admin_token: String,
    pub(crate) signing_key: String,
}

/// The readable part, which does not keep the writer alive.
#[derive(Clone)]
pub(crate) struct State {
    cache: Arc<RwLock<Cache>>,
    closed: CancellationToken,
}

/// Objects of one resource at one version of the store.
pub(crate) struct Listing {
    pub(crate) version: u64,
    pub(crate) objects: Vec<Arc<Object>>,
}

impl Store {
    /// Opens the database (in memory without a path), loads what it holds and starts the writer.
    pub(crate) async fn open(path: Option<PathBuf>, clock: Clock) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel(WRITE_QUEUE);
        let (opened, answer) = oneshot::channel();
        let closed = CancellationToken::new();
        writer::spawn(path, queue, opened, clock.clone(), closed.clone())?;
        let Loaded { cache, admin_token, signing_key } = answer.await.map_err(|_| StoreError::Closed)??;
        let secrets = Arc::new(Secrets { admin_token, signing_key });
        Ok(Self { state: State { cache, closed }, jobs, clock, secrets })
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        (self.clock)()
    }

    /// Runs `change` on the writer and answers once its effect is committed.
    ///
    /// With `dry` set, everything is checked and nothing is kept.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may or may not take effect.
    pub(crate) async fn write<T, F>(&self, dry: bool, change: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, ApiError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            let outcome = change(transaction);
            let keep = outcome.is_ok() && !dry;
            let deliver = Box::new(move |committed: Result<(), String>| {
                let outcome = match committed {
                    Err(why) if keep => Err(ApiError::internal(format!("the change could not be stored: {why}"))),
                    _ => outcome,
                };
                // The caller may have gone.
                drop(answer.send(outcome));
            });
            (keep, deliver)
        });
        self.jobs.send(job).await.map_err(|_| ApiError::unavailable("the store is closed"))?;
        result.await.map_err(|_| ApiError::unavailable("the store is closed"))?
    }
}

impl State {
    fn cache(&self) -> RwLockReadGuard<'_, Cache> {
        // Readers never leave it half changed and the writer swaps whole values in.
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled when the store is closed.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.cache().registry().clone()
    }

    pub(crate) fn version(&self) -> u64 {
        self.cache().version()
    }

    pub(crate) fn get(&self, resource: &str, key: &Key) -> Option<Arc<Object>> {
        self.cache().get(resource, key).cloned()
    }

    /// The objects of a resource now, those of one namespace if it is given.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>, fields: &FieldSelector) -> Listing {
        let cache = self.cache();
        let objects = match (namespace, fields.exact_name()) {
            (Some(namespace), Some(name)) => {
                let key = Key { namespace: namespace.into(), name: name.into() };
                cache.get(resource, &key).cloned().into_iter().collect()
            }
            _ => cache.list(resource, namespace),
        };
        Listing { version: cache.version(), objects }
    }

    /// The objects of a resource as they were at `version`, as far back as the history reaches, from the one that follows
    /// `after` on.
    pub(crate) fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&Key>,
        version: u64,
    ) -> Option<Listing> {
        let objects = self.cache().list_at(resource, namespace, after, version)?;
        Some(Listing { version, objects })
    }

    /// The changes of a resource after `version`, at most `most` of them.
    pub(crate) fn changes(&self, resource: &str, version: u64, most: usize) -> Since {
        self.cache().changes(resource, version, most)
    }

    /// A receiver that wakes whenever the resource has changed; none if the resource is not served.
    pub(crate) fn subscribe(&self, resource: &str) -> Option<watch::Receiver<()>> {
        self.cache().subscribe(resource)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("version", &self.state.version()).finish_non_exhaustive()
    }
}
