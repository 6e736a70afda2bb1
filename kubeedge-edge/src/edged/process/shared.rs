//! The state of the process runtime, and what happens to single processes.

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kubeedge_core::names::{SharedClock, Uid, UnixMillis};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    POD_ROOT, blocking,
    kernel::{self, Ended, Watched},
    not_found, root,
    state::{self, ContainerRecord, SandboxRecord, StateRecord},
};
use crate::edged::runtime::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Exit, ImageRef, RuntimeError, SandboxId,
};

/// Variable by which a process is found again when the agent died between starting it and writing its id down.
const CONTAINER_ID: &str = "KUBEEDGE_CONTAINER_ID";
/// Searched for commands without a slash, unless the container sets its own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the runtime and its tasks share.
pub(super) struct Shared {
    pub(super) root: PathBuf,
    pub(super) clock: SharedClock,
    pub(super) boot: String,
    pub(super) pods: Mutex<Pods>,
    pub(super) events: broadcast::Sender<Uid>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// All that there is.
#[derive(Default)]
pub(super) struct Pods {
    pub(super) sandboxes: BTreeMap<SandboxId, SandboxRecord>,
    pub(super) containers: BTreeMap<ContainerId, Container>,
}

/// A container and its process.
pub(super) struct Container {
    pub(super) record: ContainerRecord,
    pub(super) sandbox: SandboxId,
    pub(super) uid: Uid,
    /// Cancelled when the process has ended.
    pub(super) ended: CancellationToken,
    /// What to execute; until it is started.
    pub(super) launch: Option<ContainerConfig>,
}

impl Container {
    pub(super) fn status(&self, id: &ContainerId) -> ContainerStatus {
        ContainerStatus {
            id: id.clone(),
            sandbox: self.sandbox.clone(),
            name: self.record.name.clone(),
            attempt: self.record.attempt,
            image: ImageRef { name: self.record.image.clone(), id: String::new() },
            spec_hash: self.record.spec_hash.clone(),
            state: match &self.record.state {
                StateRecord::Created | StateRecord::Starting { .. } => ContainerState::Created,
                StateRecord::Running { started_at, .. } => ContainerState::Running { started_at: *started_at },
                StateRecord::Exited { started_at, .. } => ContainerState::Exited {
                    started_at: *started_at,
                    exit: self.record.state.exit().unwrap_or_else(unknown_exit),
                },
            },
            log_path: self.record.log_path.clone(),
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sandbox_dir(&self, id: &SandboxId) -> PathBuf {
        self.root.join(id.as_str())
    }

    pub(super) fn record_path(&self, sandbox: &SandboxId, record: &ContainerRecord) -> PathBuf {
        self.sandbox_dir(sandbox).join(&record.name).join(format!("{}.json", record.attempt))
    }

    pub(super) fn container_root(&self, sandbox: &SandboxId, container: &str) -> PathBuf {
        self.sandbox_dir(sandbox).join(container).join("root")
    }

    pub(super) fn save(&self, sandbox: &SandboxId, record: &ContainerRecord) -> io::Result<()> {
        state::save(&self.record_path(sandbox, record), record)
    }

    /// Takes over a container that a former agent left.
    pub(super) fn adopt(self: &Arc<Self>, sandbox: &SandboxRecord, mut record: ContainerRecord) {
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

    fn running(&self, watched: &Watched, started_at: UnixMillis) -> StateRecord {
        StateRecord::Running {
            pid: watched.pid(),
            start_ticks: watched.start_ticks(),
            boot_id: self.boot.clone(),
            started_at,
        }
    }

    /// Waits for the end of a process in a task that ends with the runtime.
    pub(super) fn follow(self: &Arc<Self>, id: ContainerId, mut watched: Watched) {
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
    pub(super) fn start(self: &Arc<Self>, id: &ContainerId) -> Result<Watched, RuntimeError> {
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
        // What is on the disk is enough to find the process again. Not to know it here would start it once more.
        if let Err(error) = self.save(&sandbox, &record) {
            tracing::warn!(container = %id, error = %error, "state of container not written");
        }
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
        let directory = root::working_dir(&root, &launch.working_dir, &launch.mounts)?;
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
        Watched::of_child(child.id())
    }

    /// Signals the group of a running container; false if it does not run.
    pub(super) fn signal(&self, id: &ContainerId, signal: Signal) -> bool {
        let pods = self.lock();
        let Some(StateRecord::Running { pid, .. }) = pods.containers.get(id).map(|found| &found.record.state) else {
            return false;
        };
        Pid::from_raw(*pid).is_some_and(|group| kill_process_group(group, signal).is_ok())
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
