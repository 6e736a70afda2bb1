//! What pods look like to whoever asks the handle.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodStatus;
use kubeedge_core::names::Uid;

use super::{pod::PodEntry, report::PodKey};

/// The pods of the node, by name.
pub(crate) type Snapshots = BTreeMap<PodKey, PodSnapshot>;

/// A pod as it was when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSnapshot {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Uid,
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub phase: String,
    /// Whether its condition `Ready` holds.
    pub ready: bool,
    /// Its regular containers.
    pub containers: Vec<ContainerSnapshot>,
}

/// A container as it was when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSnapshot {
    /// Its name.
    pub name: String,
    /// Its id with the runtime's scheme, such as `native://1f..`; none before the first start.
    pub id: Option<String>,
    /// `Running`, or why it waits or has ended, such as `CrashLoopBackOff` or `Completed`.
    pub state: String,
    /// How often it was started again.
    pub restart_count: u32,
}

impl PodSnapshot {
    pub(crate) fn new(entry: &PodEntry, status: &PodStatus) -> Self {
        let containers = status.container_statuses.iter().flatten().map(|container| {
            let state = container.state.as_ref();
            let waiting = state.and_then(|state| state.waiting.as_ref()?.reason.clone());
            let terminated = state.and_then(|state| state.terminated.as_ref()?.reason.clone());
            ContainerSnapshot {
                name: container.name.clone(),
                id: container.container_id.clone(),
                state: waiting.or(terminated).unwrap_or_else(|| "Running".into()),
                restart_count: u32::try_from(container.restart_count).unwrap_or(0),
            }
        });
        Self {
            namespace: entry.key.namespace.to_string(),
            name: entry.key.name.to_string(),
            uid: entry.uid.clone(),
            phase: status.phase.clone().unwrap_or_default(),
            ready: status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            containers: containers.collect(),
        }
    }
}
