//! Edged: the node and its pods.
//!
//! [`Edged::new`] gives a handle and a driver. The driver registers the node, keeps its lease and status, and gives each
//! pod of the metadata store a worker that makes the [`PodRuntime`] agree with it: a pure decision says what to do, the
//! worker does it, and the resulting status is left in the outbox. Nothing here needs the cloud: pods, ConfigMaps and
//! Secrets come from the store, restarts and back-off go on, and a running container is adopted after a restart of the
//! agent, not started twice.
//!
//! Upstream: `edge/pkg/edged`, and the kubelet that it embeds.

mod config;
mod decide;
mod driver;
mod env;
mod inside;
mod node;
mod pod;
mod process;
mod references;
mod report;
mod runtime;
mod snapshot;
mod status;
mod volumes;
mod worker;

use std::path::PathBuf;

use kubeedge_core::names::{Namespace, ObjectName};
use tokio::sync::watch;

pub use self::{
    config::{EdgedConfig, KUBELET_VERSION},
    driver::EdgedDriver,
    process::ProcessRuntime,
    runtime::{
        ContainerConfig, ContainerId, ContainerState, ContainerStatus, Exit, ImageRef, Mount, PodRuntime, PullPolicy,
        RuntimeError, RuntimeEvent, RuntimeVersion, SandboxConfig, SandboxId, SandboxStatus,
    },
    snapshot::{ContainerSnapshot, PodSnapshot},
};
use self::{pod::log_dir, report::PodKey, snapshot::Snapshots};

/// Tells about the pods of the node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Edged {
    config: std::sync::Arc<EdgedConfig>,
    pods: watch::Receiver<Snapshots>,
}

impl Edged {
    fn from_parts(config: EdgedConfig, pods: watch::Receiver<Snapshots>) -> Self {
        Self { config: config.into(), pods }
    }

    /// The pods as they are now, ordered by namespace and name.
    pub fn pods(&self) -> Vec<PodSnapshot> {
        self.pods.borrow().values().cloned().collect()
    }

    /// Resolves with the pods as soon as `accept` accepts them; `None` if the driver has ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn wait_for(&self, mut accept: impl FnMut(&[PodSnapshot]) -> bool) -> Option<Vec<PodSnapshot>> {
        let mut pods = self.pods.clone();
        loop {
            let now: Vec<_> = pods.borrow_and_update().values().cloned().collect();
            if accept(&now) {
                return Some(now);
            }
            pods.changed().await.ok()?;
        }
    }

    /// The log file of a container's latest start; `None` if there is no such container, or it was never started.
    pub fn log_path(&self, namespace: &str, pod: &str, container: &str) -> Option<PathBuf> {
        let key = PodKey { namespace: Namespace::new(namespace).ok()?, name: ObjectName::new(pod).ok()? };
        let pods = self.pods.borrow();
        let found = pods.get(&key)?;
        let latest = found.containers.iter().find(|known| known.name == container && known.id.is_some())?;
        let file = format!("{}.log", latest.restart_count);
        Some(log_dir(&self.config, &key, &found.uid).join(container).join(file))
    }
}
