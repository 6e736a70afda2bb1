//! The ledger in ObjectSyncs and ClusterObjectSyncs.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use kube::{
    Api, Client, Error, Resource, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use kubeedge_core::{
    names::{Namespace, NodeName, ObjectName, Uid},
    resource::{ObjectPath, ResourceType},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::ledger::{LedgerEntry, LedgerError, SyncLedger};
use crate::{
    crds::{ClusterObjectSync, ObjectSync, ObjectSyncSpec, ObjectSyncStatus, object_sync_name, parse_object_sync_name},
    object::Pause,
};

/// `<version>:<digest>` of what the node has; counts only together with that version, as a Go cloudcore knows nothing of
/// it.
const DIGEST: &str = "kubeedge.io/content-digest";
const PATIENCE: Duration = Duration::from_secs(30);

/// The ledger in the custom resources of KubeEdge, shared with other clouds, those in Go too. Cheap to clone.
///
/// Reads are answered from memory, which [`run`](Self::run) fills by watching; writes go to the API. A record that somebody
/// else changes or removes is told by [`touched`](SyncLedger::touched).
#[derive(Clone)]
pub struct CrdLedger(Arc<Shared>);

struct Shared {
    client: Client,
    index: Mutex<Index>,
    /// How many of the two kinds have been listed in whole.
    listed: watch::Sender<(bool, bool)>,
    wake: Notify,
}

#[derive(Default)]
struct Index {
    nodes: HashMap<NodeName, HashMap<Uid, Slot>>,
    /// Records that are being written here, so that what the watch says of them is no news.
    writing: HashSet<(NodeName, Uid)>,
    /// Records that were removed here, with the version that they had, until the watch says so, too.
    removed: HashMap<(NodeName, Uid), u64>,
    /// Nodes with records that somebody else has changed.
    touched: BTreeSet<NodeName>,
}

struct Slot {
    entry: LedgerEntry,
    /// Version of the record itself: the watch may lag behind our own writes.
    revision: u64,
}

impl Index {
    /// Takes a record as it was at `revision`.
    fn learn(&mut self, node: NodeName, entry: LedgerEntry, revision: u64) {
        let key = (node.clone(), entry.uid.clone());
        let slot = self.nodes.get(&node).and_then(|slots| slots.get(&entry.uid));
        let known = slot.map(|slot| slot.revision).or_else(|| self.removed.get(&key).copied());
        if known.is_some_and(|known| revision > 0 && known >= revision) {
            return;
        }
        let news = slot.is_none_or(|slot| slot.entry != entry);
        if news && !self.writing.contains(&key) {
            self.touched.insert(node.clone());
        }
        self.removed.remove(&key);
        self.nodes.entry(node).or_default().insert(entry.uid.clone(), Slot { entry, revision });
    }

    /// Returns the version of the record, if there was one.
    fn remove(&mut self, node: &NodeName, uid: &Uid) -> Option<u64> {
        let slots = self.nodes.get_mut(node)?;
        let removed = slots.remove(uid).map(|slot| slot.revision);
        if slots.is_empty() {
            self.nodes.remove(node);
        }
        removed
    }

    /// It was removed here. What the watch still has to say of it is old.
    fn forget(&mut self, node: &NodeName, uid: &Uid) {
        if let Some(revision) = self.remove(node, uid) {
            self.removed.insert((node.clone(), uid.clone()), revision);
        }
    }

    /// Of these records there are only those.
    fn retain(&mut self, namespaced: bool, there: &HashSet<String>) {
        let Self { nodes, touched, removed, .. } = self;
        // What was under way before the list comes no more.
        removed.clear();
        for (node, slots) in &mut *nodes {
            let before = slots.len();
            slots.retain(|uid, slot| {
                slot.entry.path.namespace.is_some() != namespaced || there.contains(&object_sync_name(node, uid))
            });
            if slots.len() < before {
                touched.insert(node.clone());
            }
        }
        nodes.retain(|_, slots| !slots.is_empty());
    }
}

impl CrdLedger {
    /// The ledger behind `client`. The custom resources have to be installed.
    pub fn new(client: Client) -> Self {
        let (index, listed) = (Mutex::default(), watch::Sender::new((false, false)));
        Self(Arc::new(Shared { client, index, listed, wake: Notify::new() }))
    }

    /// Keeps the memory up to date until `shutdown`. Failures are logged, and tried again.
    pub async fn run(&self, shutdown: CancellationToken) {
        let both = async {
            let objects = self.follow::<ObjectSync>(|listed| listed.0 = true);
            let cluster = self.follow::<ClusterObjectSync>(|listed| listed.1 = true);
            tokio::join!(objects, cluster)
        };
        let _stopped = shutdown.run_until_cancelled(both).await;
    }

    async fn follow<K: Record>(&self, listed: fn(&mut (bool, bool))) {
        let events =
            watcher(Api::<K>::all(self.0.client.clone()), watcher::Config::default()).backoff(Pause::default());
        let mut events = std::pin::pin!(events);
        let mut seen = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => seen.clear(),
                Ok(watcher::Event::InitApply(record)) => {
                    seen.insert(record.name_any());
                    self.learn(&record);
                }
                Ok(watcher::Event::Apply(record)) => self.learn(&record),
                Ok(watcher::Event::Delete(record)) => self.unlearn(&record),
                Ok(watcher::Event::InitDone) => {
                    self.index().retain(K::NAMESPACED, &seen);
                    seen = HashSet::new();
                    self.0.listed.send_modify(listed);
                    self.tell();
                }
                Err(err) => tracing::warn!(err = &err as &dyn std::error::Error, "watch of the ledger interrupted"),
            }
        }
    }

    fn learn<K: Record>(&self, record: &K) {
        let Some((node, entry)) = entry(record) else { return };
        self.index().learn(node, entry, revision(record));
        self.tell();
    }

    fn unlearn<K: Record>(&self, record: &K) {
        let Some((node, uid)) = parse_object_sync_name(&record.name_any()) else { return };
        {
            let mut index = self.index();
            // One that was made anew meanwhile is another.
            let newer = index.nodes.get(&node).and_then(|slots| slots.get(&uid));
            if newer.is_some_and(|slot| slot.revision > revision(record)) {
                return;
            }
            let removed = index.remove(&node, &uid).is_some();
            let key = (node, uid);
            index.removed.remove(&key);
            if removed && !index.writing.contains(&key) {
                index.touched.insert(key.0);
            }
        }
        self.tell();
    }

    fn tell(&self) {
        if !self.index().touched.is_empty() {
            self.0.wake.notify_one();
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listed(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.listed.subscribe().wait_for(|(objects, cluster)| *objects && *cluster).await;
    }

    /// Returns the version of the record that was written.
    async fn write<K: Record>(api: &Api<K>, name: &str, entry: &LedgerEntry) -> Result<u64, LedgerError> {
        let version = entry.version.map_or_else(|| "0".to_owned(), |version| version.to_string());
        let digest = entry.digest.as_ref().map(|digest| format!("{version}:{digest}"));
        let annotations = digest.iter().map(|digest| (DIGEST.to_owned(), digest.clone())).collect();
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), annotations: Some(annotations), ..ObjectMeta::default() };
        let patch = json!({ "metadata": { "annotations": { DIGEST: digest } }, "spec": spec_of(entry) });
        let patch = Patch::Merge(patch);
        // Most records are there already. Two writes, as the status is a subresource; the annotation counts only when the
        // status agrees with it, so a crash in between does no harm.
        match api.patch(name, &PatchParams::default(), &patch).await {
            Ok(_) => {}
            Err(Error::Api(status)) if status.is_not_found() => {
                match api.create(&PostParams::default(), &K::of(metadata, entry)).await {
                    Ok(_) => {}
                    // Another instance was faster.
                    Err(Error::Api(status)) if status.is_already_exists() => {
                        api.patch(name, &PatchParams::default(), &patch).await.map_err(again)?;
                    }
                    Err(err) => return Err(classified(err)),
                }
            }
            Err(err) => return Err(classified(err)),
        }
        let status = Patch::Merge(json!({ "status": { "objectResourceVersion": version } }));
        api.patch_status(name, &PatchParams::default(), &status).await.map(|record| revision(&record)).map_err(again)
    }

    async fn erase<K: Record>(api: &Api<K>, name: &str) -> Result<(), LedgerError> {
        match api.delete(name, &DeleteParams::default().grace_period(0)).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(err) => Err(classified(err)),
        }
    }
}

