//! Who may write the records of a node.

use async_trait::async_trait;
use kubeedge_core::names::NodeName;

/// Whether this instance of the cloud may write the records of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It may.
    Owner,
    /// It may be able to soon; until then records wait.
    Candidate,
    /// The node is another instance's: what waits here is dropped.
    Other,
}

/// Tells which nodes are ours. [`NodeLeases`](crate::ownership::NodeLeases) does when there may be several instances.
#[async_trait]
pub trait Owners: Send + Sync + 'static {
    /// Whether `node` is ours. Called often, so it must not block.
    fn standing(&self, node: &NodeName) -> Standing;

    /// Waits until the standing of nodes has changed, and names them.
    ///
    /// # Cancel safety
    /// No node is lost when the future is dropped.
    async fn changed(&self) -> Vec<NodeName>;

    /// All nodes that somebody has owned and not given back.
    fn nodes(&self) -> Vec<NodeName>;

    /// Whether it is up to this instance to clear away what is left of `node`, which is gone: of several exactly one is
    /// meant, as far as they see each other.
    fn clears(&self, node: &NodeName) -> bool;

    /// Nobody owns `node` any more: it is gone. `false` if this has to be tried again.
    async fn release(&self, node: &NodeName) -> bool;
}

/// There is one instance, and all nodes are its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

#[async_trait]
impl Owners for Alone {
    fn standing(&self, _: &NodeName) -> Standing {
        Standing::Owner
    }

    async fn changed(&self) -> Vec<NodeName> {
        std::future::pending().await
    }

    fn nodes(&self) -> Vec<NodeName> {
        Vec::new()
    }

    fn clears(&self, _: &NodeName) -> bool {
        true
    }

    async fn release(&self, _: &NodeName) -> bool {
        true
    }
}
