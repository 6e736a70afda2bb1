//! Pods as plain processes of the host, for gateways without a container engine. Needs no root and no namespaces.

mod kernel;
mod root;
mod state;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream;
use kubeedge_core::{
    names::{SharedClock, Uid},
    service::{BoxError, Subscription},
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::broadcast;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{
    kernel::{Ended, Watched},
    state::{ContainerRecord, SandboxRecord, StateRecord},
};
use super::runtime::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Exit, ImageRef, PodRuntime, PullPolicy,
    RuntimeError, RuntimeEvent, RuntimeVersion, SandboxConfig, SandboxId, SandboxStatus,
};

/// Variable with the directory in which a container finds its volume mounts.
pub(crate) const POD_ROOT: &str = "KUBEEDGE_POD_ROOT";
/// Variable by which a process is found again when the agent died between starting it and writing its id down.
const CONTAINER_ID: &str = "KUBEEDGE_CONTAINER_ID";
/// Searched for commands without a slash, unless the container sets its own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the kernel may take to end a killed process.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs containers as native processes.
///
/// * **Command.** `command` is required; it and `args` are executed as they are, never by a shell. A command with a
///   slash is a path of the host, any other is searched in the container's `PATH`. The image may be any text, by
///   convention `native://<name>`; nothing is fetched.
/// * **Files.** There is no mount namespace: the container path `/etc/app` appears at `$KUBEEDGE_POD_ROOT/etc/app`, a
///   link to the volume, and `$(KUBEEDGE_POD_ROOT)` may be used in `command`, `args` and `env`. The working directory
///   is that root, or `workingDir` below it, so that relative paths work. The root lives as long as the pod. A mount
///   inside of another mount is refused, and `readOnly` is not enforced.
/// * **Process.** Each container is the leader of its own process group, with no standard input and with none of the
///   agent's environment. Stopping it sends SIGTERM to the group, and SIGKILL after the grace; when the leader ends,
///   what is left of its group is killed. Whoever leaves the group leaves the pod.
/// * **Logs.** Standard output and error go straight to the log file, as they are (not in the format of CRI), so that
///   nobody has to be there to copy them.
/// * **Restart of the agent.** Processes go on and are adopted: `<root>/<sandbox>/<container>/<attempt>.json` has the
///   process id and the start time by which it is known again. The exit status of a process that ended meanwhile, or
///   of one that is not our child, cannot be had: it counts as 137, `ContainerStatusUnknown`. A supervisor must not
///   kill the whole control group of the agent (systemd: `KillMode=process`).
///
/// Dropping the runtime leaves the processes alone.
pub struct ProcessRuntime {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    root: PathBuf,
    clock: SharedClock,
    boot: String,
    pods: Mutex<Pods>,
    events: broadcast::Sender<Uid>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Pods {
    sandboxes: BTreeMap<SandboxId, SandboxRecord>,
    containers: BTreeMap<ContainerId, Container>,
}

struct Container {
    record: ContainerRecord,
    sandbox: SandboxId,
    uid: Uid,
    /// Cancelled when the process has ended.
    ended: CancellationToken,
    /// What to execute; until it is started.
    launch: Option<ContainerConfig>,
}

impl ProcessRuntime {
    /// Opens the runtime whose state lies in `root`, and adopts what runs there already.
    ///
    /// # Errors
    /// [`RuntimeError::Failed`] if `root` cannot be made or read.
    pub async fn open(root: impl Into<PathBuf>, clock: SharedClock) -> Result<Self, RuntimeError> {
        let root = root.into();
        let (root, boot, loaded) = blocking(move || {
            state::make_private_dir(&root)?;
            let root = root.canonicalize()?;
            let loaded = state::load(&root)?;
            Ok((root, kernel::boot_id(), loaded))
        })
        .await
        .map_err(failed)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            root,
            clock,
            boot,
            pods: Mutex::default(),
            events: broadcast::channel(256).0,
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        for (sandbox, containers) in loaded {
            shared.lock().sandboxes.insert(SandboxId::new(&*sandbox.id), sandbox.clone());
            for record in containers {
                shared.adopt(&sandbox, record);
            }
        }
        Ok(Self { shared, _stop: stop.drop_guard() })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sandbox_dir(&self, id: &SandboxId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn record_path(&self, sandbox: &SandboxId, record: &ContainerRecord) -> PathBuf {
        self.sandbox_dir(sandbox).join(&record.name).join(format!("{}.json", record.attempt))
    }

    fn container_root(&self, sandbox: &SandboxId, container: &str) -> PathBuf {
        self.sandbox_dir(sandbox).join(container).join("root")
    }

    fn save(&self, sandbox: &SandboxId, record: &ContainerRecord) -> io::Result<()> {
        state::save(&self.record_path(sandbox, record), record)
    }

    /// Takes over a container that a former agent left.
    fn adopt(self: &Arc<Self>, sandbox: &SandboxRecord, mut record: ContainerRecord) {
        let sandbox_id = SandboxId::new(&*sandbox.id);
        let id = ContainerId::new(&*record.id);
        let found = match &record.state {
            StateRecord::Running { pid, start_ticks, boot_id, .. } if *boot_id == self.boot => {
                Watched::open(*pid, *start_ticks)
            }
            // The agent died while it started this one: it may run.
            StateRecord::Starting { .. } => kernel::find_by_env(CONTAINER_ID, &record.id)
                .and_then(|(pid, start_ticks)| Watched::open(pid, start_ticks)),
            _ => None,
        };
        match (&record.state, &found) {
            (StateRecord::Created | StateRecord::Starting { .. }, None) => {
                tracing::debug!(container = %id, "container was never started");
                _ = fs::remove_file(self.record_path(&sandbox_id, &record));
                return;
            }
            (StateRecord::Running { started_at, .. } | StateRecord::Starting { started_at }, Some(watched)) => {
                tracing::info!(container = %record.name, pod = %sandbox.name, pid = watched.pid(), "adopted process");
                record.state = self.running(watched, *started_at);
            }
            (StateRecord::Running { started_at, .. }, None) => {
                record.state = StateRecord::exited(Some(*started_at), &unknown_exit());
            }
            _ => {}
        }
        if let Err(error) = self.save(&sandbox_id, &record) {
            tracing::warn!(container = %id, error = %error, "state of container not written");
        }
        let ended = CancellationToken::new();
        if found.is_none() {
            ended.cancel();
        }
        let container =
            Container { record, sandbox: sandbox_id, uid: sandbox.uid.clone(), ended: ended.clone(), launch: None };
        self.lock().containers.insert(id.clone(), container);
        if let Some(watched) = found {
            self.follow(id, watched);
        }
    }

    fn running(&self, watched: &Watched, started_at: kubeedge_core::names::UnixMillis) -> StateRecord {
        StateRecord::Running {
            pid: watched.pid(),
            start_ticks: watched.start_ticks(),
            boot_id: self.boot.clone(),
            started_at,
        }
    }

    /// Waits for the end of a process in a task that ends with the runtime.
    fn follow(self: &Arc<Self>, id: ContainerId, mut watched: Watched) {
        let shared = Arc::clone(self);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = watched.ended() => {}
                () = stop.cancelled() => return,
            }
            let done = blocking(move || {
                shared.finish(&id, &watched);
                Ok(())
            });
            if let Err(error) = done.await {
                tracing::warn!(error = %error, "end of a container not handled");
            }
        });
    }

