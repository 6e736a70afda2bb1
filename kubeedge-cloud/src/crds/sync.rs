//! What a node has of an object: the memory of reliable delivery.

use kubeedge_core::names::{NodeName, Uid};
use serde::{Deserialize, Serialize};

use super::resource::custom_resource;

custom_resource! {
    /// The version of a namespaced object that a node has acknowledged. Lives in the namespace of the object, under the
    /// name that [`object_sync_name`] gives. Its status is a subresource.
    ObjectSync { spec: ObjectSyncSpec, status: ObjectSyncStatus }
    NamespaceResourceScope "reliablesyncs.kubeedge.io" "v1alpha1" "objectsyncs"
}

custom_resource! {
    /// The same for an object of the cluster.
    ClusterObjectSync { spec: ObjectSyncSpec, status: ObjectSyncStatus }
    ClusterResourceScope "reliablesyncs.kubeedge.io" "v1alpha1" "clusterobjectsyncs"
}

/// The object that was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectSyncSpec {
    /// Its API version, `v1` for instance.
    #[serde(rename = "objectAPIVersion", default, skip_serializing_if = "String::is_empty")]
    pub object_api_version: String,
    /// Its kind, `Pod` for instance.
    #[serde(rename = "objectKind", default, skip_serializing_if = "String::is_empty")]
    pub object_kind: String,
    /// Its name.
    #[serde(rename = "objectName", default, skip_serializing_if = "String::is_empty")]
    pub object_name: String,
}

/// What the node has of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectSyncStatus {
    /// The resource version that was acknowledged. Must not stay empty: upstream never sends such an object again.
    #[serde(rename = "objectResourceVersion", default, skip_serializing_if = "String::is_empty")]
    pub object_resource_version: String,
}

/// The name of the record of an object at a node: `<node>.<uid>`.
///
/// Upstream: `staging/api/apis/reliablesyncs/v1alpha1`.
pub fn object_sync_name(node: &NodeName, uid: &Uid) -> String {
    format!("{node}.{uid}")
}

/// The node and the UID in the name of a record. The node is all up to the last dot, as its name may have dots.
pub fn parse_object_sync_name(name: &str) -> Option<(NodeName, Uid)> {
    let (node, uid) = name.rsplit_once('.')?;
    Some((NodeName::new(node).ok()?, Uid::new(uid).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kube::Resource as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn records_are_named_by_node_and_uid() {
        let (node, uid) = (NodeName::new("edge-1.site.example").unwrap(), Uid::new("ab-12").unwrap());
        let name = object_sync_name(&node, &uid);
        assert_eq!(name, "edge-1.site.example.ab-12");
        assert_eq!(parse_object_sync_name(&name), Some((node, uid)));
        assert_eq!(parse_object_sync_name("edge"), None);
        assert_eq!(parse_object_sync_name("edge."), None);
    }

    #[test]
    fn records_have_the_field_names_of_the_wire() {
        let wire = json!({
            "apiVersion": "reliablesyncs.kubeedge.io/v1alpha1",
            "kind": "ObjectSync",
            "metadata": { "name": "edge-1.ab-12", "namespace": "default" },
            "spec": { "objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "web" },
            "status": { "objectResourceVersion": "512" },
        });
        let record: ObjectSync = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(record.spec.object_kind, "Pod");
        assert_eq!(serde_json::to_value(&record).unwrap(), wire);
        assert_eq!(
            ClusterObjectSync::url_path(&(), None),
            "/apis/reliablesyncs.kubeedge.io/v1alpha1/clusterobjectsyncs"
        );
    }
}
