//! The metadata store seam: what the edge must still know after a power cut.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    names::{InvalidName, ResourceVersion, Uid},
    outbox::OutboxLimit,
    resource::ResourceType,
    service::{BoxError, Subscription, layered_error, seam},
};

const OUTBOX: &str = "outbox";

/// What kind of records a key belongs to. Objects of Kubernetes use their resource type; our own state has own words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collection(Arc<str>);

impl Collection {
    /// The collection called `name`.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty or has a slash.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
        let name = name.as_ref();
        if name.is_empty() || name.contains('/') {
            return Err(InvalidName::new("collection", name, "must be one path segment"));
        }
        Ok(Self(name.into()))
    }

    /// Twins of devices.
    pub fn twins() -> Self {
        Self("twin".into())
    }

    /// Messages that must still reach the cloud.
    pub fn outbox() -> Self {
        Self(OUTBOX.into())
    }

    pub(crate) fn is_outbox(&self) -> bool {
        &*self.0 == OUTBOX
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&ResourceType> for Collection {
    fn from(kind: &ResourceType) -> Self {
        Self(kind.as_str().into())
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Key of a record. Shown as `<namespace>/<collection>/<name>`, with `null` for "no namespace", as upstream keys are.
///
/// Upstream: `edge/pkg/metamanager/dao` (table `meta`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetaKey {
    /// The collection.
    pub collection: Collection,
    /// The namespace; empty for what has none.
    pub namespace: Arc<str>,
    /// The name; any text that is not empty.
    pub name: Arc<str>,
}

impl MetaKey {
    /// The key of `name` in `namespace` (empty for none).
    pub fn new(collection: Collection, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { collection, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for MetaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = if self.namespace.is_empty() { "null" } else { &*self.namespace };
        write!(f, "{namespace}/{}/{}", self.collection, self.name)
    }
}

/// Position in the history of a store: grows with every commit, survives restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: MetaKey,
    /// UID of the Kubernetes object, if it is one.
    pub uid: Option<Uid>,
    /// Version of the Kubernetes object, if it is one.
    pub version: Option<ResourceVersion>,
    /// The bytes, normally JSON as it came.
    pub value: Bytes,
    /// Commit that wrote it; set by the store, ignored on write.
    pub revision: Revision,
}

impl Record {
    /// A record to write, without Kubernetes identity.
    pub fn new(key: MetaKey, value: impl Into<Bytes>) -> Self {
        Self { key, uid: None, version: None, value: value.into(), revision: Revision::default() }
    }
}

/// What must hold for a write to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precondition {
    /// Nothing.
    #[default]
    Always,
    /// There is no such record.
    Absent,
    /// The record is still the one of this revision.
    Unchanged(Revision),
}

impl Precondition {
    /// Whether it holds for a record that has the revision `found`, or for one that is not there.
    pub fn holds(&self, found: Option<Revision>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => found.is_none(),
            Self::Unchanged(revision) => found == Some(*revision),
        }
    }
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetaWrite {
    /// Stores a record, replacing what is there.
    Put(Record, Precondition),
    /// Removes a record; fine if it is not there, except under [`Precondition::Unchanged`].
    Delete(MetaKey, Precondition),
}

impl MetaWrite {
    /// The record that it is about.
    pub fn key(&self) -> &MetaKey {
        match self {
            Self::Put(record, _) => &record.key,
            Self::Delete(key, _) => key,
        }
    }

    /// What must hold for it.
    pub fn only_if(&self) -> &Precondition {
        match self {
            Self::Put(_, only_if) | Self::Delete(_, only_if) => only_if,
        }
    }
}

/// Which records a list or a watch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Their collection.
    pub collection: Collection,
    /// Only of this namespace.
    pub namespace: Option<Arc<str>>,
}

impl Selector {
    /// All records of `collection`.
    pub fn all(collection: Collection) -> Self {
        Self { collection, namespace: None }
    }

    /// Whether `key` is selected.
    pub fn matches(&self, key: &MetaKey) -> bool {
        self.collection == key.collection && self.namespace.as_ref().is_none_or(|only| *only == key.namespace)
    }
}

/// An item of a watch, in the order of commits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetaEvent {
    /// A record was written.
    Put(Record),
    /// A record was removed by the commit of that revision.
    Deleted(MetaKey, Revision),
    /// So many events were missed because the watcher was slow: list again.
    Lagged(u64),
}

/// Durable records by key, with atomic batches and watches.
///
/// A resolved write is on the disk. A watch delivers each commit once and in order.
///
/// Upstream: `edge/pkg/metamanager`.
#[async_trait]
#[doc(alias = "metamanager")]
pub trait MetaStore: Send + Sync + 'static {
    /// The record of `key`, if there is one.
    async fn get(&self, key: MetaKey) -> Result<Option<Record>, MetaError>;

    /// All selected records, ordered by key.
    async fn list(&self, select: Selector) -> Result<Vec<Record>, MetaError>;

    /// Does all `writes` or none; resolves when they are durable. No writes at all need no room on the disk, change
    /// nothing, and tell the present revision.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have committed, but never in part.
    async fn commit(&self, writes: Vec<MetaWrite>) -> Result<Revision, MetaError>;

    /// Follows what is committed after `after`. Use the revision of a list's newest record, or of a commit;
    /// [`MetaEvent::Lagged`] comes first if the store no longer knows so far back.
    async fn watch(&self, select: Selector, after: Revision) -> Result<Subscription<MetaEvent>, MetaError>;
}

