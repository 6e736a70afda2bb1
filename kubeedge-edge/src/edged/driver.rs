//! The task that follows the store and gives each pod its worker.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use kubeedge_core::{
    meta::{Collection, MetaError, MetaHandle, MetaKey, MetaWrite, Precondition, Record, Selector},
    names::{SharedClock, Uid},
    resource::ResourceType,
    service::{BoxError, Causes, Subscription},
    uplink::UplinkHandle,
};
use tokio::{
    sync::{OnceCell, watch},
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    Edged,
    config::EdgedConfig,
    node::NodeAgent,
    pod::PodEntry,
    process::remove_tree,
    references::{Resolver, token_is_of},
    report::PodKey,
    runtime::{PodRuntime, RuntimeError, RuntimeEvent, SandboxStatus},
    snapshot::Snapshots,
    worker::{self, Shared, Wanted},
};
use crate::meta::{Change, Follower};

/// How long a failing runtime is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// How long containers of pods that nobody knows may take to end.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);

/// Runs the node and its pods; made by [`Edged::new`].
#[must_use = "nothing runs until the driver is run"]
pub struct EdgedDriver {
    shared: Arc<Shared>,
    node: NodeAgent,
}

impl Edged {
    /// The node and its pods, as a handle and the driver that does the work.
    ///
    /// Pods, ConfigMaps and Secrets come from `store` alone, so that everything works without a cloud; what the cloud
    /// must know is left in the outbox of the store.
    pub fn new(
        mut config: EdgedConfig,
        store: MetaHandle,
        uplink: UplinkHandle,
        runtime: Arc<dyn PodRuntime>,
        clock: SharedClock,
    ) -> (Self, EdgedDriver) {
        // Links to volumes and log files are followed from elsewhere.
        for dir in [&mut config.root_dir, &mut config.pod_logs_dir] {
            if let Ok(absolute) = std::path::absolute(&*dir) {
                *dir = absolute;
            }
        }
        let (pods, seen) = watch::channel(Snapshots::new());
        let node = NodeAgent::new(&config, store.clone(), uplink.clone(), Arc::clone(&runtime), Arc::clone(&clock));
        let edged = Self::from_parts(config.clone(), seen);
        let shared = Arc::new(Shared {
            host_ip: config.node_ip.map(|ip| ip.to_string()),
            link: uplink.state(),
            resolver: Resolver { store: store.clone(), uplink, clock: Arc::clone(&clock) },
            config,
            store,
            runtime,
            runtime_name: OnceCell::new(),
            clock,
            pods,
        });
        (edged, EdgedDriver { shared, node })
    }
}

impl EdgedDriver {
    /// Runs until `shutdown`, or until the store is closed. Containers go on then, unless `shutdown` came and
    /// [`EdgedConfig::stop_pods_on_shutdown`] says otherwise.
    ///
    /// # Cancel safety
    /// Dropping the future ends all work at once and leaves containers as they are.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { shared, node } = self;
        let collection = |kind| Follower::new(shared.store.clone(), Selector::all(Collection::from(&kind)));
        let mut pods = collection(ResourceType::Pod);
        let mut config_maps = collection(ResourceType::ConfigMap);
        let mut secrets = collection(ResourceType::Secret);
        let mut events = Events { runtime: Arc::clone(&shared.runtime), open: None };
        let mut crew =
            Crew { shared: Arc::clone(&shared), members: HashMap::new(), tasks: JoinSet::new(), ids: HashMap::new() };
        let mut node = pin!(node.run());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                change = pods.next_patiently() => match change {
                    Some(change) => crew.pods_changed(change),
                    None => break,
                },
                change = config_maps.next_patiently() => match change {
                    Some(change) => crew.references_changed(&change),
                    None => break,
                },
                change = secrets.next_patiently() => match change {
                    Some(change) => crew.references_changed(&change),
                    None => break,
                },
                event = events.next() => crew.runtime_changed(&event),
                Some(done) = crew.tasks.join_next_with_id(), if !crew.tasks.is_empty() => {
                    let id = match &done {
                        Ok((id, ())) => *id,
                        Err(error) => {
                            tracing::error!(error = %Causes(&error), "worker of a pod failed");
                            error.id()
                        }
                    };
                    crew.ended(id);
                }
                () = &mut node => {}
            }
        }
        crew.tasks.shutdown().await;
        if let Some(grace) = shared.config.stop_pods_on_shutdown
            && shutdown.is_cancelled()
        {
            stop_all(&shared, grace).await;
        }
    }
}

impl std::fmt::Debug for EdgedDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgedDriver").field("node", &self.shared.config.node).finish_non_exhaustive()
    }
}

