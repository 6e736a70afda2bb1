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

    /// Whether a node with this entry needs nothing of `object`.
    pub fn is_current(&self, object: &NodeObject) -> bool {
        self.version.is_some()
            && (self.version >= object.version
                || self.digest.as_ref().is_some_and(|digest| *digest == object.digest.to_string()))
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

/// Remembers what each node has acknowledged, beyond the life of this process.
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
}
