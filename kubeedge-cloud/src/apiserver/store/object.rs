//! Stored objects and their changes.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::apiserver::{registry::Resource, selector::Pairs};

/// Namespace (empty for cluster-wide objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// An owner that a dependent names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) group: Box<str>,
    pub(crate) kind: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
}

/// An object as it is stored: its JSON, and beside it what selectors and the collector look at.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) version: u64,
    pub(crate) uid: Box<str>,
    /// Marked for deletion.
    pub(crate) deleting: bool,
    pub(crate) json: Bytes,
    pub(crate) labels: Pairs,
    pub(crate) fields: Pairs,
    pub(crate) owners: Vec<Owner>,
}

impl Object {
    /// Takes an object in; `fields` are the selectable fields of its resource.
    pub(crate) fn new(value: &Value, version: u64, fields: &[(String, String)]) -> Self {
        let metadata = &value["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default();
        Self {
            key: Key::new(text("namespace"), text("name")),
            version,
            uid: text("uid").into(),
            deleting: metadata["deletionTimestamp"].is_string(),
            json: serde_json::to_vec(value).unwrap_or_default().into(),
            labels: labels(metadata),
            fields: selectable(value, fields),
            owners: owners(metadata),
        }
    }

    /// The object as a tree.
    pub(crate) fn value(&self) -> Value {
        // Only what was serialized by `new` gets here, or what was checked when it was loaded.
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The same object with another resource version, as watches show it when it leaves a selection.
    pub(crate) fn at_version(&self, version: u64) -> Bytes {
        let mut value = self.value();
        value["metadata"]["resourceVersion"] = version.to_string().into();
        serde_json::to_vec(&value).unwrap_or_default().into()
    }

    pub(crate) fn has_finalizers(value: &Value) -> bool {
        value.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    }
}

fn labels(metadata: &Value) -> Pairs {
    let labels = metadata["labels"].as_object().into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into()))).collect()
}

fn selectable(value: &Value, fields: &[(String, String)]) -> Pairs {
    let text = |pointer: &str| match value.pointer(pointer) {
        Some(Value::String(text)) => Some(text.as_str().into()),
        Some(Value::Bool(flag)) => Some(flag.to_string().into()),
        Some(Value::Number(number)) => Some(number.to_string().into()),
        // Flags that are left out are false.
        None if pointer.ends_with("/unschedulable") || pointer.ends_with("/hostNetwork") => Some("false".into()),
        _ => None,
    };
    fields.iter().filter_map(|(name, pointer)| Some((name.as_str().into(), text(pointer)?))).collect()
}

fn owners(metadata: &Value) -> Vec<Owner> {
    let references = metadata["ownerReferences"].as_array().into_iter().flatten();
    references
        .filter_map(|reference| {
            let text = |key: &str| reference[key].as_str();
            let group = text("apiVersion")?.split_once('/').map_or("", |(group, _)| group);
            Some(Owner {
                group: group.into(),
                kind: text("kind")?.into(),
                name: text("name")?.into(),
                uid: text("uid")?.into(),
            })
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One committed change of an object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) resource: Arc<Resource>,
    pub(crate) kind: ChangeKind,
    /// The state after the change; of a deleted object, its last state.
    pub(crate) object: Arc<Object>,
    pub(crate) before: Option<Arc<Object>>,
}

impl Change {
    pub(crate) fn version(&self) -> u64 {
        self.object.version
    }

    pub(crate) fn size(&self) -> usize {
        const OVERHEAD: usize = 256;
        self.object.json.len() + OVERHEAD
    }
}
