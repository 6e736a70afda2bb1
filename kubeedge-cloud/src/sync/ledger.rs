//! The ledger: what each node has acknowledged.

use async_trait::async_trait;
use kubeedge_core::{
    names::{NodeName, ResourceVersion, Uid},
    resource::ObjectPath,
    service::BoxError,
};

use crate::object::{NodeObject, ObjectError};

/// What a node has of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerEntry {
    /// Where the object is.
    pub path: ObjectPath,
    /// Which one it is.
    pub uid: Uid,
    /// Its API version, `v1` for instance.
    pub api_version: String,
    /// Its kind, `Pod` for instance.
    pub kind: String,
    /// The version that was acknowledged; none if it was sent but never acknowledged.
    pub version: Option<ResourceVersion>,
    /// Digest of what was acknowledged, if it was recorded: then a version that differs in nothing the edge acts upon,
    /// such as the status, need not be sent again.
    pub digest: Option<String>,
}

impl LedgerEntry {
    /// An entry of an object that was never acknowledged.
    pub fn new(path: ObjectPath, uid: Uid, api_version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { path, uid, api_version: api_version.into(), kind: kind.into(), version: None, digest: None }
    }

    /// What was acknowledged of it.
    pub fn acknowledged(mut self, version: Option<ResourceVersion>, digest: Option<String>) -> Self {
        (self.version, self.digest) = (version, digest);
        self
    }

    /// The entry of a node that has `object`.
    pub fn of(object: &NodeObject) -> Self {
        Self {
            path: object.path.clone(),
            uid: object.uid.clone(),
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            version: object.version,
            digest: Some(object.digest.to_string()),
        }
    }

    /// Whether a node with this entry needs nothing of `object`. An entry that has another name or kind than the object was
    /// changed by somebody, and counts for nothing.
    pub fn is_current(&self, object: &NodeObject) -> bool {
        self.version.is_some()
            && (&self.path, &self.api_version, &self.kind) == (&object.path, &object.api_version, &object.kind)
            && (self.version >= object.version || self.has_contents_of(object))
    }

    fn has_contents_of(&self, object: &NodeObject) -> bool {
        self.digest.as_ref().is_some_and(|digest| *digest == object.digest.to_string())
    }

    /// Whether this is of a later version than the object that is known here. Of contents that are not kept, nothing is said.
    pub(crate) fn is_ahead_of(&self, version: Option<ResourceVersion>, object: Option<&NodeObject>) -> bool {
        self.version > version && object.is_some_and(|object| !self.has_contents_of(object))
    }

    /// What is to be sent when the object is gone.
    pub(crate) fn skeleton(&self) -> Result<NodeObject, ObjectError> {
        NodeObject::skeleton(self.path.clone(), self.uid.clone(), self.api_version.clone(), self.kind.clone())
    }
}

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// It may work later.
    #[error("ledger cannot be reached")]
    Unavailable(#[source] BoxError),
    /// It will never work: the namespace of the record is gone, for instance. Without the record the object is sent again
    /// when the node connects, which does no harm.
    #[error("ledger refuses the record")]
    Refused(#[source] BoxError),
}

/// Remembers what each node has acknowledged, beyond the life of this process. `kubeedge_cloud::sync::testing` has the
/// suite that each implementation must pass.
///
/// Upstream: `cloud/pkg/cloudhub/session`, `cloud/pkg/synccontroller`.
#[async_trait]
pub trait SyncLedger: Send + Sync + 'static {
    /// All that `node` has.
    async fn list(&self, node: &NodeName) -> Result<Vec<LedgerEntry>, LedgerError>;

    /// `node` has this now. Idempotent.
    async fn record(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError>;

    /// `node` does not have this any more. Idempotent.
    async fn forget(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError>;

    /// The nodes that there is something about.
    async fn nodes(&self) -> Result<Vec<NodeName>, LedgerError>;

    /// Waits until records were changed or removed by somebody else, and names their nodes, which are then compared with the
    /// truth. Never resolves if nobody else can.
    ///
    /// # Cancel safety
    /// No node is lost when the future is dropped.
    async fn touched(&self) -> Vec<NodeName> {
        std::future::pending().await
    }
}
