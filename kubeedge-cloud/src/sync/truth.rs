//! The placement, shared by the controllers, and tied to the hub.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use kube::Client;
use kubeedge_core::{
    answer::ApiStatus,
    names::NodeName,
    resource::{ObjectPath, ResourceType},
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    ledger::LedgerEntry,
    placement::{Effects, Facts, Placement},
};
use crate::{
    hub::{Downlink, HubHandle},
    object::{ApiCalls, Kind, NodeObject, Watched, watch},
};

/// Fetches at a time, per watched kind.
const FETCHES: usize = 16;

/// Between two attempts to fetch an object.
const RETRY: Duration = Duration::from_secs(1);

/// What every node should have, as the controllers have seen it in the API. Connected nodes are told of each change; a
/// node that connects is compared with it. Cheap to clone.
///
/// Changes are handed to the hub under the lock of the placement, so what a node is told last is the truth.
#[derive(Clone)]
pub(crate) struct Truth(Arc<Shared>);

struct Shared {
    placement: Mutex<Placement>,
    hub: HubHandle,
    client: Client,
    calls: ApiCalls,
    /// The kinds of which all objects are known.
    listed: watch::Sender<BTreeSet<ResourceType>>,
}

impl Truth {
    pub(crate) fn new(client: Client, hub: HubHandle) -> Self {
        let calls = ApiCalls::new(client.clone());
        let listed = watch::Sender::new(BTreeSet::new());
        Self(Arc::new(Shared { placement: Mutex::default(), hub, client, calls, listed }))
    }

    /// Watches all objects of `kind` for ever. `changed` is called after each change.
    pub(crate) async fn follow(
        &self,
        kind: &'static Kind,
        labels: Option<&str>,
        read: fn(&Value) -> Facts,
        mut changed: impl FnMut(Followed<'_>),
    ) {
        let mut events = std::pin::pin!(watch(self.0.client.clone(), kind, labels, read));
        let mut fetches = JoinSet::new();
        let mut wanted: BTreeSet<ObjectPath> = BTreeSet::new();
        let mut seen: Option<HashSet<ObjectPath>> = None;
        loop {
            while fetches.len() < FETCHES
                && let Some(path) = wanted.pop_first()
            {
                let calls = self.0.calls.clone();
                fetches.spawn(async move { (fetch(&calls, &path).await, path) });
            }
            tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(Watched::ListStarts) => seen = Some(HashSet::new()),
                    Some(Watched::Applied(object, facts)) => {
                        if let Some(seen) = &mut seen {
                            seen.insert(object.path.clone());
                        }
                        let path = object.path.clone();
                        wanted.extend(self.change(|placement| placement.apply(object, facts)));
                        changed(Followed::Applied(&path));
                    }
                    Some(Watched::Deleted(object)) => {
                        let path = object.path.clone();
                        wanted.extend(self.change(|placement| placement.delete(object)));
                        changed(Followed::Deleted(&path));
                    }
                    Some(Watched::ListEnds) => {
                        if let Some(seen) = seen.take() {
                            wanted.extend(self.change(|placement| placement.retain(&kind.resource(), &seen)));
                        }
                        self.0.listed.send_modify(|listed| { listed.insert(kind.resource()); });
                        changed(Followed::Listed);
                    }
                },
                Some(Ok((fetched, path))) = fetches.join_next() => match fetched {
                    Ok(Some(object)) => wanted.extend(self.change(|placement| placement.fill(object))),
                    // Gone: the watch will say so.
                    Ok(None) => {}
                    Err(err) => {
                        tracing::debug!(%path, %err, "object not fetched, it will be tried again");
                        wanted.insert(path);
                    }
                },
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Placement) -> Effects) -> BTreeSet<ObjectPath> {
        let mut placement = self.placement();
        let effects = change(&mut placement);
        for (node, change) in effects.changes {
            // Nodes that are away are compared when they come back.
            let _absent = self.0.hub.send(&node, Downlink::Object(change));
        }
        effects.fetch
    }

    /// Resolves when all objects of these kinds are known.
    pub(crate) async fn listed(&self, kinds: &[ResourceType]) {
        // The sender lives as long as `self`.
        let _ = self.0.listed.subscribe().wait_for(|listed| kinds.iter().all(|kind| listed.contains(kind))).await;
    }

    /// As [`listed`](Self::listed), for requests: the placement tells what a node may do.
    pub(crate) async fn ready(&self, kinds: &[ResourceType], patience: Duration) -> Result<(), ApiStatus> {
        timeout(patience, self.listed(kinds))
            .await
            .map_err(|_| crate::object::unavailable(&"objects are not yet listed"))
    }

    /// Sends to `node` what it lacks by these records, under the lock.
    pub(crate) fn resync(&self, node: &NodeName, ledger: &[LedgerEntry]) -> usize {
        let placement = self.placement();
        let changes = placement.resync(node, ledger);
        let count = changes.len();
        for change in changes {
            let _absent = self.0.hub.send(node, Downlink::Object(change));
        }
        count
    }

    pub(crate) fn placement(&self) -> MutexGuard<'_, Placement> {
        // Nothing panics under the lock, and if so, the next list sets it right.
        self.0.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Followed<'a> {
    /// This object is there.
    Applied(&'a ObjectPath),
    /// This object is gone.
    Deleted(&'a ObjectPath),
    /// All objects are known, and those that are not listed are gone.
    Listed,
}

/// Gets an object; waits a little before it reports a failure.
async fn fetch(calls: &ApiCalls, path: &ObjectPath) -> Result<Option<NodeObject>, ApiStatus> {
    let (Some(kind), Some(name)) = (Kind::delivered(&path.kind), &path.name) else { return Ok(None) };
    let namespace = path.namespace.as_ref().map(kubeedge_core::names::Namespace::as_str);
    match calls.get((kind, namespace, name.as_str())).await {
        Ok(value) => Ok(NodeObject::new(kind, value).ok()),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => {
            tokio::time::sleep(RETRY).await;
            Err(status)
        }
    }
}

impl fmt::Debug for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Truth").finish_non_exhaustive()
    }
}
