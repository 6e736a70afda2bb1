//! What a pod needs on its node.

use kubeedge_core::{
    names::NodeName,
    resource::{ObjectPath, ResourceType},
};
use serde_json::Value;

use crate::sync::Facts;

/// Reads a pod: its node, and all that it refers to there. Claims and service accounts are not sent to nodes, but a node
/// may only ask for those of its pods.
///
/// Upstream (`cloud/pkg/edgecontroller/manager/location.go`) leaves out init and ephemeral containers.
pub(super) fn pod_facts(pod: &Value) -> Facts {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let node = spec["nodeName"].as_str().and_then(|name| NodeName::new(name).ok());
    let mut references = Vec::new();
    if node.is_some()
        && let Some(namespace) = metadata["namespace"].as_str()
    {
        let mut add = |kind: ResourceType, name: &Value| {
            if let Some(name) = name.as_str()
                && let Ok(path) = ObjectPath::namespaced(namespace, kind, name)
                && !references.contains(&path)
            {
                references.push(path);
            }
        };
        for volume in items(&spec["volumes"]) {
            volume_references(volume, &mut add);
        }
        for containers in ["initContainers", "containers", "ephemeralContainers"] {
            for container in items(&spec[containers]) {
                container_references(container, &mut add);
            }
        }
        for secret in items(&spec["imagePullSecrets"]) {
            add(ResourceType::Secret, &secret["name"]);
        }
        let account = &spec["serviceAccountName"];
        add(ResourceType::ServiceAccountToken, if account.is_string() { account } else { &spec["serviceAccount"] });
    }
    Facts { node, references, makes_edge: false, terminating: metadata["deletionTimestamp"].is_string() }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn volume_references(volume: &Value, add: &mut impl FnMut(ResourceType, &Value)) {
    add(ResourceType::ConfigMap, &volume["configMap"]["name"]);
    add(ResourceType::Secret, &volume["secret"]["secretName"]);
    add(ResourceType::PersistentVolumeClaim, &volume["persistentVolumeClaim"]["claimName"]);
    add(ResourceType::Secret, &volume["azureFile"]["secretName"]);
    add(ResourceType::Secret, &volume["csi"]["nodePublishSecretRef"]["name"]);
    for source in items(&volume["projected"]["sources"]) {
        add(ResourceType::ConfigMap, &source["configMap"]["name"]);
        add(ResourceType::Secret, &source["secret"]["name"]);
    }
    // cephfs, cinder, flexVolume, iscsi, rbd, scaleIO, storageos all call it so.
    for source in volume.as_object().into_iter().flat_map(|volume| volume.values()) {
        add(ResourceType::Secret, &source["secretRef"]["name"]);
    }
}

fn container_references(container: &Value, add: &mut impl FnMut(ResourceType, &Value)) {
    for source in items(&container["envFrom"]) {
        add(ResourceType::ConfigMap, &source["configMapRef"]["name"]);
        add(ResourceType::Secret, &source["secretRef"]["name"]);
    }
    for variable in items(&container["env"]) {
        add(ResourceType::ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
        add(ResourceType::Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_refer_is_found() {
        let pod = json!({
            "metadata": { "namespace": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": {
                "nodeName": "edge-1",
                "serviceAccountName": "robot",
                "imagePullSecrets": [{ "name": "pull" }],
                "volumes": [
                    { "name": "a", "configMap": { "name": "c-volume" } },
                    { "name": "b", "secret": { "secretName": "s-volume" } },
                    { "name": "c", "projected": { "sources": [
                        { "configMap": { "name": "c-projected" } }, { "secret": { "name": "s-projected" } },
                        { "serviceAccountToken": { "path": "token" } },
                    ] } },
                    { "name": "d", "persistentVolumeClaim": { "claimName": "claim" } },
                    { "name": "e", "csi": { "nodePublishSecretRef": { "name": "s-csi" } } },
                    { "name": "f", "rbd": { "secretRef": { "name": "s-rbd" } } },
                ],
                "initContainers": [{ "envFrom": [{ "configMapRef": { "name": "c-init" } }] }],
                "containers": [{
                    "envFrom": [{ "secretRef": { "name": "s-from" } }, { "configMapRef": { "name": "c-volume" } }],
                    "env": [
                        { "valueFrom": { "configMapKeyRef": { "name": "c-key", "key": "k" } } },
                        { "valueFrom": { "secretKeyRef": { "name": "s-key", "key": "k" } } },
                        { "name": "plain", "value": "1" },
                    ],
                }],
            },
        });
        let facts = pod_facts(&pod);
        assert!(facts.terminating);
        assert_eq!(facts.node.as_ref().map(NodeName::as_str), Some("edge-1"));
        let mut found: Vec<_> = facts.references.iter().map(ToString::to_string).collect();
        found.sort();
        let expected = [
            "configmap/c-init",
            "configmap/c-key",
            "configmap/c-projected",
            "configmap/c-volume",
            "persistentvolumeclaim/claim",
            "secret/pull",
            "secret/s-csi",
            "secret/s-from",
            "secret/s-key",
            "secret/s-projected",
            "secret/s-rbd",
            "secret/s-volume",
            "serviceaccounttoken/robot",
        ];
        assert_eq!(found, expected.map(|path| format!("shop/{path}")));
    }

    #[test]
    fn an_unbound_pod_needs_nothing_yet() {
        let pod = json!({ "metadata": { "namespace": "a" }, "spec": { "imagePullSecrets": [{ "name": "x" }] } });
        assert_eq!(pod_facts(&pod), Facts::default());
    }
}
