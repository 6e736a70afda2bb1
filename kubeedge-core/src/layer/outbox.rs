//! Keeps the outbox within its limits, whoever writes to it.

mod tally;
#[cfg(test)]
mod tests;

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex as AsyncMutex, RwLock, RwLockReadGuard};
use tower::ServiceExt as _;
use tower_layer::Layer;
use tower_service::Service;

use self::tally::{Plan, Tally};
use crate::{
    meta::{MetaError, MetaRequest, MetaResponse, MetaWrite, Revision},
    outbox::{self, Entry, OutboxLimits},
    service::BoxError,
};

/// Keeps the [outbox](crate::outbox) in a metadata store within its limits, and numbers the entries of its streams.
///
/// * A commit that would add a subject of state beyond the limit fails with [`MetaError::OutboxFull`], and nothing of it
///   is done: whoever reports knows. Replacing an entry always works.
/// * An append to a full stream removes the oldest entries of that stream in the same commit, or fails likewise if its
///   writer asked for that. A commit that alone is more than its stream may hold fails in any case.
///
/// What is there is listed once, before the first commit that touches the outbox, and again after a commit of which
/// nobody knows whether it was done; from then on the layer follows the commits that pass through it. So all writers
/// have to use the same layered service. In memory it keeps keys and sizes, not messages. Appends go one at a time, in
/// the order of their numbers; other commits go side by side.
///
/// A layer is for one store; its clones share what they know. Commits that do not touch the outbox, and all reads, pass
/// untouched.
#[derive(Clone, Debug)]
pub struct OutboxLayer(Arc<Shared>);

impl OutboxLayer {
    /// Keeps the outbox within `limits`.
    pub fn new(limits: OutboxLimits) -> Self {
        let shared = Shared {
            tally: Mutex::new(Tally::new(limits)),
            listing: RwLock::new(()),
            appending: AsyncMutex::new(()),
            drops: OutboxDrops::default(),
        };
        Self(Arc::new(shared))
    }

    /// How many entries of streams were dropped.
    pub fn drops(&self) -> OutboxDrops {
        self.0.drops.clone()
    }
}

impl Default for OutboxLayer {
    fn default() -> Self {
        Self::new(OutboxLimits::default())
    }
}

impl<S> Layer<S> for OutboxLayer {
    type Service = OutboxLimited<S>;
    fn layer(&self, inner: S) -> OutboxLimited<S> {
        OutboxLimited { inner, shared: Arc::clone(&self.0) }
    }
}

/// Counts entries of streams that were dropped because newer ones needed the room. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OutboxDrops(Arc<AtomicU64>);

impl OutboxDrops {
    /// How many since the start.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Shared {
    tally: Mutex<Tally>,
    /// Held alone while the store is listed, so that nothing is under way then; shared by commits.
    listing: RwLock<()>,
    appending: AsyncMutex<()>,
    drops: OutboxDrops,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn commit<S>(&self, store: S, writes: Vec<MetaWrite>) -> Result<MetaResponse, BoxError>
    where
        S: Service<MetaRequest, Response = MetaResponse> + Clone,
        S::Error: Into<BoxError>,
    {
        let appends = writes.iter().any(|write| {
            matches!(write, MetaWrite::Put(record, _) if matches!(Entry::of(&record.key), Some(Entry::Stream(..))))
        });
        let mut writes = Some(writes);
        let (reserved, writes, _guards) = loop {
            let shared = self.knowing(&store).await?;
            let first = if appends { Some(self.appending.lock().await) } else { None };
            // A doubt may have come up while this waited.
            if let Some((reserved, writes)) = Reserved::new(self, &mut writes)? {
                break (reserved, writes, (shared, first));
            }
        };
        let answer = store.oneshot(MetaRequest::Commit(writes)).await.map_err(|error| MetaError::from(error.into()));
        match answer {
            Ok(MetaResponse::Committed(revision)) => {
                reserved.done(revision);
                Ok(MetaResponse::Committed(revision))
            }
            Ok(other) => Ok(other),
            Err(error) => {
                if error.changed_nothing() {
                    reserved.undone();
                }
                Err(error.into())
            }
        }
    }

    /// Waits until what is in the store is known; it stays so while the guard is held, but for doubts.
    async fn knowing<S>(&self, store: &S) -> Result<RwLockReadGuard<'_, ()>, BoxError>
    where
        S: Service<MetaRequest, Response = MetaResponse> + Clone,
        S::Error: Into<BoxError>,
    {
        loop {
            let shared = self.listing.read().await;
            if self.tally().is_known() {
                return Ok(shared);
            }
            drop(shared);
            let _alone = self.listing.write().await;
            if self.tally().is_known() {
                continue;
            }
            // Behind it in the queue of the store is what was given up while it was under way.
            store.clone().oneshot(MetaRequest::Commit(Vec::new())).await.map_err(Into::into)?;
            match store.clone().oneshot(MetaRequest::List(outbox::selector())).await.map_err(Into::into)? {
                MetaResponse::Records(records) => self.tally().load(&records),
                _ => return Err(MetaError::Failed("not an answer to list".into()).into()),
            }
        }
    }
}

/// Room for a commit that is under way. Dropped, nobody knows what became of the commit.
struct Reserved<'a> {
    shared: &'a Shared,
    plan: Option<Plan>,
}

impl<'a> Reserved<'a> {
    /// `None`, and `writes` left as they are, if it is not known what is in the store.
    fn new(
        shared: &'a Shared,
        writes: &mut Option<Vec<MetaWrite>>,
    ) -> Result<Option<(Self, Vec<MetaWrite>)>, MetaError> {
        let mut tally = shared.tally();
        if !tally.is_known() {
            return Ok(None);
        }
        let mut plan = tally.plan(writes.take().unwrap_or_default()).map_err(MetaError::OutboxFull)?;
        let writes = mem::take(&mut plan.writes);
        Ok(Some((Self { shared, plan: Some(plan) }, writes)))
    }

    fn done(mut self, revision: Revision) {
        let Some(plan) = self.plan.take() else { return };
        let dropped = self.shared.tally().done(plan, revision);
        for dropped in dropped {
            self.shared.drops.0.fetch_add(dropped.entries, Ordering::Relaxed);
            if dropped.is_news {
                tracing::warn!(stream = %dropped.stream, "stream of the outbox is full, its oldest entries are dropped");
            }
        }
    }

    fn undone(mut self) {
        if let Some(plan) = self.plan.take() {
            self.shared.tally().undone(plan);
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(plan) = self.plan.take() {
            self.shared.tally().doubt(plan);
        }
    }
}

/// Service made by [`OutboxLayer`].
#[derive(Clone)]
pub struct OutboxLimited<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S: fmt::Debug> fmt::Debug for OutboxLimited<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxLimited").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S> Service<MetaRequest> for OutboxLimited<S>
where
    S: Service<MetaRequest, Response = MetaResponse> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = MetaResponse;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<MetaResponse, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: MetaRequest) -> Self::Future {
        match request {
            MetaRequest::Commit(writes) if writes.iter().any(|write| Entry::of(write.key()).is_some()) => {
                // What is ready now may hold a slot that the list or another commit needs: it is given back, and each
                // call waits for its own.
                let store = self.inner.clone();
                self.inner = store.clone();
                let shared = Arc::clone(&self.shared);
                Box::pin(async move { shared.commit(store, writes).await })
            }
            other => {
                let answer = self.inner.call(other);
                Box::pin(async move { answer.await.map_err(Into::into) })
            }
        }
    }
}