    /// Reaps an ended process. Under the lock, so that nobody signals a process id that is free again.
    fn finish(&self, id: &ContainerId, watched: &Watched) {
        let mut pods = self.lock();
        _ = kill_process_group(watched.group(), Signal::KILL);
        let exit = match watched.reap() {
            Ended::Code(code) => Exit {
                code,
                signal: None,
                finished_at: Some(self.clock.now()),
                reason: if code == 0 { "Completed" } else { "Error" }.into(),
                message: String::new(),
            },
            Ended::Signal(signal) => Exit {
                code: 128 + signal,
                signal: Some(signal),
                finished_at: Some(self.clock.now()),
                reason: "Error".into(),
                message: String::new(),
            },
            Ended::Unknown => Exit { finished_at: Some(self.clock.now()), ..unknown_exit() },
        };
        let Some(container) = pods.containers.get_mut(id) else { return };
        let started_at = container.record.state.started_at();
        container.record.state = StateRecord::exited(started_at, &exit);
        if let Err(error) = self.save(&container.sandbox, &container.record) {
            tracing::warn!(container = %id, error = %error, "end of container not written");
        }
        container.ended.cancel();
        _ = self.events.send(container.uid.clone());
    }

    /// Starts the process of a created container.
    fn start(self: &Arc<Self>, id: &ContainerId) -> Result<Watched, RuntimeError> {
        let now = self.clock.now();
        let (launch, sandbox, mut record) = {
            let mut pods = self.lock();
            let container = pods.containers.get_mut(id).ok_or_else(|| not_found("container", id.as_str()))?;
            let launch = container
                .launch
                .take()
                .ok_or_else(|| RuntimeError::Invalid(format!("container {id} was started before")))?;
            (launch, container.sandbox.clone(), container.record.clone())
        };
        record.state = StateRecord::Starting { started_at: now };
        let started = self
            .save(&sandbox, &record)
            .and_then(|()| self.spawn(id, &sandbox, &record, &launch))
            .map_err(|error| format!("failed to start {:?}: {error}", launch.command.first().map_or("", |c| c)));
        let (state, watched) = match started {
            Ok(watched) => (self.running(&watched, now), Ok(watched)),
            Err(message) => {
                let exit = Exit {
                    code: 128,
                    signal: None,
                    finished_at: Some(now),
                    reason: "StartError".into(),
                    message: message.clone(),
                };
                (StateRecord::exited(Some(now), &exit), Err(RuntimeError::Invalid(message)))
            }
        };
        record.state = state;
        self.save(&sandbox, &record).map_err(failed)?;
        let mut pods = self.lock();
        if let Some(container) = pods.containers.get_mut(id) {
            container.record = record;
            if watched.is_err() {
                container.ended.cancel();
            }
            _ = self.events.send(container.uid.clone());
        }
        watched
    }