/// While it lives, what the watch says of a record is taken for our own doing.
struct Writing<'a> {
    ledger: &'a CrdLedger,
    key: (NodeName, Uid),
}

impl<'a> Writing<'a> {
    fn of(ledger: &'a CrdLedger, node: &NodeName, entry: &LedgerEntry) -> Self {
        let key = (node.clone(), entry.uid.clone());
        ledger.index().writing.insert(key.clone());
        Self { ledger, key }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.ledger.index().writing.remove(&self.key);
    }
}

#[async_trait]
impl SyncLedger for CrdLedger {
    async fn list(&self, node: &NodeName) -> Result<Vec<LedgerEntry>, LedgerError> {
        self.listed().await;
        let index = self.index();
        Ok(index.nodes.get(node).into_iter().flat_map(HashMap::values).map(|slot| slot.entry.clone()).collect())
    }

    async fn record(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        let name = object_sync_name(node, &entry.uid);
        let client = self.0.client.clone();
        let writing = Writing::of(self, node, entry);
        let revision = match &entry.path.namespace {
            Some(namespace) => {
                let api = Api::<ObjectSync>::namespaced(client, namespace.as_str());
                in_time(Self::write(&api, &name, entry)).await?
            }
            None => in_time(Self::write(&Api::<ClusterObjectSync>::all(client), &name, entry)).await?,
        };
        // Still as one who writes, so that this is no news.
        self.index().learn(node.clone(), entry.clone(), revision);
        drop(writing);
        Ok(())
    }

