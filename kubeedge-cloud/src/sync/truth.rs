//! The placement, shared by the controllers, and tied to the hub.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use kube::Client;
use kubeedge_core::{
    answer::ApiStatus,
    names::{NodeName, Uid},
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
    object::{ApiCalls, Kind, NodeObject, Watched, upgraded, watch},
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
        let mut questions = JoinSet::new();
        let mut wanted: BTreeSet<ObjectPath> = BTreeSet::new();
        let mut missing: BTreeMap<ObjectPath, Uid> = BTreeMap::new();
        let mut seen: Option<HashSet<ObjectPath>> = None;
        loop {
            while questions.len() < FETCHES {
                let (calls, question) = match (missing.pop_first(), wanted.is_empty()) {
                    (Some((path, uid)), _) => (self.0.calls.clone(), Question { path, missing: Some(uid) }),
                    (None, false) => match wanted.pop_first() {
                        Some(path) => (self.0.calls.clone(), Question { path, missing: None }),
                        None => break,
                    },
                    (None, true) => break,
                };
                questions.spawn(async move { (fetch(&calls, &question.path).await, question) });
            }
            tokio::select! {
                biased;
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
                            missing.extend(self.placement().missing(&kind.resource(), &seen));
                        }
                        self.0.listed.send_modify(|listed| { listed.insert(kind.resource()); });
                        changed(Followed::Listed);
                    }
                },
                Some(Ok((answer, question))) = questions.join_next() => {
                    let Question { path, missing: uid } = question;
                    match (answer, uid) {
                        (Ok(Some(object)), None) => wanted.extend(self.change(|placement| placement.fill(object))),
                        // Gone: the watch will say so.
                        (Ok(None), None) => {}
                        (Ok(Some(object)), Some(uid)) if object.uid == uid => {
                            tracing::debug!(%path, "a list that lacks an object was an old one");
                        }
                        (Ok(_), Some(uid)) => {
                            let mut known = false;
                            wanted.extend(self.change(|placement| {
                                let (was_known, effects) = placement.vanish(&path, &uid);
                                known = was_known;
                                effects
                            }));
                            if known {
                                changed(Followed::Deleted(&path));
                            }
                        }
                        (Err(err), uid) => {
                            tracing::debug!(%path, %err, "object not fetched, it will be tried again");
                            match uid {
                                Some(uid) => drop(missing.insert(path, uid)),
                                None => drop(wanted.insert(path)),
                            }
                        }
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

    /// Sends to `node` what it lacks by these records, under the lock. Without `deletions`, nothing is taken from it.
    pub(crate) fn resync(&self, node: &NodeName, ledger: &[LedgerEntry], deletions: bool) -> usize {
        let listed = if deletions { self.0.listed.borrow().clone() } else { BTreeSet::new() };
        let placement = self.placement();
        let changes = placement.resync(node, ledger, &listed);
        let count = changes.len();
        for change in changes {
            let _absent = self.0.hub.send(node, Downlink::Object(change));
        }
        count
    }

    /// What the API has under this path now, whatever the watch has shown of it.
    pub(crate) async fn ask(&self, path: &ObjectPath) -> Result<Option<NodeObject>, ApiStatus> {
        get(&self.0.calls, path).await
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

/// An object to be fetched, or to be looked for: then with the UID of the one that a list lacks.
struct Question {
    path: ObjectPath,
    missing: Option<Uid>,
}

/// Gets an object; waits a little before it reports a failure.
async fn fetch(calls: &ApiCalls, path: &ObjectPath) -> Result<Option<NodeObject>, ApiStatus> {
    let fetched = get(calls, path).await;
    if fetched.is_err() {
        tokio::time::sleep(RETRY).await;
    }
    fetched
}

async fn get(calls: &ApiCalls, path: &ObjectPath) -> Result<Option<NodeObject>, ApiStatus> {
    let (Some(kind), Some(name)) = (Kind::delivered(&path.kind), &path.name) else { return Ok(None) };
    let namespace = path.namespace.as_ref().map(kubeedge_core::names::Namespace::as_str);
    match calls.get((kind, namespace, name.as_str())).await {
        Ok(value) => Ok(NodeObject::new(kind, Box::pin(upgraded(calls, kind, value)).await).ok()),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

impl fmt::Debug for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Truth").finish_non_exhaustive()
    }
}
