//! A pod as it is wanted, parsed once.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kubeedge_core::{
    meta::Record,
    names::{Namespace, ObjectName, Uid},
    service::BoxError,
};

use super::{
    config::EdgedConfig,
    decide::{Goal, grace_of},
    references::{Reference, references},
    report::PodKey,
    volumes::segment,
};

/// A pod that this node runs.
#[derive(Debug)]
pub(crate) struct PodEntry {
    pub(crate) key: PodKey,
    pub(crate) uid: Uid,
    pub(crate) pod: Pod,
    /// What it refers to, and whether it can do without.
    pub(crate) references: BTreeMap<Reference, bool>,
}

impl PodEntry {
    /// Reads a stored pod. `None` if it belongs to another node.
    ///
    /// # Errors
    /// What is not a pod, or has names that cannot be used in paths.
    pub(crate) fn read(record: &Record, node: &str) -> Result<Option<Self>, BoxError> {
        let mut pod: Pod = serde_json::from_slice(&record.value)?;
        pod.metadata.managed_fields = None;
        let Some(spec) = &pod.spec else { return Err("it has no spec".into()) };
        if spec.node_name.as_deref() != Some(node) {
            return Ok(None);
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        segment(uid)?;
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            segment(&container.name)?;
        }
        let key = PodKey {
            namespace: Namespace::new(segment(&record.key.namespace)?)?,
            name: ObjectName::new(segment(&record.key.name)?)?,
        };
        let uid = Uid::new(uid)?;
        // What is asked for in its name and what is stored for it must be of one pod.
        let metadata = &mut pod.metadata;
        for (what, said, known) in [
            ("namespace", &mut metadata.namespace, key.namespace.as_str()),
            ("name", &mut metadata.name, key.name.as_str()),
        ] {
            if said.as_deref().is_some_and(|said| said != known) {
                return Err(format!("its {what} is not the one under which it came").into());
            }
            *said = Some(known.to_owned());
        }
        Ok(Some(Self { key, uid, references: references(&pod), pod }))
    }

    /// Whether somebody deleted it.
    pub(crate) fn is_deleted(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// What is wanted of it.
    pub(crate) fn goal(&self) -> Goal {
        if self.is_deleted() { Goal::End(self.grace()) } else { Goal::Run }
    }

    /// How long its containers may take to end.
    pub(crate) fn grace(&self) -> Duration {
        grace_of(&self.pod)
    }

    /// Where its volumes lie.
    pub(crate) fn dir(&self, config: &EdgedConfig) -> PathBuf {
        config.root_dir.join("pods").join(self.uid.as_str())
    }

    /// Where its logs lie.
    pub(crate) fn log_dir(&self, config: &EdgedConfig) -> PathBuf {
        log_dir(config, &self.key, &self.uid)
    }
}

/// Where the logs of a pod lie, as the kubelet lays them out.
pub(crate) fn log_dir(config: &EdgedConfig, key: &PodKey, uid: &Uid) -> PathBuf {
    config.pod_logs_dir.join(format!("{}_{}_{uid}", key.namespace, key.name))
}

#[cfg(test)]
mod tests;
