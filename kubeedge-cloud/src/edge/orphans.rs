//! Nodes that are gone from the API, and what is left of them.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kube::Client;
use kubeedge_core::{
    names::NodeName,
    resource::{ObjectPath, ResourceType},
};
use tokio::sync::Notify;

use crate::{
    hub::{CloseReason, HubHandle},
    object::{ApiCalls, Kind, Pause},
    sync::{DeliveryLog, Followed, Truth},
};

/// Ends the sessions of deleted nodes, and forgets their records. A node that merely lost its label is left alone, and so
/// is one that is connected and not registered yet.
///
/// Upstream: `cloud/pkg/synccontroller` (`manageObjectSync`).
pub(super) struct Orphans {
    calls: ApiCalls,
    truth: Truth,
    hub: HubHandle,
    log: DeliveryLog,
    known: Mutex<BTreeSet<NodeName>>,
    deleted: Mutex<BTreeSet<NodeName>>,
    wake: Notify,
}

impl Orphans {
    pub(super) fn new(client: Client, truth: Truth, hub: HubHandle, log: DeliveryLog) -> Self {
        Self {
            calls: ApiCalls::new(client),
            truth,
            hub,
            log,
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
                self.wake.notified().await;
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
                    self.hub.close(&node, CloseReason::NodeDeleted);
                    done &= self.log.purge(&node).await.is_ok();
                }
                Some(false) => {}
                None => {
                    lock(&self.deleted).insert(node);
                    done = false;
                }
            }
        }
        let Ok(recorded) = self.log.nodes().await else { return false };
        for node in recorded {
            let known = ObjectPath::cluster(ResourceType::Node, node.as_str())
                .is_ok_and(|path| self.truth.placement().object(&path).is_some());
            if known || self.hub.session(&node).is_some() {
                continue;
            }
            match self.is_gone(&node).await {
                Some(true) => done &= self.log.purge(&node).await.is_ok(),
                Some(false) => {}
                None => done = false,
            }
        }
        done
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
