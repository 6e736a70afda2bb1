//! The pod runtime seam: what runs sandboxes and containers, in the shape of the container runtime interface.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    names::{Namespace, ObjectName, Uid, UnixMillis},
    service::{BoxError, Subscription},
};

macro_rules! runtime_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id that a runtime gave.
            pub fn new(id: impl Into<Arc<str>>) -> Self {
                Self(id.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

runtime_id!(
    /// Id of a sandbox, chosen by the runtime.
    SandboxId
);
runtime_id!(
    /// Id of a container, chosen by the runtime.
    ContainerId
);

/// Name and version of a runtime, as the node reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// Such as `containerd` or `native`; also the scheme of container ids in pod statuses.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl fmt::Display for RuntimeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.version)
    }
}

/// Which pod a sandbox belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// UID of the pod.
    pub uid: Uid,
    /// Namespace of the pod.
    pub namespace: Namespace,
    /// Name of the pod.
    pub name: ObjectName,
    /// Host name that the pod sees.
    pub hostname: String,
    /// Counts sandboxes of the same pod, from 0.
    pub attempt: u32,
    /// Directory under which the containers' logs lie.
    pub log_directory: PathBuf,
}

/// A sandbox, as the runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxStatus {
    /// Its id.
    pub id: SandboxId,
    /// UID of its pod.
    pub uid: Uid,
    /// Counts sandboxes of the same pod.
    pub attempt: u32,
    /// Whether containers can be started in it.
    pub ready: bool,
    /// When it was made.
    pub created_at: UnixMillis,
    /// Address of the pod, if it has one of its own.
    pub ip: Option<String>,
}

/// A path of the host that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where the container sees it; absolute.
    pub container_path: PathBuf,
    /// What it sees there.
    pub host_path: PathBuf,
    /// Whether it may only be read. Runtimes without mount namespaces cannot enforce it.
    pub read_only: bool,
}

/// A container to create. Variables are resolved and expanded already.
#[derive(Clone, PartialEq, Eq)]
pub struct ContainerConfig {
    /// Name of the container in its pod.
    pub name: String,
    /// Counts starts of that container, from 0; the restart count of the pod status.
    pub attempt: u32,
    /// Image, as [`PodRuntime::ensure_image`] gave it.
    pub image: ImageRef,
    /// Changes when the container has to be replaced; comes back in [`ContainerStatus::spec_hash`].
    pub spec_hash: String,
    /// Program and first arguments; empty for the image's own.
    pub command: Vec<String>,
    /// Further arguments; empty for the image's own, unless `command` is given.
    pub args: Vec<String>,
    /// Working directory; empty for the image's own.
    pub working_dir: String,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// What it sees of the host.
    pub mounts: Vec<Mount>,
    /// Log file, relative to [`SandboxConfig::log_directory`].
    pub log_path: PathBuf,
}

impl fmt::Debug for ContainerConfig {
    // Environments carry secrets: only the names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerConfig")
            .field("name", &self.name)
            .field("attempt", &self.attempt)
            .field("image", &self.image)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// An image that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRef {
    /// As the pod names it.
    pub name: String,
    /// Its digest or id; empty if the runtime has none.
    pub id: String,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullPolicy {
    /// When it is not there.
    #[default]
    IfNotPresent,
    /// Before every start.
    Always,
    /// Not by us.
    Never,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal if a signal ended it, 137 if nobody knows.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When, as far as known.
    pub finished_at: Option<UnixMillis>,
    /// Such as `Completed`, `Error`, `ContainerStatusUnknown`.
    pub reason: String,
    /// More for people.
    pub message: String,
}

/// State of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerState {
    /// Created, not started.
    Created,
    /// Running since.
    Running {
        /// The start.
        started_at: UnixMillis,
    },
    /// Ended.
    Exited {
        /// The start, if it came so far.
        started_at: Option<UnixMillis>,
        /// The end.
        exit: Exit,
    },
}

/// A container, as the runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// The sandbox that it is in.
    pub sandbox: SandboxId,
    /// Name in its pod.
    pub name: String,
    /// Which start of that container this is.
    pub attempt: u32,
    /// Its image.
    pub image: ImageRef,
    /// See [`ContainerConfig::spec_hash`].
    pub spec_hash: String,
    /// What it does.
    pub state: ContainerState,
    /// Full path of its log file.
    pub log_path: PathBuf,
}

impl ContainerStatus {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }
}

/// Tells that something of a pod changed; what, the lists tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeEvent {
    /// A sandbox or container of the pod with that UID changed its state.
    PodChanged(Uid),
    /// Events were missed: look at every pod.
    Lagged,
}

/// Why the runtime did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no such sandbox, container or image.
    #[error("{0} not found")]
    NotFound(String),
    /// What was asked for cannot be done by this runtime, now or later.
    #[error("{0}")]
    Invalid(String),
    /// The image could not be fetched.
    #[error("image {image} cannot be had")]
    Image {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The runtime cannot be reached; containers go on.
    #[error("pod runtime cannot be reached")]
    Unavailable(#[source] BoxError),
    /// The runtime failed in its own way.
    #[error("pod runtime failed")]
    Failed(#[source] BoxError),
}

/// Runs sandboxes and the containers in them.
///
/// The calls and their meaning are those of the container runtime interface (`runtime.v1`), cut to what [`Edged`]
/// needs, so that a CRI socket can stand behind it as well as [`ProcessRuntime`]. Calls are idempotent where CRI's
/// are: stopping what is stopped and removing what is gone is fine.
///
/// [`Edged`]: super::Edged
/// [`ProcessRuntime`]: super::ProcessRuntime
#[async_trait]
#[doc(alias = "CRI")]
pub trait PodRuntime: Send + Sync + 'static {
    /// Name and version.
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError>;

    /// Makes a sandbox, ready for containers.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError>;

    /// Kills what still runs in a sandbox and makes it not ready.
    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// Removes a sandbox and all of its containers; stops it if need be.
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError>;

    /// The sandboxes of one pod, or all.
    async fn list_sandboxes(&self, pod: Option<&Uid>) -> Result<Vec<SandboxStatus>, RuntimeError>;

    /// Makes sure that an image is there.
    ///
    /// # Cancel safety
    /// May be dropped; a pull may go on.
    async fn ensure_image(&self, image: &str, policy: PullPolicy) -> Result<ImageRef, RuntimeError>;

    /// Variables that the runtime adds to the environment of that container, for `$(NAME)` references in its spec.
    fn provided_env(&self, sandbox: &SandboxId, container: &str) -> BTreeMap<String, String>;

    /// Creates a container; it does not run yet.
    async fn create_container(&self, sandbox: &SandboxId, config: ContainerConfig)
    -> Result<ContainerId, RuntimeError>;

    /// Starts a created container.
    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Asks a container to end, kills it after `grace`, and resolves when it has ended.
    ///
    /// # Cancel safety
    /// If dropped, the container was asked to end but may never be killed. A second call with a shorter grace may be
    /// made while the first is under way.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError>;

    /// Removes a container that does not run. Its log stays.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// The containers of one pod, or all.
    async fn list_containers(&self, pod: Option<&Uid>) -> Result<Vec<ContainerStatus>, RuntimeError>;

    /// Follows changes.
    async fn events(&self) -> Result<Subscription<RuntimeEvent>, RuntimeError>;
}