    async fn forget(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        let name = object_sync_name(node, &entry.uid);
        let client = self.0.client.clone();
        let writing = Writing::of(self, node, entry);
        match &entry.path.namespace {
            Some(namespace) => {
                let api = Api::<ObjectSync>::namespaced(client, namespace.as_str());
                in_time(Self::erase(&api, &name)).await?;
            }
            None => in_time(Self::erase(&Api::<ClusterObjectSync>::all(client), &name)).await?,
        }
        self.index().forget(node, &entry.uid);
        drop(writing);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeName>, LedgerError> {
        self.listed().await;
        Ok(self.index().nodes.keys().cloned().collect())
    }

    async fn touched(&self) -> Vec<NodeName> {
        loop {
            let touched = std::mem::take(&mut self.index().touched);
            if !touched.is_empty() {
                return touched.into_iter().collect();
            }
            self.0.wake.notified().await;
        }
    }
}

impl fmt::Debug for CrdLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrdLedger").field("nodes", &self.index().nodes.len()).finish_non_exhaustive()
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    timeout(PATIENCE, work).await.unwrap_or_else(|elapsed| Err(LedgerError::Unavailable(elapsed.into())))
}

/// What the API says to a record that is not there yet: 404 is about its namespace.
fn classified(err: Error) -> LedgerError {
    match err {
        Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 422) => {
            LedgerError::Refused(Box::new(Error::Api(status)))
        }
        err => LedgerError::Unavailable(err.into()),
    }
}

/// What the API says to a record that was there a moment ago: somebody may have removed it meanwhile.
fn again(err: Error) -> LedgerError {
    match err {
        Error::Api(status) if status.is_not_found() => LedgerError::Unavailable(Box::new(Error::Api(status))),
        err => classified(err),
    }
}

/// Either kind of record.
trait Record:
    Resource<DynamicType = ()> + Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    const NAMESPACED: bool;
    fn of(metadata: ObjectMeta, entry: &LedgerEntry) -> Self;
    fn spec(&self) -> &ObjectSyncSpec;
    fn status(&self) -> Option<&ObjectSyncStatus>;
}

fn spec_of(entry: &LedgerEntry) -> ObjectSyncSpec {
    ObjectSyncSpec {
        object_api_version: entry.api_version.clone(),
        object_kind: entry.kind.clone(),
        object_name: entry.path.name.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

macro_rules! record {
    ($kind:ident, $namespaced:literal) => {
        impl Record for $kind {
            const NAMESPACED: bool = $namespaced;

            fn of(metadata: ObjectMeta, entry: &LedgerEntry) -> Self {
                Self { metadata, spec: spec_of(entry), status: None }
            }

            fn spec(&self) -> &ObjectSyncSpec {
                &self.spec
            }

            fn status(&self) -> Option<&ObjectSyncStatus> {
                self.status.as_ref()
            }
        }
    };
}
record!(ObjectSync, true);
record!(ClusterObjectSync, false);

/// Version of the record itself, 0 if it cannot be told.
fn revision<K: Record>(record: &K) -> u64 {
    record.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// What a record says, whoever wrote it. One that names no object has a path without a name: nobody can be told of such an
/// object, but the record can be removed.
fn entry<K: Record>(record: &K) -> Option<(NodeName, LedgerEntry)> {
    let (node, uid) = parse_object_sync_name(record.meta().name.as_deref()?)?;
    let (spec, status) = (record.spec(), record.status());
    let namespace = record.meta().namespace.as_deref().map(Namespace::new).transpose().ok()?;
    let kind = ResourceType::from_word(&spec.object_kind.to_ascii_lowercase());
    let path = ObjectPath { namespace, kind, name: ObjectName::new(&spec.object_name).ok() };
    let version = status.map(|status| status.object_resource_version.as_str()).unwrap_or_default();
    let digest = record.annotations().get(DIGEST).and_then(|digest| digest.split_once(':'));
    let digest = digest.filter(|(of, _)| *of == version).map(|(_, digest)| digest.to_owned());
    let entry = LedgerEntry::new(path, uid, &spec.object_api_version, &spec.object_kind);
    Some((node, entry.acknowledged(version.parse().ok(), digest)))
}

#[cfg(test)]
#[path = "crd_ledger/tests.rs"]
mod tests;
