//! Nodes that are gone from the API, and what is left of them.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::Client;
use kubeedge_core::{
    names::NodeName,
    resource::{ObjectPath, ResourceType},
};
use tokio::{sync::Notify, time::timeout};

use super::Keepers;
use crate::{
    hub::{CloseReason, HubHandle},
    object::{ApiCalls, Kind, Pause},
    sync::{Followed, Truth},
};

/// For a session to end that is closed.
const CLOSING: Duration = Duration::from_secs(5);

/// Ends the sessions of deleted nodes, and clears away their records and Leases: at the start, when a node is deleted, and
/// from time to time. Of several instances of the cloud, each ends its own sessions and one does the rest. A node that
/// merely lost its label is left alone, and so is one that is connected and not registered yet.
///
/// Upstream: `cloud/pkg/synccontroller` (`manageObjectSync`).
pub(super) struct Orphans {
    calls: ApiCalls,
    truth: Truth,
    hub: HubHandle,
    keepers: Keepers,
    known: Mutex<BTreeSet<NodeName>>,
    deleted: Mutex<BTreeSet<NodeName>>,
    wake: Notify,
}

impl Orphans {
    pub(super) fn new(client: Client, truth: Truth, hub: HubHandle, keepers: Keepers) -> Self {
        Self {
            calls: ApiCalls::new(client),
            truth,
            hub,
            keepers,
            known: Mutex::default(),
            deleted: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Takes note of what the watch shows of nodes.
    pub(super) fn follow(&self, followed: Followed<'_>) {
        let node = |path: &ObjectPath| path.name.as_ref().and_then(|name| NodeName::new(name).ok());
        match followed {
            Followed::Applied(path) => lock(&self.known).extend(node(path)),
            Followed::Deleted(path) => {
                if let Some(node) = node(path) {
                    lock(&self.known).remove(&node);
                    lock(&self.deleted).insert(node);
                    self.wake.notify_one();
                }
            }
            Followed::Listed => {
                let there: BTreeSet<NodeName> =
                    self.truth.placement().paths(&ResourceType::Node).filter_map(node).collect();
                let before = std::mem::replace(&mut *lock(&self.known), there.clone());
                lock(&self.deleted).extend(before.difference(&there).cloned());
                self.wake.notify_one();
            }
        }
    }

    pub(super) async fn run(&self) {
        self.truth.listed(&[ResourceType::Node]).await;
        let mut pauses = Pause::default();
        loop {
            if self.clear().await {
                pauses = Pause::default();
                // Woken or not: something may have been left by another instance.
                let _late = timeout(self.keepers.sweep, self.wake.notified()).await;
            } else {
                tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            }
        }
    }

    /// Whether everything could be cleared.
    async fn clear(&self) -> bool {
        let deleted = std::mem::take(&mut *lock(&self.deleted));
        let mut done = true;
        for node in deleted {
            match self.is_gone(&node).await {
                Some(true) => {
                    tracing::info!(%node, "node was deleted");
                    self.end_session(&node).await;
                    done &= self.clear_away(&node).await;
                }
                Some(false) => {}
                None => {
                    lock(&self.deleted).insert(node);
                    done = false;
                }
            }
        }
        let Ok(recorded) = self.keepers.log.nodes().await else { return false };
        let leased = self.keepers.owners.nodes();
        for node in recorded.into_iter().chain(leased).collect::<BTreeSet<_>>() {
            let known = ObjectPath::cluster(ResourceType::Node, node.as_str())
                .is_ok_and(|path| self.truth.placement().uid(&path).is_some());
            if known || self.hub.session(&node).is_some() || !self.keepers.owners.clears(&node) {
                continue;
            }
            match self.is_gone(&node).await {
                Some(true) => done &= self.clear_away(&node).await,
                Some(false) => {}
                None => done = false,
            }
        }
        done
    }

    /// Waits for its end, so that what it still acknowledges is cleared away, too.
    async fn end_session(&self, node: &NodeName) {
        let Some(number) = self.hub.session(node) else { return };
        self.hub.close_session(node, number, CloseReason::NodeDeleted);
        let _late = timeout(CLOSING, self.hub.ended(node, number)).await;
    }

    /// Whether there is nothing left of the node, as far as it is ours to clear.
    async fn clear_away(&self, node: &NodeName) -> bool {
        if !self.keepers.owners.clears(node) {
            return true;
        }
        let purged = self.keepers.log.purge(node).await;
        if let Err(err) = &purged {
            tracing::debug!(%node, err = err as &dyn std::error::Error, "records of a deleted node not removed");
        }
        let released = self.keepers.owners.release(node).await;
        if self.hub.session(node).is_some() {
            // It was made anew and has connected meanwhile; it was compared with records that are no more.
            let count = self.truth.resync(node, &[], false);
            tracing::info!(%node, objects = count, "node has come again, everything is sent anew");
        }
        released && purged.is_ok()
    }

    /// `None` if nobody can tell.
    async fn is_gone(&self, node: &NodeName) -> Option<bool> {
        match self.calls.get((&Kind::NODE, None, node.as_str())).await {
            Ok(_) => Some(false),
            Err(status) if status.is_not_found() => Some(true),
            Err(_) => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