/// A call on the store, as layers see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MetaRequest {
    /// See [`MetaStore::get`].
    Get(MetaKey),
    /// See [`MetaStore::list`].
    List(Selector),
    /// See [`MetaStore::commit`].
    Commit(Vec<MetaWrite>),
    /// See [`MetaStore::watch`].
    Watch(Selector, Revision),
}

/// An answer of the store, as layers see it.
#[derive(Debug)]
#[non_exhaustive]
pub enum MetaResponse {
    /// To a get.
    Record(Option<Record>),
    /// To a list.
    Records(Vec<Record>),
    /// To a commit.
    Committed(Revision),
    /// To a watch.
    Watching(Subscription<MetaEvent>),
}

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// Somebody else wrote first: read again, then retry.
    #[error("{key} was changed by somebody else")]
    Conflict {
        /// The record at fault.
        key: MetaKey,
    },
    /// There is no room left on the disk; what is stored stays readable.
    #[error("no room left for the metadata store")]
    Full,
    /// The outbox holds as much as it may, so nothing of the commit was done; room comes as the cloud answers.
    #[error("the outbox for the cloud is full")]
    OutboxFull(#[source] OutboxLimit),
    /// Too much is waiting already.
    #[error("metadata store is busy")]
    Busy,
    /// No answer in time; a write may still have been done.
    #[error("no answer from the metadata store in time")]
    TimedOut,
    /// The store was closed.
    #[error("metadata store is closed")]
    Closed,
    /// The backend or a layer failed in its own way.
    #[error("metadata store failed")]
    Failed(#[source] BoxError),
}
layered_error!(MetaError);

impl MetaError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::TimedOut | Self::Full | Self::OutboxFull(_))
    }

    /// Whether a commit that failed like this has surely changed nothing. Otherwise it may have been done.
    pub fn changed_nothing(&self) -> bool {
        matches!(self, Self::Busy | Self::Full | Self::OutboxFull(_) | Self::Closed | Self::Conflict { .. })
    }
}

seam! {
    /// [`MetaStore`] as a tower service.
    service MetaService of MetaStore;
    /// Typed calls on a metadata store. Cheap to clone.
    handle MetaHandle;
    request MetaRequest; response MetaResponse; error MetaError;
    call(store, request) {
        match request {
            MetaRequest::Get(key) => store.get(key).await.map(MetaResponse::Record),
            MetaRequest::List(select) => store.list(select).await.map(MetaResponse::Records),
            MetaRequest::Commit(writes) => store.commit(writes).await.map(MetaResponse::Committed),
            MetaRequest::Watch(select, after) => store.watch(select, after).await.map(MetaResponse::Watching),
        }
    }
}

impl MetaHandle {
    /// The record of `key`; see [`MetaStore::get`].
    pub async fn get(&self, key: MetaKey) -> Result<Option<Record>, MetaError> {
        match self.ask(MetaRequest::Get(key)).await? {
            MetaResponse::Record(found) => Ok(found),
            _ => Err(MetaError::Failed("not an answer to get".into())),
        }
    }

    /// All selected records; see [`MetaStore::list`].
    pub async fn list(&self, select: Selector) -> Result<Vec<Record>, MetaError> {
        match self.ask(MetaRequest::List(select)).await? {
            MetaResponse::Records(found) => Ok(found),
            _ => Err(MetaError::Failed("not an answer to list".into())),
        }
    }

    /// Does all writes or none; see [`MetaStore::commit`].
    pub async fn commit(&self, writes: Vec<MetaWrite>) -> Result<Revision, MetaError> {
        match self.ask(MetaRequest::Commit(writes)).await? {
            MetaResponse::Committed(revision) => Ok(revision),
            _ => Err(MetaError::Failed("not an answer to commit".into())),
        }
    }

    /// Stores one record whatever is there.
    pub async fn put(&self, record: Record) -> Result<Revision, MetaError> {
        self.commit(vec![MetaWrite::Put(record, Precondition::Always)]).await
    }

    /// Removes one record.
    pub async fn delete(&self, key: MetaKey) -> Result<Revision, MetaError> {
        self.commit(vec![MetaWrite::Delete(key, Precondition::Always)]).await
    }

    /// Follows commits; see [`MetaStore::watch`].
    pub async fn watch(&self, select: Selector, after: Revision) -> Result<Subscription<MetaEvent>, MetaError> {
        match self.ask(MetaRequest::Watch(select, after)).await? {
            MetaResponse::Watching(subscription) => Ok(subscription),
            _ => Err(MetaError::Failed("not an answer to watch".into())),
        }
    }
}
