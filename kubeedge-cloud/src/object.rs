//! Objects of Kubernetes as they are carried to the edge: whole, and with what we have to know of them.

mod calls;
mod kind;
mod older;
mod watch;

use std::fmt;

use kubeedge_core::{
    message::{Content, ContentError},
    names::{InvalidName, ResourceVersion, Uid},
    resource::ObjectPath,
};
use serde_json::{Value, json};

pub(crate) use self::{
    calls::{ApiCalls, unavailable},
    kind::Kind,
    older::{CONVERTED, upgraded},
    watch::{Pause, Watched, watch},
};

/// An object as a node gets it.
///
/// Upstream: `cloud/pkg/common/messagelayer`. Other than upstream, `metadata.managedFields` is left out: no part of an
/// edge reads it, and it is often the larger half of an object.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeObject {
    /// Where it is; the name is always there.
    pub path: ObjectPath,
    /// Which one it is.
    pub uid: Uid,
    /// Its version; absent in the skeleton of an object that is gone.
    pub version: Option<ResourceVersion>,
    /// Its API version, `v1` for instance.
    pub api_version: String,
    /// Its kind, `Pod` for instance.
    pub kind: String,
    /// The JSON of it, with `apiVersion` and `kind`.
    pub content: Content,
    /// Digest of the part that the edge has to act upon.
    pub digest: Digest,
}

/// Digest of an object without its status and its version: equal as long as there is nothing to tell the edge.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest([u8; 12]);

impl Digest {
    fn of(value: &Value) -> Self {
        // Maps of `serde_json` are ordered, so equal objects have equal texts.
        let hash = ring::digest::digest(&ring::digest::SHA256, value.to_string().as_bytes());
        let mut digest = Self::default();
        digest.0.copy_from_slice(&hash.as_ref()[..12]);
        digest
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for NodeObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.map(ResourceVersion::number);
        write!(f, "NodeObject({} uid {} version {version:?})", self.path, self.uid)
    }
}

/// An object of the Kubernetes API that cannot be carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// A member that every object has is missing.
    #[error("object has no {0}")]
    Missing(&'static str),
    /// A member has a value that it cannot have.
    #[error("object has a bad {member}")]
    Value {
        /// The member.
        member: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidName,
    },
    /// It has no JSON form.
    #[error("object cannot be encoded")]
    Encode(#[from] ContentError),
}

impl NodeObject {
    /// Takes an object of `kind` as the API gave it; `apiVersion` and `kind` are filled in, as lists leave them out.
    pub(crate) fn new(kind: &Kind, mut value: Value) -> Result<Self, ObjectError> {
        fn bad(member: &'static str) -> impl FnOnce(InvalidName) -> ObjectError {
            move |source| ObjectError::Value { member, source }
        }
        let Some(fields) = value.as_object_mut() else { return Err(ObjectError::Missing("members")) };
        let api_version = kind.api_version();
        fields.insert("apiVersion".into(), api_version.as_str().into());
        fields.insert("kind".into(), kind.kind.into());
        let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) else {
            return Err(ObjectError::Missing("metadata"));
        };
        metadata.remove("managedFields");
        let text = |member: &str| metadata.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
        let name = text("name").ok_or(ObjectError::Missing("metadata.name"))?;
        let uid = Uid::new(text("uid").ok_or(ObjectError::Missing("metadata.uid"))?).map_err(bad("metadata.uid"))?;
        let version = text("resourceVersion").ok_or(ObjectError::Missing("metadata.resourceVersion"))?;
        let version = version.parse().map_err(bad("metadata.resourceVersion"))?;
        let path = if kind.namespaced {
            let namespace = text("namespace").ok_or(ObjectError::Missing("metadata.namespace"))?;
            ObjectPath::namespaced(namespace, kind.resource(), name)
        } else {
            ObjectPath::cluster(kind.resource(), name)
        };
        let path = path.map_err(bad("metadata.name"))?;
        let content = Content::json(&value)?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            metadata.remove("generation");
        }
        if kind.status_is_ours
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("status");
        }
        let digest = Digest::of(&value);
        Ok(Self { path, uid, version: Some(version), api_version, kind: kind.kind.into(), content, digest })
    }

    /// What is left to say of an object that is gone: its name and its UID.
    ///
    /// Upstream: `cloud/pkg/synccontroller`.
    pub fn skeleton(path: ObjectPath, uid: Uid, api_version: String, kind: String) -> Result<Self, ObjectError> {
        let name = path.name.as_ref().ok_or(ObjectError::Missing("metadata.name"))?;
        let mut metadata = json!({ "name": name.as_str(), "uid": uid.as_str() });
        if let Some(namespace) = &path.namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        let content = Content::json(&json!({ "metadata": metadata }))?;
        Ok(Self { path, uid, version: None, api_version, kind, content, digest: Digest::default() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(version: &str, phase: &str, image: &str) -> NodeObject {
        let value = json!({
            "metadata": {
                "name": "web", "namespace": "default", "uid": "u1", "resourceVersion": version,
                "managedFields": [{ "manager": version }],
            },
            "spec": { "containers": [{ "image": image }] },
            "status": { "phase": phase },
        });
        NodeObject::new(&Kind::POD, value).unwrap()
    }

    #[test]
    fn an_object_is_whole_and_says_what_it_is() {
        let pod = pod("7", "Running", "a");
        assert_eq!(pod.path.to_string(), "default/pod/web");
        assert_eq!(pod.version.unwrap().number(), 7);
        let value: Value = pod.content.parse().unwrap();
        assert_eq!((&value["apiVersion"], &value["kind"]), (&json!("v1"), &json!("Pod")));
        assert_eq!(value["status"]["phase"], "Running");
        assert!(value["metadata"].get("managedFields").is_none());
    }

    #[test]
    fn only_what_the_edge_acts_upon_counts() {
        assert_eq!(pod("7", "Pending", "a").digest, pod("8", "Running", "a").digest);
        assert_ne!(pod("7", "Pending", "a").digest, pod("8", "Pending", "b").digest);
    }

    #[test]
    fn what_cannot_be_carried_says_why() {
        let err = NodeObject::new(&Kind::POD, json!({ "metadata": { "name": "web" } })).unwrap_err();
        assert_eq!(err.to_string(), "object has no metadata.uid");
        assert!(NodeObject::new(&Kind::POD, json!([])).is_err());
        let value =
            json!({ "metadata": { "name": "web", "uid": "u", "namespace": "default", "resourceVersion": "x" } });
        assert_eq!(
            NodeObject::new(&Kind::POD, value).unwrap_err().to_string(),
            "object has a bad metadata.resourceVersion"
        );
    }

    #[test]
    fn skeletons_have_name_and_uid_only() {
        let path = ObjectPath::namespaced("default", Kind::POD.resource(), "web").unwrap();
        let skeleton = NodeObject::skeleton(path, Uid::new("u1").unwrap(), "v1".into(), "Pod".into()).unwrap();
        let value: Value = skeleton.content.parse().unwrap();
        assert_eq!(value, json!({ "metadata": { "name": "web", "namespace": "default", "uid": "u1" } }));
    }
}
