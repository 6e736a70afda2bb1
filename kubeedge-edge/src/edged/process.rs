//! Pods as plain processes of the host, for gateways without a container engine. Needs no root and no namespaces.

mod kernel;
mod root;
mod shared;
mod state;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream;
use kubeedge_core::{
    names::{SharedClock, Uid},
    service::{BoxError, Subscription},
};
use rustix::process::Signal;
use tokio::sync::broadcast;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{
    shared::{Container, Shared},
    state::{ContainerRecord, SandboxRecord},
};
use super::runtime::{
    ContainerConfig, ContainerId, ContainerStatus, ImageRef, PodRuntime, PullPolicy, RuntimeError, RuntimeEvent,
    RuntimeVersion, SandboxConfig, SandboxId, SandboxStatus,
};

/// Variable with the directory in which a container finds its volume mounts.
pub(crate) const POD_ROOT: &str = "KUBEEDGE_POD_ROOT";
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
        let guard = stop.clone().drop_guard();
        let shared = Arc::new(Shared {
            root,
            clock,
            boot,
            pods: Mutex::default(),
            events: broadcast::channel(256).0,
            tasks: TaskTracker::new(),
            stop,
        });
        let adopting = Arc::clone(&shared);
        blocking(move || {
            for (sandbox, containers) in loaded {
                adopting.lock().sandboxes.insert(SandboxId::new(&*sandbox.id), sandbox.clone());
                for record in containers {
                    adopting.adopt(&sandbox, record);
                }
            }
            Ok(())
        })
        .await
        .map_err(failed)?;
        Ok(Self { shared, _stop: guard })
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
        let container =
            Container { record, sandbox: sandbox.clone(), uid, ended: CancellationToken::new(), launch: Some(config) };
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
            .map(|(id, container)| container.status(id))
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
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Makes a directory that only we may look into.
pub(super) use self::state::make_private_dir;

/// Removes a directory tree, if it is there.
pub(super) async fn remove_tree(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    blocking(move || ignore_missing(fs::remove_dir_all(path))).await
}
