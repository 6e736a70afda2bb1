//! Carries out what is decided about a pod, one worker per pod name.

mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::PodStatus;
use kubeedge_core::{
    message::ContentError,
    meta::{MetaError, MetaHandle},
    names::{SharedClock, UnixMillis},
    service::Causes,
    uplink::LinkState,
};
use tokio::sync::{OnceCell, watch};

use super::{
    config::EdgedConfig,
    decide::{Action, Goal, Input, Memory, Observed, Plan, back_off::BackOffs, decide, later},
    pod::PodEntry,
    process::remove_tree,
    references::{FetchError, Reference, Resolver},
    report::{PodKey, Told},
    runtime::{ContainerId, ContainerStatus, PodRuntime, RuntimeError, SandboxConfig},
    snapshot::{PodSnapshot, Snapshots},
    status::{StatusInput, pod_status},
    volumes::Volumes,
};

/// How many rounds of actions a pod gets before others have their turn.
const ROUNDS: usize = 16;
/// Longest wait after failures of the runtime or the store.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) config: EdgedConfig,
    pub(crate) store: MetaHandle,
    pub(crate) resolver: Resolver,
    pub(crate) runtime: Arc<dyn PodRuntime>,
    pub(crate) runtime_name: OnceCell<String>,
    pub(crate) clock: SharedClock,
    pub(crate) link: watch::Receiver<LinkState>,
    pub(crate) host_ip: Option<String>,
    pub(crate) pods: watch::Sender<Snapshots>,
}

