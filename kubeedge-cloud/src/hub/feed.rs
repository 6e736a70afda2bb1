//! News of sessions, for those who follow all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kubeedge_core::names::NodeName;
use tokio::sync::Notify;

use super::registry::{HubHandle, SessionNumber};

/// Tells which nodes have connected, disconnected or connected anew. At first all that are connected are news.
///
/// What happens between two looks is told once, as what has become of it: a session that was replaced has another number.
/// So it holds no more than there are nodes, however seldom it is looked at, and a look costs what has changed.
pub struct SessionFeed {
    hub: HubHandle,
    changed: Arc<Changed>,
}

/// The nodes of which there is news.
#[derive(Debug, Default)]
pub(super) struct Changed {
    nodes: Mutex<BTreeSet<NodeName>>,
    wake: Notify,
}

impl Changed {
    pub(super) fn of(nodes: BTreeSet<NodeName>) -> Self {
        let changed = Self { nodes: Mutex::new(nodes), wake: Notify::new() };
        changed.wake.notify_one();
        changed
    }

    pub(super) fn add(&self, node: &NodeName) {
        self.nodes().insert(node.clone());
        self.wake.notify_one();
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeSet<NodeName>> {
        // Nothing panics under the lock.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionFeed {
    pub(super) fn new(hub: HubHandle, changed: Arc<Changed>) -> Self {
        Self { hub, changed }
    }

    /// Waits for news: per node its session, or none.
    ///
    /// # Cancel safety
    /// No news is lost when the future is dropped.
    pub async fn next(&mut self) -> BTreeMap<NodeName, Option<SessionNumber>> {
        loop {
            let nodes = std::mem::take(&mut *self.changed.nodes());
            if !nodes.is_empty() {
                return nodes.into_iter().map(|node| (node.clone(), self.hub.session(&node))).collect();
            }
            self.changed.wake.notified().await;
        }
    }
}

impl fmt::Debug for SessionFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionFeed").field("hub", &self.hub).finish_non_exhaustive()
    }
}