async fn stop_all(shared: &Shared, grace: Duration) {
    let Ok(containers) = shared.runtime.list_containers(None).await else { return };
    let running = containers.iter().filter(|container| container.is_running());
    let stops = running.map(|container| shared.runtime.stop_container(&container.id, grace));
    for stopped in futures_util::future::join_all(stops).await {
        if let Err(error) = stopped {
            tracing::warn!(error = %Causes(&error), "container is not stopped");
        }
    }
}

/// The workers.
struct Crew {
    shared: Arc<Shared>,
    members: HashMap<PodKey, watch::Sender<Wanted>>,
    tasks: JoinSet<()>,
    ids: HashMap<Id, Option<PodKey>>,
}

impl Crew {
    fn pods_changed(&mut self, change: Change) {
        match change {
            Change::Put(record) => self.put(&record),
            Change::Deleted(key) => self.delete(&key),
            Change::Listed(records) => {
                for record in &records {
                    self.put(record);
                }
                let gone: Vec<_> = self
                    .members
                    .keys()
                    .filter(|key| {
                        !records
                            .iter()
                            .any(|r| *r.key.namespace == *key.namespace.as_str() && *r.key.name == *key.name.as_str())
                    })
                    .cloned()
                    .collect();
                for key in gone {
                    self.want(&key, None);
                }
                let id = self.tasks.spawn(remove_orphans(Arc::clone(&self.shared))).id();
                self.ids.insert(id, None);
            }
        }
    }

    fn put(&mut self, record: &Record) {
        match PodEntry::read(record, self.shared.config.node.as_str()) {
            Ok(Some(entry)) => {
                let key = entry.key.clone();
                self.want(&key, Some(Arc::new(entry)));
            }
            // A pod is never moved, but its name may be used again on another node.
            Ok(None) => self.delete(&record.key),
            Err(error) => tracing::warn!(pod = %record.key, error = %Causes(&*error), "pod cannot be run"),
        }
    }

    fn delete(&mut self, key: &MetaKey) {
        let found = self
            .members
            .keys()
            .find(|pod| *pod.namespace.as_str() == *key.namespace && *pod.name.as_str() == *key.name);
        if let Some(pod) = found.cloned() {
            self.want(&pod, None);
        }
    }

    fn want(&mut self, key: &PodKey, entry: Option<Arc<PodEntry>>) {
        if let Some(member) = self.members.get(key) {
            member.send_modify(|wanted| wanted.entry = entry);
        } else if entry.is_some() {
            let (member, _) = watch::channel(Wanted { entry, ..Wanted::default() });
            self.members.insert(key.clone(), member);
            self.start(key);
        }
    }

    fn start(&mut self, key: &PodKey) {
        let Some(member) = self.members.get(key) else { return };
        let id = self.tasks.spawn(worker::run(Arc::clone(&self.shared), key.clone(), member.subscribe())).id();
        self.ids.insert(id, Some(key.clone()));
    }

    /// A worker ended: because there is nothing to do, or there was nothing until just now, or it failed.
    fn ended(&mut self, id: Id) {
        let Some(Some(key)) = self.ids.remove(&id) else { return };
        let more = self.members.get(&key).is_some_and(|member| member.borrow().entry.is_some());
        if more {
            self.start(&key);
        } else {
            self.members.remove(&key);
        }
    }

    fn references_changed(&self, change: &Change) {
        let key = match change {
            Change::Listed(_) => None,
            Change::Put(record) => Some(&record.key),
            Change::Deleted(key) => Some(key),
        };
        for (pod, member) in &self.members {
            member.send_if_modified(|wanted| {
                let concerned = match (key, &wanted.entry) {
                    (None, _) => true,
                    (Some(key), Some(entry)) => {
                        *key.namespace == *pod.namespace.as_str() && entry.references.keys().any(|r| r.is(key))
                    }
                    (Some(_), None) => false,
                };
                wanted.references += u64::from(concerned);
                concerned
            });
        }
    }

    fn runtime_changed(&self, event: &RuntimeEvent) {
        for member in self.members.values() {
            member.send_if_modified(|wanted| {
                let concerned = match event {
                    RuntimeEvent::PodChanged(uid) => wanted.entry.as_ref().is_none_or(|entry| entry.uid == *uid),
                    RuntimeEvent::Lagged => true,
                };
                wanted.runtime += u64::from(concerned);
                concerned
            });
        }
    }
}

fn uid_of(record: &Record) -> Option<Uid> {
    #[derive(serde::Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(serde::Deserialize)]
    struct Metadata {
        uid: Option<Uid>,
    }
    serde_json::from_slice::<Object>(&record.value).ok()?.metadata.uid
}

