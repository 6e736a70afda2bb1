//! The thread that makes all changes.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use kubeedge_core::service::Causes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Clock,
    cache::Cache,
    collector::Collector,
    sqlite::{Database, StoreError},
    transaction::{Overlay, Transaction},
};

/// Requests that share one commit at most.
const BATCH: usize = 128;

/// Told how the commit went.
pub(super) type Deliver = Box<dyn FnOnce(Result<(), String>) + Send>;

/// One request: works on the transaction, says whether its changes are kept, and is told how the commit went.
pub(super) type Job = Box<dyn FnOnce(&mut Transaction<'_>) -> (bool, Deliver) + Send>;

type Opened = oneshot::Sender<Result<Loaded, StoreError>>;

/// What an opened database holds.
pub(super) struct Loaded {
    pub(super) cache: Arc<RwLock<Cache>>,
    pub(super) admin_token: String,
    pub(super) signing_key: String,
}

pub(super) fn spawn(
    path: Option<PathBuf>,
    jobs: mpsc::Receiver<Job>,
    opened: Opened,
    clock: Clock,
    closed: CancellationToken,
) -> Result<(), StoreError> {
    let run = move || {
        // Also when this thread panics: nobody may wait for changes that no longer come.
        let _closed = closed.drop_guard();
        let started = Database::open(path.as_deref()).and_then(|database| {
            let secrets = (database.secret("admin-token")?, database.secret("signing-key")?);
            let cache = database.load()?;
            Ok((database, cache, secrets))
        });
        match started {
            Err(error) => drop(opened.send(Err(error.at(path.as_deref())))),
            Ok((database, cache, (admin_token, signing_key))) => {
                let collector = Collector::new(&cache);
                let cache = Arc::new(RwLock::new(cache));
                if opened.send(Ok(Loaded { cache: cache.clone(), admin_token, signing_key })).is_ok() {
                    Writer { database, cache, collector, clock }.run(jobs);
                }
            }
        }
    };
    std::thread::Builder::new().name("apiserver-store".to_owned()).spawn(run).map_err(StoreError::Thread)?;
    Ok(())
}

struct Writer {
    database: Database,
    cache: Arc<RwLock<Cache>>,
    collector: Collector,
    clock: Clock,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // While there is something to collect, requests go first but are not waited for.
            if self.collector.is_idle() {
                match jobs.blocking_recv() {
                    Some(job) => batch.push(job),
                    None => return,
                }
            }
            while batch.len() < BATCH {
                match jobs.try_recv() {
                    Ok(job) => batch.push(job),
                    Err(mpsc::error::TryRecvError::Disconnected) if batch.is_empty() => return,
                    Err(_) => break,
                }
            }
            self.run_batch(&mut batch);
        }
    }

    fn run_batch(&mut self, batch: &mut Vec<Job>) {
        let now = (self.clock)();
        let mut overlay = Overlay::new();
        let (mut changes, mut delivers) = (Vec::new(), Vec::with_capacity(batch.len()));
        let work = self.collector.next();
        let version = {
            // This thread is the only one that ever takes the lock for writing.
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            let mut version = cache.version();
            for job in batch.drain(..) {
                let mut transaction = Transaction::new(&cache, &overlay, version, now);
                let (keep, deliver) = job(&mut transaction);
                delivers.push(deliver);
                if keep {
                    let (own, made, reached) = transaction.finish();
                    overlay.extend(own);
                    changes.extend(made);
                    version = reached;
                }
            }
            if let Some(work) = &work {
                let mut transaction = Transaction::new(&cache, &overlay, version, now);
                self.collector.extend(work.run(&mut transaction));
                let (_, made, reached) = transaction.finish();
                changes.extend(made);
                version = reached;
            }
            version
        };
        let committed = if changes.is_empty() { Ok(()) } else { self.database.commit(&changes, version) };
        match committed {
            Ok(()) => {
                if !changes.is_empty() {
                    self.collector.observe(&changes, now);
                    let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
                    cache.commit(changes, version);
                }
                for deliver in delivers {
                    deliver(Ok(()));
                }
            }
            Err(error) => {
                let why = Causes(&error).to_string();
                tracing::error!(error = %why, "changes could not be stored");
                self.collector.postpone(work);
                for deliver in delivers {
                    deliver(Err(why.clone()));
                }
            }
        }
    }
}
