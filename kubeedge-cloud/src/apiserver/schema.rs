//! Structural schemas: the shape of an object, for the built-in kinds and for custom resources alike.
//!
//! One tree serves every need: decoding and pruning, validation, defaults, the keys of strategic merge patches, the
//! list types of server-side apply, and the published OpenAPI documents.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

mod builtin;
mod check;
mod coerce;
mod custom;
mod publish;
mod rules;
mod shape;

pub(crate) use builtin::TypeTable;
pub(crate) use check::validate;
pub(crate) use coerce::coerce;
pub(crate) use custom::parse as parse_custom;
pub(crate) use publish::openapi;
pub(crate) use rules::Rules;
pub(crate) use shape::{apply_defaults, prune};

/// What kind of JSON value a schema stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anything at all; nothing is pruned below it.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// A string or an integer.
    IntOrString,
    /// A resource quantity: a string, or a number that is stored as a string.
    Quantity,
    /// Base64 text.
    Bytes,
    /// An RFC 3339 instant.
    Time,
}

/// How a list behaves under server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    /// Items are objects told apart by these fields.
    Map(Vec<String>),
}

/// How a list behaves under a strategic merge patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum PatchStrategy {
    #[default]
    Replace,
    /// Primitive items are merged as a set.
    MergeValues,
    /// Object items are merged by this field.
    MergeBy(String),
}

/// The schema of one value.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) kind: Kind,
    pub(crate) format: Option<String>,
    pub(crate) nullable: bool,
    /// Unknown fields stay (`x-kubernetes-preserve-unknown-fields`).
    pub(crate) preserve: bool,
    /// The value is a whole Kubernetes object (`x-kubernetes-embedded-resource`).
    pub(crate) embedded: bool,
    pub(crate) properties: BTreeMap<String, Arc<Schema>>,
    pub(crate) additional: Option<Arc<Schema>>,
    pub(crate) items: Option<Arc<Schema>>,
    pub(crate) required: Vec<String>,
    pub(crate) default: Option<Value>,
    pub(crate) list: ListType,
    pub(crate) patch: PatchStrategy,
    /// An object that server-side apply treats as one value.
    pub(crate) atomic: bool,
    pub(crate) description: Option<String>,
    pub(crate) rules: Option<Box<Rules>>,
    /// Where the fields of a built-in type are in protobuf.
    pub(crate) wire: Vec<WireField>,
}

/// The place of a field in protobuf.
#[derive(Debug)]
pub(crate) struct WireField {
    pub(crate) name: String,
    /// Its number, after those of the messages in which it is embedded.
    pub(crate) path: Vec<u32>,
    /// Whether a zero says something.
    pub(crate) significant: bool,
}

impl Schema {
    pub(crate) fn of(kind: Kind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// The schema of a field of this object, declared or additional.
    pub(crate) fn field(&self, name: &str) -> Option<&Arc<Schema>> {
        self.properties.get(name).or(self.additional.as_ref())
    }
}

/// Joins a field name to a path: `spec` + `nodeName`.
pub(crate) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// The JSON type of a value, as it is named in messages.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