    fn spawn(
        &self,
        id: &ContainerId,
        sandbox: &SandboxId,
        record: &ContainerRecord,
        launch: &ContainerConfig,
    ) -> io::Result<Watched> {
        use std::os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _};

        let mut words = launch.command.iter().chain(&launch.args);
        let program = words.next().ok_or_else(|| io::Error::other("no command is given"))?;
        let root = self.container_root(sandbox, &record.name);
        let directory = root::working_dir(&root, &launch.working_dir)?;
        if let Some(parent) = record.log_path.parent() {
            fs::create_dir_all(parent)?;
        }
        let log = fs::OpenOptions::new().append(true).create(true).mode(0o640).open(&record.log_path)?;
        let hostname = self.lock().sandboxes.get(sandbox).map_or_else(String::new, |found| found.hostname.clone());
        let child = Command::new(program)
            .args(words)
            .env_clear()
            .env("PATH", PATH)
            .env("HOSTNAME", hostname)
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .env(POD_ROOT, &root)
            .env(CONTAINER_ID, id.as_str())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        // The child is reaped by its id, the same way as one that was adopted.
        Ok(Watched::of_child(child.id()))
    }

    /// Signals the group of a running container; false if it does not run.
    fn signal(&self, id: &ContainerId, signal: Signal) -> bool {
        let pods = self.lock();
        let Some(StateRecord::Running { pid, .. }) = pods.containers.get(id).map(|found| &found.record.state) else {
            return false;
        };
        Pid::from_raw(*pid).is_some_and(|group| kill_process_group(group, signal).is_ok())
    }

    fn status(&self, id: &ContainerId, container: &Container) -> ContainerStatus {
        ContainerStatus {
            id: id.clone(),
            sandbox: container.sandbox.clone(),
            name: container.record.name.clone(),
            attempt: container.record.attempt,
            image: ImageRef { name: container.record.image.clone(), id: String::new() },
            spec_hash: container.record.spec_hash.clone(),
            state: match &container.record.state {
                StateRecord::Created | StateRecord::Starting { .. } => ContainerState::Created,
                StateRecord::Running { started_at, .. } => ContainerState::Running { started_at: *started_at },
                StateRecord::Exited { started_at, .. } => ContainerState::Exited {
                    started_at: *started_at,
                    exit: container.record.state.exit().unwrap_or_else(unknown_exit),
                },
            },
            log_path: container.record.log_path.clone(),
        }
    }
}