/// What is wanted of a worker; the counters only grow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The pod, or `None` if there shall be none.
    pub(crate) entry: Option<Arc<PodEntry>>,
    /// Changes of what it refers to.
    pub(crate) references: u64,
    /// Changes that the runtime saw.
    pub(crate) runtime: u64,
}

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error("runtime")]
    Runtime(#[from] RuntimeError),
    #[error("store")]
    Store(#[from] MetaError),
    #[error("message")]
    Message(#[from] ContentError),
    #[error("files")]
    Files(#[from] std::io::Error),
}

/// Sees to the pods of one name, one after the other, and ends when there is none.
pub(crate) async fn run(shared: Arc<Shared>, key: PodKey, mut wanted: watch::Receiver<Wanted>) {
    loop {
        let Some(entry) = wanted.borrow_and_update().entry.clone() else { break };
        Worker::new(Arc::clone(&shared), entry, wanted.clone()).attend().await;
    }
    shared.pods.send_if_modified(|pods| pods.remove(&key).is_some());
}

/// What a look at the pod came to.
enum Next {
    Gone,
    Wait(Duration),
}

struct Worker {
    shared: Arc<Shared>,
    entry: Arc<PodEntry>,
    wanted: watch::Receiver<Wanted>,
    told: Option<PodStatus>,
    told_loaded: bool,
    /// Whether the cloud was told that nothing of it runs any more.
    released: bool,
    memory: Memory,
    stops: FuturesUnordered<BoxFuture<'static, ContainerId>>,
    fetches: FuturesUnordered<BoxFuture<'static, (Reference, Result<(), FetchError>)>>,
    fetching: BTreeSet<Reference>,
    /// Optional references that the cloud was asked for.
    asked: BTreeSet<Reference>,
    references_seen: u64,
    refresh: bool,
    failures: u32,
}

impl Worker {
    fn new(shared: Arc<Shared>, entry: Arc<PodEntry>, wanted: watch::Receiver<Wanted>) -> Self {
        let back_off = BackOffs::new(shared.config.back_off, shared.config.max_back_off);
        let references_seen = wanted.borrow().references;
        Self {
            shared,
            entry,
            wanted,
            told: None,
            told_loaded: false,
            released: false,
            memory: Memory { back_off, waiting: BTreeMap::new(), stopping: BTreeMap::new() },
            stops: FuturesUnordered::new(),
            fetches: FuturesUnordered::new(),
            fetching: BTreeSet::new(),
            asked: BTreeSet::new(),
            references_seen,
            // An earlier agent may have missed changes.
            refresh: true,
            failures: 0,
        }
    }

    /// Sees to the pod until it is gone.
    async fn attend(mut self) {
        let mut link = self.shared.link.clone();
        loop {
            let gone = self.take_wanted();
            let wait = match self.sync(gone).await {
                Ok(Next::Gone) => return,
                Ok(Next::Wait(wait)) => {
                    self.failures = 0;
                    wait
                }
                Err(error) => {
                    tracing::warn!(pod = %self.entry.key, error = %Causes(&error), "pod cannot be seen to now");
                    self.failures += 1;
                    Duration::from_secs(1 << self.failures.min(4)).min(LONGEST_PAUSE)
                }
            };
            tokio::select! {
                _ = self.wanted.changed() => {}
                Some(id) = self.stops.next(), if !self.stops.is_empty() => {
                    self.memory.stopping.remove(&id);
                }
                Some((reference, done)) = self.fetches.next(), if !self.fetches.is_empty() => {
                    self.fetched(&reference, done);
                }
                Ok(()) = link.changed() => {
                    if link.borrow_and_update().is_connected() {
                        self.retry_waiting();
                    }
                }
                () = tokio::time::sleep(wait) => {
                    if wait >= self.shared.config.resync {
                        self.refresh = true;
                    }
                }
            }
        }
    }

    /// Takes what is wanted now; true if this pod is no longer wanted.
    fn take_wanted(&mut self) -> bool {
        let wanted = self.wanted.borrow_and_update().clone();
        if wanted.references != self.references_seen {
            self.references_seen = wanted.references;
            self.refresh = true;
            self.retry_waiting();
        }
        match wanted.entry {
            Some(entry) if entry.uid == self.entry.uid => {
                self.entry = entry;
                false
            }
            _ => true,
        }
    }

    fn fetched(&mut self, reference: &Reference, done: Result<(), FetchError>) {
        self.fetching.remove(reference);
        match done {
            Ok(()) => self.refresh = true,
            Err(error) => {
                tracing::debug!(pod = %self.entry.key, reference = %reference.describe(), error = %Causes(&error), "not fetched");
                if self.entry.references.get(reference) != Some(&true) {
                    return;
                }
            }
        }
        self.retry_waiting();
    }

    /// Lets containers that wait be tried again at once.
    fn retry_waiting(&mut self) {
        for waiting in self.memory.waiting.values_mut() {
            waiting.until = UnixMillis(i64::MIN);
        }
    }

    async fn observe(&mut self) -> Result<Observed, RuntimeError> {
        Ok(Observed {
            sandboxes: self.shared.runtime.list_sandboxes(Some(&self.entry.uid)).await?,
            containers: self.shared.runtime.list_containers(Some(&self.entry.uid)).await?,
        })
    }

    async fn load_told(&mut self) -> Result<(), WorkError> {
        if self.told_loaded {
            return Ok(());
        }
        let record = self.shared.store.get(self.entry.key.told()).await?;
        let told = record.and_then(|record| serde_json::from_slice::<Told>(&record.value).ok());
        self.told = match told.filter(|told| told.uid == self.entry.uid) {
            Some(told) => Some(told.status),
            None => self.entry.pod.status.clone(),
        };
        self.told_loaded = true;
        Ok(())
    }

    /// Looks at the pod, does what there is to do, and tells how it is.
    async fn sync(&mut self, gone: bool) -> Result<Next, WorkError> {
        self.load_told().await?;
        let goal = if gone { Goal::End(self.entry.grace()) } else { self.entry.goal() };
        let (mut observed, mut plan) = self.decide(goal).await?;
        for _ in 0..ROUNDS {
            if plan.actions.is_empty() {
                break;
            }
            for action in std::mem::take(&mut plan.actions) {
                self.act(action, &observed).await?;
            }
            (observed, plan) = self.decide(goal).await?;
        }
        if gone && plan.ended {
            self.clean_up(&observed).await?;
            return Ok(Next::Gone);
        }
        if self.refresh && goal == Goal::Run {
            match self.refresh_volumes(&observed).await {
                Ok(()) => self.refresh = false,
                Err(error) => {
                    tracing::warn!(pod = %self.entry.key, error = %Causes(&error), "volumes are not brought up to date");
                    let retry = self.shared.config.retry;
                    plan.wake = Some(plan.wake.map_or(retry, |wake| wake.min(retry)));
                }
            }
        }
        if !gone {
            self.tell(goal, &observed, &plan).await?;
        }
        let busy = if plan.actions.is_empty() { self.shared.config.resync } else { Duration::from_millis(100) };
        Ok(Next::Wait(plan.wake.map_or(busy, |wake| wake.min(busy))))
    }

    async fn decide(&mut self, goal: Goal) -> Result<(Observed, Plan), RuntimeError> {
        let observed = self.observe().await?;
        let plan = decide(&Input {
            pod: &self.entry.pod,
            goal,
            told: self.told.as_ref(),
            observed: &observed,
            memory: &self.memory,
            now: self.shared.clock.now(),
        });
        Ok((observed, plan))
    }

    async fn act(&mut self, action: Action, observed: &Observed) -> Result<(), WorkError> {
        tracing::debug!(pod = %self.entry.key, ?action, "acting");
        let runtime = Arc::clone(&self.shared.runtime);
        match action {
            Action::CreateSandbox { attempt } => {
                let hostname = self.entry.pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
                runtime
                    .run_sandbox(SandboxConfig {
                        uid: self.entry.uid.clone(),
                        namespace: self.entry.key.namespace.clone(),
                        name: self.entry.key.name.clone(),
                        hostname: hostname.unwrap_or_else(|| self.entry.key.name.to_string()),
                        attempt,
                        log_directory: self.entry.log_dir(&self.shared.config),
                    })
                    .await?;
            }
            Action::Start { container, attempt, crashed_at } => {
                let Some(sandbox) = observed.sandbox().cloned() else { return Ok(()) };
                match self.start(&sandbox, &container, attempt, crashed_at).await? {
                    None => _ = self.memory.waiting.remove(&container),
                    Some(waiting) => {
                        // Told once: it may wait for as long as there is no cloud.
                        let told =
                            self.memory.waiting.get(&container).is_some_and(|before| {
                                before.reason == waiting.reason && before.message == waiting.message
                            });
                        if !told {
                            tracing::info!(
                                pod = %self.entry.key, container, reason = waiting.reason, message = waiting.message,
                                "container waits"
                            );
                        }
                        self.memory.waiting.insert(container, waiting);
                    }
                }
            }
            Action::Stop { id, grace } => {
                self.memory.stopping.insert(id.clone(), later(self.shared.clock.now(), grace));
                let stop = async move {
                    if let Err(error) = runtime.stop_container(&id, grace).await {
                        tracing::warn!(container = %id, error = %Causes(&error), "container is not stopped");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    id
                };
                self.stops.push(stop.boxed());
            }
            Action::Remove { id } => {
                runtime.remove_container(&id).await?;
                if let Some(removed) = observed.containers.iter().find(|container| container.id == id) {
                    _ = tokio::fs::remove_file(&removed.log_path).await;
                }
            }
            Action::StopSandbox { id } => runtime.stop_sandbox(&id).await?,
            Action::RemoveSandbox { id } => runtime.remove_sandbox(&id).await?,
        }
        Ok(())
    }

    /// Brings the files of ConfigMaps and Secrets up to date.
    async fn refresh_volumes(&mut self, observed: &Observed) -> Result<(), WorkError> {
        if self.entry.references.is_empty() || !observed.containers.iter().any(ContainerStatus::is_running) {
            return Ok(());
        }
        let loaded = self.load().await?;
        for reference in loaded.wanted {
            if matches!(reference, Reference::Token { .. }) {
                self.fetch(reference);
            }
        }
        let pod_ip = self.pod_ip(observed.sandbox());
        let dir = self.entry.dir(&self.shared.config);
        match Volumes::resolve(&self.entry.pod, &loaded.sources, self.fields(&pod_ip), dir) {
            Ok(volumes) => super::process::blocking(move || volumes.refresh()).await?,
            // The files stay as they are: a running container keeps what it has.
            Err(error) => tracing::debug!(pod = %self.entry.key, error = %error, "volumes not refreshed"),
        }
        Ok(())
    }

    /// Tells the status, if it is another one, and that the pod may go once nothing of it runs.
    async fn tell(&mut self, goal: Goal, observed: &Observed, plan: &Plan) -> Result<(), WorkError> {
        let runtime = &self.shared.runtime;
        let name =
            self.shared.runtime_name.get_or_try_init(|| async { Ok::<_, RuntimeError>(runtime.version().await?.name) });
        let now = self.shared.clock.now();
        let status = pod_status(&StatusInput {
            pod: &self.entry.pod,
            goal,
            told: self.told.as_ref(),
            observed,
            memory: &self.memory,
            crash_loops: &plan.crash_loops,
            ended: plan.ended,
            runtime: name.await?,
            host_ip: self.shared.host_ip.as_deref(),
            now,
        });
        let mut writes = Vec::new();
        let told = Told { uid: self.entry.uid.clone(), status };
        let news = self.told.as_ref() != Some(&told.status);
        if news {
            writes = self.entry.key.tell(&told, now)?;
        }
        let release = plan.ended && self.entry.is_deleted() && !self.released;
        if release {
            writes.push(self.entry.key.release(&self.entry.uid, now)?);
        }
        if !writes.is_empty() {
            self.shared.store.commit(writes).await?;
            self.released |= release;
        }
        let snapshot = PodSnapshot::new(&self.entry, &told.status);
        self.told = Some(told.status);
        self.shared.pods.send_if_modified(|pods| {
            let changed = pods.get(&self.entry.key) != Some(&snapshot);
            pods.insert(self.entry.key.clone(), snapshot);
            changed
        });
        Ok(())
    }

    /// Removes all that is left of a pod that is gone.
    async fn clean_up(&mut self, observed: &Observed) -> Result<(), WorkError> {
        for sandbox in &observed.sandboxes {
            self.shared.runtime.remove_sandbox(&sandbox.id).await?;
        }
        remove_tree(&self.entry.dir(&self.shared.config)).await?;
        remove_tree(&self.entry.log_dir(&self.shared.config)).await?;
        self.shared.store.commit(self.entry.key.forget()).await?;
        let key = &self.entry.key;
        let references = self.entry.references.keys();
        self.shared.resolver.forget(key.namespace.as_str(), self.entry.uid.as_str(), references).await;
        self.shared.pods.send_if_modified(|pods| pods.remove(key).is_some());
        tracing::info!(pod = %key, uid = %self.entry.uid, "pod is gone");
        Ok(())
    }
}
