//! What the cloud has written down of acknowledgements: the moment at which a delivery is durable.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use kubeedge_cloud::crds::ObjectSync;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

/// A node has acknowledged a version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// Name of the record: one per node and object.
    pub(crate) record: String,
    pub(crate) object: String,
    pub(crate) version: u64,
    pub(crate) at: Instant,
}

/// Watches the ObjectSyncs of a namespace.
pub(crate) struct Ledger {
    seen: Arc<Mutex<Vec<Acknowledged>>>,
    task: JoinHandle<()>,
}

impl Ledger {
    /// Watches `namespace`; returns when what is there already has been listed.
    pub(crate) async fn watch(client: Client, namespace: &str) -> Self {
        let (seen, listed) = (Arc::<Mutex<Vec<Acknowledged>>>::default(), Arc::new(Notify::new()));
        let api = Api::<ObjectSync>::namespaced(client, namespace);
        let (found, is_listed) = (seen.clone(), listed.clone());
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::Apply(record)) => {
                        if let Some(acknowledged) = read(record) {
                            found.lock().unwrap_or_else(PoisonError::into_inner).push(acknowledged);
                        }
                    }
                    Ok(watcher::Event::InitDone) => is_listed.notify_one(),
                    Ok(_) => {}
                    Err(error) => eprintln!("watch of the ledger interrupted: {error}"),
                }
            }
        });
        listed.notified().await;
        Self { seen, task }
    }

    /// What has come since the last call.
    pub(crate) fn take(&self) -> Vec<Acknowledged> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn read(record: ObjectSync) -> Option<Acknowledged> {
    let version = record.status?.object_resource_version.parse().ok()?;
    let at = Instant::now();
    Some(Acknowledged { record: record.metadata.name?, object: record.spec.object_name, version, at })
}
