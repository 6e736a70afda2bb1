//! The ledger in ObjectSyncs and ClusterObjectSyncs.

use std::{
    collections::{HashMap, HashSet},
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
    names::{NodeName, Uid},
    resource::{ObjectPath, ResourceType},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{sync::watch, time::timeout};
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

/// The ledger in the custom resources of KubeEdge, shared with Go cloudcores. Cheap to clone.
///
/// Reads are answered from memory, which [`run`](Self::run) fills by watching; writes go to the API.
#[derive(Clone)]
pub struct CrdLedger(Arc<Shared>);

struct Shared {
    client: Client,
    index: Mutex<Index>,
    /// How many of the two kinds have been listed in whole.
    listed: watch::Sender<(bool, bool)>,
}

/// By node and UID.
type Index = HashMap<NodeName, HashMap<Uid, LedgerEntry>>;

impl CrdLedger {
    /// The ledger behind `client`. The custom resources have to be installed.
    pub fn new(client: Client) -> Self {
        Self(Arc::new(Shared { client, index: Mutex::default(), listed: watch::Sender::new((false, false)) }))
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
                Ok(watcher::Event::Delete(record)) => self.unlearn(&record.name_any()),
                Ok(watcher::Event::InitDone) => {
                    self.retain::<K>(&seen);
                    seen = HashSet::new();
                    self.0.listed.send_modify(listed);
                }
                Err(err) => tracing::warn!(err = &err as &dyn std::error::Error, "watch of the ledger interrupted"),
            }
        }
    }

    fn learn<K: Record>(&self, record: &K) {
        let Some((node, entry)) = entry(record) else { return };
        self.index().entry(node).or_default().insert(entry.uid.clone(), entry);
    }

    fn unlearn(&self, name: &str) {
        let Some((node, uid)) = parse_object_sync_name(name) else { return };
        self.remove(&node, &uid);
    }

    fn remove(&self, node: &NodeName, uid: &Uid) {
        let mut index = self.index();
        if let Some(entries) = index.get_mut(node) {
            entries.remove(uid);
            if entries.is_empty() {
                index.remove(node);
            }
        }
    }

    fn retain<K: Record>(&self, there: &HashSet<String>) {
        let mut index = self.index();
        for (node, entries) in &mut *index {
            entries.retain(|uid, entry| {
                entry.path.namespace.is_some() != K::NAMESPACED || there.contains(&object_sync_name(node, uid))
            });
        }
        index.retain(|_, entries| !entries.is_empty());
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listed(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.listed.subscribe().wait_for(|(objects, cluster)| *objects && *cluster).await;
    }

    async fn write<K: Record>(api: &Api<K>, name: &str, entry: &LedgerEntry) -> Result<(), Error> {
        let version = entry.version.map_or_else(|| "0".to_owned(), |version| version.to_string());
        let digest = entry.digest.as_ref().map(|digest| format!("{version}:{digest}"));
        let annotations = digest.iter().map(|digest| (DIGEST.to_owned(), digest.clone())).collect();
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), annotations: Some(annotations), ..ObjectMeta::default() };
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { DIGEST: digest } } }));
        // Most records are there already. Two writes, as the status is a subresource; the annotation counts only when the
        // status agrees with it, so a crash in between does no harm.
        match api.patch(name, &PatchParams::default(), &patch).await {
            Ok(_) => {}
            Err(Error::Api(status)) if status.is_not_found() => {
                match api.create(&PostParams::default(), &K::of(metadata, entry)).await {
                    Ok(_) => {}
                    // Another instance was faster.
                    Err(Error::Api(status)) if status.is_already_exists() => {
                        api.patch(name, &PatchParams::default(), &patch).await?;
                    }
                    Err(err) => return Err(err),
                }
            }
            Err(err) => return Err(err),
        }
        let status = Patch::Merge(json!({ "status": { "objectResourceVersion": version } }));
        api.patch_status(name, &PatchParams::default(), &status).await.map(drop)
    }

    async fn erase<K: Record>(api: &Api<K>, name: &str) -> Result<(), Error> {
        match api.delete(name, &DeleteParams::default().grace_period(0)).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(err) => Err(err),
        }
    }
}

#[async_trait]
impl SyncLedger for CrdLedger {
    async fn list(&self, node: &NodeName) -> Result<Vec<LedgerEntry>, LedgerError> {
        self.listed().await;
        Ok(self.index().get(node).into_iter().flat_map(HashMap::values).cloned().collect())
    }

