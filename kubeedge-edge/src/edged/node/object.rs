//! The Node object and its patches: pure functions of what was read.

use std::collections::BTreeMap;

use kubeedge_core::names::UnixMillis;
use serde_json::{Value, json};

use super::host::{HostFacts, HostLoad, architecture};
use crate::edged::{
    config::{EdgedConfig, KUBELET_VERSION},
    runtime::RuntimeVersion,
    status::time,
};

/// Since when conditions have been as they are.
#[derive(Debug, Default)]
pub(super) struct Seen {
    conditions: BTreeMap<&'static str, (bool, String)>,
}

/// The node at one moment.
#[derive(Debug)]
pub(super) struct NodeView {
    name: String,
    labels: BTreeMap<String, String>,
    port: u16,
    status: Value,
    /// The status without what changes with every look.
    essence: Value,
    known: Option<Value>,
}

impl NodeView {
    pub(super) fn new(
        config: &EdgedConfig,
        facts: &HostFacts,
        load: HostLoad,
        runtime: Result<RuntimeVersion, String>,
        known: Option<&Value>,
        seen: &mut Seen,
        now: UnixMillis,
    ) -> Self {
        let name = config.node.to_string();
        let reserve_kib = config.memory_reserve / 1024;
        let memory_short = load.memory_left.is_some_and(|left| left < reserve_kib);
        let disk_percent = u64::from(config.disk_reserve_percent.min(100));
        let disk_short = load.disk_left.saturating_mul(100) < load.disk.saturating_mul(disk_percent);
        let pressure = |kind: &'static str, holds: bool, what: (&'static str, &'static str)| match (holds, what) {
            (true, (short, _)) => (kind, true, format!("KubeletHas{short}"), pressure_message(kind, true)),
            (false, (_, fine)) => (kind, false, format!("KubeletHas{fine}"), pressure_message(kind, false)),
        };
        let ready = match &runtime {
            Ok(_) => ("Ready", true, "EdgeReady".to_owned(), "edge is posting ready status".to_owned()),
            Err(error) => ("Ready", false, "KubeletNotReady".to_owned(), error.clone()),
        };
        let found = [
            pressure("MemoryPressure", memory_short, ("InsufficientMemory", "SufficientMemory")),
            pressure("DiskPressure", disk_short, ("DiskPressure", "NoDiskPressure")),
            pressure("PIDPressure", false, ("InsufficientPID", "SufficientPID")),
            ready,
        ];
        let beat = json!(time(now));
        let (mut conditions, mut essence) = (Vec::new(), Vec::new());
        for (kind, holds, reason, message) in found {
            let since = since(seen, known, kind, holds, &beat);
            let status = if holds { "True" } else { "False" };
            essence.push(json!([kind, status, reason, message]));
            conditions.push(json!({
                "type": kind, "status": status, "lastHeartbeatTime": beat, "lastTransitionTime": since,
                "reason": reason, "message": message,
            }));
        }
        let mut addresses = Vec::new();
        if let Some(ip) = config.node_ip {
            addresses.push(json!({"type": "InternalIP", "address": ip}));
        }
        addresses.push(json!({"type": "Hostname", "address": name}));
        let resources = |memory_kib: u64, disk: String| {
            json!({
                "cpu": facts.cpus.to_string(), "memory": format!("{memory_kib}Ki"),
                "pods": config.max_pods.to_string(), "ephemeral-storage": disk,
            })
        };
        let status = json!({
            "capacity": resources(facts.memory_kib, format!("{}Ki", load.disk)),
            "allocatable": resources(
                facts.memory_kib.saturating_sub(reserve_kib),
                (load.disk.saturating_mul(1024) / 100 * (100 - disk_percent)).to_string(),
            ),
            "conditions": conditions,
            "addresses": addresses,
            "nodeInfo": {
                "machineID": facts.machine_id,
                "systemUUID": facts.system_uuid,
                "bootID": facts.boot_id,
                "kernelVersion": facts.kernel,
                "osImage": facts.os_image,
                "containerRuntimeVersion": runtime.map_or_else(|_| String::new(), |version| version.to_string()),
                "kubeletVersion": KUBELET_VERSION,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": architecture(),
            },
        });
        let essence = json!([status["capacity"], status["allocatable"], addresses, status["nodeInfo"], essence]);
        Self { labels: labels(config), port: config.kubelet_port, name, status, essence, known: known.cloned() }
    }

    /// What of its status is worth a message of its own.
    pub(super) fn essence(&self) -> Value {
        self.essence.clone()
    }

    /// The object without its status, to give its labels to one that was there before.
    pub(super) fn identity(&self) -> Value {
        json!({
            "metadata": {
                "name": self.name,
                "creationTimestamp": null,
                "labels": self.labels,
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {},
            "status": {},
        })
    }

    /// The whole object, to register it.
    ///
    /// The port of the kubelet API is only told here: later the cloud puts the one of its tunnel there.
    pub(super) fn object(&self) -> Value {
        let mut node = self.identity();
        node["status"] = self.status.clone();
        node["status"]["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": self.port}});
        node
    }

    /// The strategic merge patch of the status.
    pub(super) fn patch(&self) -> Value {
        let mut status = self.status.clone();
        let known = self.known.as_ref().map(|known| &known["status"]["addresses"]);
        if known.is_some_and(|known| known.is_array() && *known != status["addresses"])
            && let Some(addresses) = status["addresses"].as_array_mut()
        {
            // Addresses are merged by type, which would keep old ones.
            addresses.push(json!({"$patch": "replace"}));
        }
        json!({"status": status})
    }

    /// Whether the cloud's node has the labels that it should have, or nothing is known of it.
    pub(super) fn has_labels(&self) -> bool {
        let Some(known) = &self.known else { return true };
        self.labels.iter().all(|(key, value)| known["metadata"]["labels"][key] == value.as_str())
    }
}

fn pressure_message(kind: &str, holds: bool) -> String {
    let text = match (kind, holds) {
        ("MemoryPressure", false) => "kubelet has sufficient memory available",
        ("MemoryPressure", true) => "kubelet has insufficient memory available",
        ("DiskPressure", false) => "kubelet has no disk pressure",
        ("DiskPressure", true) => "kubelet has disk pressure",
        (_, false) => "kubelet has sufficient PID available",
        (_, true) => "kubelet has insufficient PID available",
    };
    text.to_owned()
}

/// Since when the condition has been so: as far as we saw it, or as the cloud has it.
fn since(seen: &mut Seen, known: Option<&Value>, kind: &'static str, holds: bool, now: &Value) -> String {
    let now = now.as_str().unwrap_or_default();
    let word = if holds { "True" } else { "False" };
    let told = || {
        let conditions = known?["status"]["conditions"].as_array()?;
        let told = conditions.iter().find(|told| told["type"] == kind && told["status"] == word)?;
        told["lastTransitionTime"].as_str().map(str::to_owned)
    };
    let since = match seen.conditions.get(kind) {
        Some((before, at)) if *before == holds => at.clone(),
        Some(_) => now.to_owned(),
        None => told().unwrap_or_else(|| now.to_owned()),
    };
    seen.conditions.insert(kind, (holds, since.clone()));
    since
}

fn labels(config: &EdgedConfig) -> BTreeMap<String, String> {
    let usual = [
        ("kubernetes.io/hostname", config.node.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
        ("node-role.kubernetes.io/edge", ""),
        ("node-role.kubernetes.io/agent", ""),
    ];
    let mut labels: BTreeMap<_, _> = usual.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    labels.extend(config.labels.clone());
    labels
}

#[cfg(test)]
mod tests;