#[async_trait]
impl PodRuntime for ProcessRuntime {
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError> {
        Ok(RuntimeVersion { name: "native".into(), version: env!("CARGO_PKG_VERSION").into() })
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let id = SandboxId::new(uuid::Uuid::new_v4().simple().to_string());
        let record = SandboxRecord::new(&id, &config, self.shared.clock.now());
        let dir = self.shared.sandbox_dir(&id);
        let written = record.clone();
        blocking(move || {
            state::make_private_dir(&dir)?;
            state::save(&dir.join(state::SANDBOX_FILE), &written)
        })
        .await
        .map_err(failed)?;
        self.shared.lock().sandboxes.insert(id.clone(), record);
        _ = self.shared.events.send(config.uid);
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let running: Vec<_> = {
            let pods = self.shared.lock();
            pods.containers.iter().filter(|(_, c)| c.sandbox == *id).map(|(id, _)| id.clone()).collect()
        };
        for container in running {
            self.stop_container(&container, Duration::ZERO).await?;
        }
        let Some(record) = self.shared.lock().sandboxes.get_mut(id).map(|record| {
            record.ready = false;
            record.clone()
        }) else {
            return Ok(());
        };
        let path = self.shared.sandbox_dir(id).join(state::SANDBOX_FILE);
        let uid = record.uid.clone();
        blocking(move || state::save(&path, &record)).await.map_err(failed)?;
        _ = self.shared.events.send(uid);
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.stop_sandbox(id).await?;
        let dir = self.shared.sandbox_dir(id);
        blocking(move || ignore_missing(fs::remove_dir_all(dir))).await.map_err(failed)?;
        let mut pods = self.shared.lock();
        pods.containers.retain(|_, container| container.sandbox != *id);
        if let Some(gone) = pods.sandboxes.remove(id) {
            _ = self.shared.events.send(gone.uid);
        }
        Ok(())
    }