/// Stops and removes sandboxes of pods that are not in the store, with all their files, and forgets what was remembered
/// of such pods.
async fn remove_orphans(shared: Arc<Shared>) {
    if let Err(error) = forget_gone(&shared.store).await {
        tracing::warn!(error = %Causes(&error), "what is remembered of deleted pods stays");
    }
    let orphans = loop {
        match find_orphans(&shared).await {
            Ok(orphans) => break orphans,
            Err(error) => {
                tracing::warn!(error = %Causes(&*error), "left-overs of deleted pods are not looked for");
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    for sandbox in orphans {
        tracing::info!(uid = %sandbox.uid, "removing what is left of a deleted pod");
        if let Err(error) = remove_orphan(&shared, &sandbox).await {
            tracing::warn!(uid = %sandbox.uid, error = %Causes(&error), "left-over of a deleted pod stays");
        }
    }
}

/// Removes told statuses and tokens of pods that are not in the store, as a death of the agent between the end of a pod
/// and its last commit leaves them.
async fn forget_gone(store: &MetaHandle) -> Result<(), MetaError> {
    let all = |kind| store.list(Selector::all(Collection::from(&kind)));
    // In this order: what is remembered belongs to a pod that was stored before.
    let (told, tokens) = (all(ResourceType::PodStatus).await?, all(ResourceType::ServiceAccountToken).await?);
    if told.is_empty() && tokens.is_empty() {
        return Ok(());
    }
    let pods = all(ResourceType::Pod).await?;
    let named: HashSet<_> = pods.iter().map(|pod| (&*pod.key.namespace, &*pod.key.name)).collect();
    let uids: HashSet<_> = pods.iter().filter_map(|pod| pod.uid.clone().or_else(|| uid_of(pod))).collect();
    let told = told.iter().filter(|told| !named.contains(&(&*told.key.namespace, &*told.key.name)));
    let tokens = tokens.iter().filter(|token| !uids.iter().any(|uid| token_is_of(&token.key, uid)));
    for gone in told.chain(tokens) {
        let delete = MetaWrite::Delete(gone.key.clone(), Precondition::Unchanged(gone.revision));
        match store.commit(vec![delete]).await {
            Ok(_) | Err(MetaError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn find_orphans(shared: &Shared) -> Result<Vec<SandboxStatus>, BoxError> {
    // In this order: a sandbox that is there belongs to a pod that was stored before.
    let mut sandboxes = shared.runtime.list_sandboxes(None).await?;
    if sandboxes.is_empty() {
        return Ok(sandboxes);
    }
    let pods = shared.store.list(Selector::all(Collection::from(&ResourceType::Pod))).await?;
    for pod in &pods {
        let Some(uid) = pod.uid.clone().or_else(|| uid_of(pod)) else {
            tracing::warn!(pod = %pod.key, "pod without uid in the store: nothing is removed for its sake");
            return Ok(Vec::new());
        };
        sandboxes.retain(|sandbox| sandbox.uid != uid);
    }
    Ok(sandboxes)
}

async fn remove_orphan(shared: &Shared, sandbox: &SandboxStatus) -> Result<(), RuntimeError> {
    let containers = shared.runtime.list_containers(Some(&sandbox.uid)).await?;
    let stops = containers.iter().map(|container| shared.runtime.stop_container(&container.id, ORPHAN_GRACE));
    futures_util::future::try_join_all(stops).await?;
    shared.runtime.remove_sandbox(&sandbox.id).await?;
    let files = |error: std::io::Error| RuntimeError::Failed(error.into());
    remove_tree(&shared.config.root_dir.join("pods").join(sandbox.uid.as_str())).await.map_err(files)?;
    let suffix = format!("_{}", sandbox.uid);
    let Ok(mut logs) = tokio::fs::read_dir(&shared.config.pod_logs_dir).await else { return Ok(()) };
    while let Some(entry) = logs.next_entry().await.map_err(files)? {
        if entry.file_name().to_string_lossy().ends_with(&suffix) {
            remove_tree(&entry.path()).await.map_err(files)?;
        }
    }
    Ok(())
}

/// Events of the runtime, opened again whenever they end.
struct Events {
    runtime: Arc<dyn PodRuntime>,
    open: Option<Subscription<RuntimeEvent>>,
}

impl Events {
    async fn next(&mut self) -> RuntimeEvent {
        loop {
            let Some(open) = &mut self.open else {
                match self.runtime.events().await {
                    Ok(events) => self.open = Some(events),
                    Err(error) => {
                        tracing::warn!(error = %Causes(&error), "pod runtime gives no events");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                continue;
            };
            if let Some(event) = open.next().await {
                return event;
            }
            self.open = None;
            tokio::time::sleep(PAUSE).await;
            return RuntimeEvent::Lagged;
        }
    }
}
