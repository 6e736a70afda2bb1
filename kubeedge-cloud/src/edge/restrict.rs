//! What a node may say of itself: the labels that the admission plugin `NodeRestriction` of Kubernetes leaves to kubelets,
//! and those by which KubeEdge knows its nodes.
//!
//! The plugin knows no node behind the calls of the cloud, unless they are made in the node's name.

use serde_json::{Map, Value};

/// By these KubeEdge tells edge nodes from others. `NodeRestriction` would not let a node set them.
const ROLES: [&str; 2] = ["node-role.kubernetes.io/edge", "node-role.kubernetes.io/agent"];

/// Of the labels that belong to Kubernetes, those that nodes set.
const NODE_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Whether a node may set this label of its own.
fn is_the_nodes(label: &str) -> bool {
    let Some((namespace, _)) = label.split_once('/') else { return true };
    let within =
        |domain: &str| namespace.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    NODE_LABELS.contains(&label)
        || ROLES.contains(&label)
        || within("kubelet.kubernetes.io")
        || within("node.kubernetes.io")
}

/// The first label that differs between two states of a node and is not the node's to set. `after` may leave labels out.
pub(super) fn forbidden_label<'a>(before: &Value, after: &'a Value) -> Option<&'a str> {
    let after = after["metadata"]["labels"].as_object()?;
    let before = &before["metadata"]["labels"];
    let changed = after.iter().filter(|(label, value)| !value.is_null() && before[label.as_str()] != **value);
    changed.map(|(label, _)| label.as_str()).find(|label| !is_the_nodes(label))
}

/// Whether a node says that it belongs to another object, with which it would be deleted.
pub(super) fn has_owners(node: &Value) -> bool {
    node["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty())
}

/// Takes out what a node may not say of itself.
pub(super) fn strip(node: &mut Value) {
    let Some(metadata) = node["metadata"].as_object_mut() else { return };
    metadata.remove("ownerReferences");
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|label, _| is_the_nodes(label));
    }
}

/// Takes out of `labels` those that only the cloud can write, if the node is to write the others.
pub(super) fn take_roles(labels: &mut Value) -> Map<String, Value> {
    let Some(labels) = labels.as_object_mut() else { return Map::new() };
    ROLES.iter().filter_map(|role| labels.remove_entry(*role)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_the_nodes_as_kubernetes_says() {
        for own in [
            "zone",
            "example.com/zone",
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
            "node.kubernetes.io/instance-type",
            "kubelet.kubernetes.io/x",
            "a.node.kubernetes.io/x",
            "node-role.kubernetes.io/edge",
            "mykubernetes.io/x",
        ] {
            assert!(is_the_nodes(own), "{own}");
        }
        for foreign in [
            "node-restriction.kubernetes.io/tier",
            "a.node-restriction.kubernetes.io/tier",
            "node-role.kubernetes.io/control-plane",
            "kubernetes.io/x",
            "storage.k8s.io/x",
            "anode.kubernetes.io/x",
        ] {
            assert!(!is_the_nodes(foreign), "{foreign}");
        }
    }

    #[test]
    fn only_what_changes_counts() {
        let node = |labels: Value| json!({ "metadata": { "labels": labels } });
        let tier = "node-restriction.kubernetes.io/tier";
        let stored = node(json!({ tier: "gold", "zone": "a" }));
        assert_eq!(forbidden_label(&stored, &node(json!({ tier: "gold", "zone": "b" }))), None);
        assert_eq!(forbidden_label(&stored, &node(json!({ tier: "iron" }))), Some(tier));
        assert_eq!(forbidden_label(&Value::Null, &node(json!({ tier: "gold" }))), Some(tier));
        assert_eq!(forbidden_label(&stored, &node(json!({ tier: null }))), None, "nulls are left out");
        assert_eq!(forbidden_label(&stored, &json!({ "metadata": { "labels": 7 } })), None);
        let mut greedy = json!({ "metadata": { "ownerReferences": [{}], "labels": { tier: "iron", "zone": "a" } } });
        assert!(has_owners(&greedy));
        strip(&mut greedy);
        assert_eq!(greedy, node(json!({ "zone": "a" })));
    }
}