    async fn list_sandboxes(&self, pod: Option<&Uid>) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let pods = self.shared.lock();
        Ok(pods
            .sandboxes
            .iter()
            .filter(|(_, record)| pod.is_none_or(|uid| record.uid == *uid))
            .map(|(id, record)| SandboxStatus {
                id: id.clone(),
                uid: record.uid.clone(),
                attempt: record.attempt,
                ready: record.ready,
                created_at: record.created_at,
                ip: None,
            })
            .collect())
    }

    async fn ensure_image(&self, image: &str, _: PullPolicy) -> Result<ImageRef, RuntimeError> {
        Ok(ImageRef { name: image.into(), id: String::new() })
    }

    fn provided_env(&self, sandbox: &SandboxId, container: &str) -> BTreeMap<String, String> {
        let root = self.shared.container_root(sandbox, container);
        BTreeMap::from([(POD_ROOT.into(), root.to_string_lossy().into_owned())])
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        if config.command.is_empty() {
            return Err(RuntimeError::Invalid(format!(
                "container {:?} has no command, which a native process must have",
                config.name
            )));
        }
        let (uid, log_directory) = {
            let pods = self.shared.lock();
            let found = pods.sandboxes.get(sandbox).filter(|found| found.ready);
            let found = found.ok_or_else(|| not_found("ready sandbox", sandbox.as_str()))?;
            (found.uid.clone(), found.log_directory.clone())
        };
        let id = ContainerId::new(uuid::Uuid::new_v4().simple().to_string());
        let record = ContainerRecord::new(&id, &config, log_directory.join(&config.log_path));
        let root = self.shared.container_root(sandbox, &config.name);
        let mounts = config.mounts.clone();
        let (shared, written, of) = (Arc::clone(&self.shared), record.clone(), sandbox.clone());
        blocking(move || {
            root::link_mounts(&root, &mounts)?;
            shared.save(&of, &written)
        })
        .await
        .map_err(|error| RuntimeError::Invalid(format!("container {:?} cannot be created: {error}", config.name)))?;
        let container = Container {
            record,
            sandbox: sandbox.clone(),
            uid,
            ended: CancellationToken::new(),
            launch: Some(config),
        };
        self.shared.lock().containers.insert(id.clone(), container);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let (shared, of) = (Arc::clone(&self.shared), id.clone());
        // Runs to its end even if the caller goes away, so that a started process is always written down.
        tokio::task::spawn_blocking(move || shared.start(&of).map(|watched| shared.follow(of, watched)))
            .await
            .map_err(failed)?
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let Some(ended) = self.shared.lock().containers.get(id).map(|container| container.ended.clone()) else {
            return Ok(());
        };
        if grace.is_zero() || !self.shared.signal(id, Signal::TERM) {
            _ = self.shared.signal(id, Signal::KILL);
        } else if tokio::time::timeout(grace, ended.cancelled()).await.is_ok() {
            return Ok(());
        } else {
            _ = self.shared.signal(id, Signal::KILL);
        }
        let running = self.shared.lock().containers.get(id).is_some_and(|c| c.record.state.is_running());
        if running && tokio::time::timeout(KILL_TIMEOUT, ended.cancelled()).await.is_err() {
            return Err(failed(io::Error::other(format!("container {id} does not end"))));
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let path = {
            let mut pods = self.shared.lock();
            match pods.containers.get(id) {
                None => return Ok(()),
                Some(container) if container.record.state.is_running() => {
                    return Err(RuntimeError::Invalid(format!("container {id} runs")));
                }
                Some(container) => {
                    let path = self.shared.record_path(&container.sandbox, &container.record);
                    pods.containers.remove(id);
                    path
                }
            }
        };
        blocking(move || ignore_missing(fs::remove_file(path))).await.map_err(failed)
    }

    async fn list_containers(&self, pod: Option<&Uid>) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let pods = self.shared.lock();
        Ok(pods
            .containers
            .iter()
            .filter(|(_, container)| pod.is_none_or(|uid| container.uid == *uid))
            .map(|(id, container)| self.shared.status(id, container))
            .collect())
    }

    async fn events(&self) -> Result<Subscription<RuntimeEvent>, RuntimeError> {
        let items = stream::unfold(self.shared.events.subscribe(), |mut events| async move {
            match events.recv().await {
                Ok(uid) => Some((RuntimeEvent::PodChanged(uid), events)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((RuntimeEvent::Lagged, events)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        Ok(Subscription::new(items, CancellationToken::new()))
    }
}

impl std::fmt::Debug for ProcessRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessRuntime").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

fn unknown_exit() -> Exit {
    Exit {
        code: 137,
        signal: None,
        finished_at: None,
        reason: "ContainerStatusUnknown".into(),
        message: "The exit status of the process could not be had".into(),
    }
}

fn failed(error: impl Into<BoxError>) -> RuntimeError {
    RuntimeError::Failed(error.into())
}

fn not_found(what: &str, id: &str) -> RuntimeError {
    RuntimeError::NotFound(format!("{what} {id}"))
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Runs file work off the event loop.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Removes a directory tree, if it is there.
pub(super) async fn remove_tree(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    blocking(move || ignore_missing(fs::remove_dir_all(path))).await
}