    async fn record(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        let name = object_sync_name(node, &entry.uid);
        let client = self.0.client.clone();
        match &entry.path.namespace {
            Some(namespace) => {
                let api = Api::<ObjectSync>::namespaced(client, namespace.as_str());
                in_time(Self::write(&api, &name, entry)).await?;
            }
            None => in_time(Self::write(&Api::<ClusterObjectSync>::all(client), &name, entry)).await?,
        }
        self.index().entry(node.clone()).or_default().insert(entry.uid.clone(), entry.clone());
        Ok(())
    }

    async fn forget(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        let name = object_sync_name(node, &entry.uid);
        let client = self.0.client.clone();
        match &entry.path.namespace {
            Some(namespace) => {
                let api = Api::<ObjectSync>::namespaced(client, namespace.as_str());
                in_time(Self::erase(&api, &name)).await?;
            }
            None => in_time(Self::erase(&Api::<ClusterObjectSync>::all(client), &name)).await?,
        }
        self.remove(node, &entry.uid);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeName>, LedgerError> {
        self.listed().await;
        Ok(self.index().keys().cloned().collect())
    }
}

impl fmt::Debug for CrdLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrdLedger").field("nodes", &self.index().len()).finish_non_exhaustive()
    }
}

async fn in_time(work: impl Future<Output = Result<(), Error>>) -> Result<(), LedgerError> {
    match timeout(PATIENCE, work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Error::Api(status))) if matches!(status.code, 400 | 403 | 404 | 422) => {
            Err(LedgerError::Refused(Box::new(Error::Api(status))))
        }
        Ok(Err(err)) => Err(LedgerError::Unavailable(err.into())),
        Err(elapsed) => Err(LedgerError::Unavailable(elapsed.into())),
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

fn entry<K: Record>(record: &K) -> Option<(NodeName, LedgerEntry)> {
    let (node, uid) = parse_object_sync_name(record.meta().name.as_deref()?)?;
    let (spec, status) = (record.spec(), record.status());
    let kind = ResourceType::from_word(&spec.object_kind.to_ascii_lowercase());
    let path = match record.meta().namespace.as_deref() {
        Some(namespace) => ObjectPath::namespaced(namespace, kind, &spec.object_name).ok()?,
        None => ObjectPath::cluster(kind, &spec.object_name).ok()?,
    };
    let version = status.map(|status| status.object_resource_version.as_str()).unwrap_or_default();
    let digest = record.annotations().get(DIGEST).and_then(|digest| digest.split_once(':'));
    let entry = LedgerEntry {
        path,
        uid,
        api_version: spec.object_api_version.clone(),
        kind: spec.object_kind.clone(),
        version: version.parse().ok(),
        digest: digest.filter(|(of, _)| *of == version).map(|(_, digest)| digest.to_owned()),
    };
    Some((node, entry))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;

    fn record(annotation: Option<&str>) -> Value {
        json!({
            "apiVersion": "reliablesyncs.kubeedge.io/v1alpha1", "kind": "ObjectSync",
            "metadata": {
                "name": "edge-1.site.u-1", "namespace": "default",
                "annotations": annotation.map(|text| json!({ DIGEST: text })),
            },
            "spec": { "objectAPIVersion": "v1", "objectKind": "ConfigMap", "objectName": "kube-root-ca.crt" },
            "status": { "objectResourceVersion": "347" },
        })
    }

    #[test]
    fn records_of_go_are_understood() {
        let (node, entry) = entry(&serde_json::from_value::<ObjectSync>(record(None)).unwrap()).unwrap();
        assert_eq!(node.as_str(), "edge-1.site");
        assert_eq!(entry.path.to_string(), "default/configmap/kube-root-ca.crt");
        assert_eq!((entry.version.unwrap().number(), entry.digest), (347, None));
    }

    #[test]
    fn a_digest_counts_only_with_its_version() {
        let digest = |text| {
            let record = serde_json::from_value::<ObjectSync>(record(Some(text))).unwrap();
            entry(&record).unwrap().1.digest
        };
        assert_eq!(digest("347:abc").as_deref(), Some("abc"));
        assert_eq!(digest("346:abc"), None, "somebody who does not know of it has written since");
    }
}
