//! Sets of fields, in the form of `fieldsV1`: `{"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, ...}}}}`.
//!
//! A leaf `{}` is a field owned with all below it; `.` in a set is the element itself beside its parts.

use serde_json::{Map, Value, json};

use crate::apiserver::schema::{Kind, ListType, Schema};

/// A set of fields.
pub(super) type Fields = Map<String, Value>;

const SELF: &str = ".";

/// Parts of every object that nobody owns.
const UNOWNED_METADATA: [&str; 8] =
    ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "selfLink", "managedFields"];

/// Removes what nobody owns.
pub(super) fn ownable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| !UNOWNED_METADATA.contains(&key.as_str()));
            if metadata.is_empty() {
                map.remove("metadata");
            }
        }
    }
    object
}

/// How a value splits into parts.
pub(super) enum Parts<'a> {
    /// It does not.
    Leaf,
    /// Named fields.
    Fields(&'a Map<String, Value>),
    /// Items with their path elements.
    Items(Vec<(String, &'a Value)>),
}

/// The parts of a value, as its schema sees it. Without a schema, maps have parts and lists do not.
pub(super) fn parts<'a>(schema: Option<&Schema>, value: &'a Value) -> Parts<'a> {
    match value {
        Value::Object(map) => {
            let atomic = schema.is_some_and(|schema| schema.atomic);
            if atomic || map.is_empty() { Parts::Leaf } else { Parts::Fields(map) }
        }
        Value::Array(items) => {
            let element = |item: &Value| match schema.map(|schema| &schema.list) {
                Some(ListType::Set) => Some(format!("v:{item}")),
                Some(ListType::Map(keys)) => {
                    let id: Map<_, _> =
                        keys.iter().filter_map(|k| Some((k.clone(), key_value(schema, item, k)?))).collect();
                    (!id.is_empty()).then(|| format!("k:{}", Value::Object(id)))
                }
                _ => None,
            };
            let elements: Option<Vec<_>> = items.iter().map(|item| Some((element(item)?, item))).collect();
            elements.filter(|list| !list.is_empty()).map_or(Parts::Leaf, Parts::Items)
        }
        _ => Parts::Leaf,
    }
}

/// The value of a key, or its default.
fn key_value(schema: Option<&Schema>, item: &Value, key: &str) -> Option<Value> {
    if let Some(value) = item.get(key) {
        return Some(value.clone());
    }
    let declared = schema.and_then(|s| s.items.as_ref()).and_then(|s| s.field(key));
    let default = declared.and_then(|field| field.default.clone());
    // The one default among the keys of the built-in kinds.
    default.or_else(|| (key == "protocol").then(|| "TCP".into()))
}

/// The schema of a part.
pub(super) fn part_schema<'a>(schema: Option<&'a Schema>, element: &str) -> Option<&'a Schema> {
    let schema = schema?;
    match element.strip_prefix("f:") {
        Some(field) => schema.field(field).map(AsRef::as_ref),
        None => schema.items.as_deref(),
    }
}

/// The set of all fields of a value.
pub(super) fn of(schema: Option<&Schema>, value: &Value) -> Fields {
    let mut fields = Fields::new();
    match parts(schema, value) {
        Parts::Leaf => {}
        Parts::Fields(map) => {
            for (name, value) in map {
                let element = format!("f:{name}");
                let below = of(part_schema(schema, &element), value);
                fields.insert(element, Value::Object(below));
            }
        }
        Parts::Items(items) => {
            for (element, item) in items {
                let mut below = of(part_schema(schema, &element), item);
                if !below.is_empty() {
                    below.insert(SELF.to_owned(), json!({}));
                }
                fields.insert(element, Value::Object(below));
            }
        }
    }
    fields
}

/// The fields that were added or changed from `old` to `new`, and those that were removed.
pub(super) fn compare(schema: Option<&Schema>, old: &Value, new: &Value) -> (Fields, Fields) {
    let (mut changed, mut removed) = (Fields::new(), Fields::new());
    let (was, is) = (elements(schema, old), elements(schema, new));
    for (element, value) in &is {
        match was.iter().find(|(e, _)| e == element) {
            None => {
                let mut below = of(part_schema(schema, element), value);
                if !below.is_empty() {
                    below.insert(SELF.to_owned(), json!({}));
                }
                changed.insert(element.clone(), Value::Object(below));
            }
            Some((_, before)) if before != value => {
                let schema = part_schema(schema, element);
                if matches!(parts(schema, before), Parts::Leaf) || matches!(parts(schema, value), Parts::Leaf) {
                    changed.insert(element.clone(), Value::Object(of(schema, value)));
                    continue;
                }
                let (more, less) = compare(schema, before, value);
                for (set, part) in [(&mut changed, more), (&mut removed, less)] {
                    if !part.is_empty() {
                        set.insert(element.clone(), Value::Object(part));
                    }
                }
            }
            Some(_) => {}
        }
    }
    for (element, value) in &was {
        if !is.iter().any(|(e, _)| e == element) {
            let mut below = of(part_schema(schema, element), value);
            if !below.is_empty() {
                below.insert(SELF.to_owned(), json!({}));
            }
            removed.insert(element.clone(), Value::Object(below));
        }
    }
    (changed, removed)
}

fn elements<'a>(schema: Option<&Schema>, value: &'a Value) -> Vec<(String, &'a Value)> {
    match parts(schema, value) {
        Parts::Leaf => Vec::new(),
        Parts::Fields(map) => map.iter().map(|(name, value)| (format!("f:{name}"), value)).collect(),
        Parts::Items(items) => items,
    }
}

/// The part of a value that a path element names.
pub(super) fn part<'a>(schema: Option<&Schema>, value: &'a Value, element: &str) -> Option<&'a Value> {
    elements(schema, value).into_iter().find(|(e, _)| e == element).map(|(_, value)| value)
}

/// Takes the fields of `other` out of `fields`. A leaf of `other` takes all below it.
pub(super) fn subtract(fields: &mut Fields, other: &Fields) {
    for (element, below) in other {
        let Some(own) = fields.get_mut(element) else { continue };
        let (Some(own), Some(below)) = (own.as_object_mut(), below.as_object()) else { continue };
        if own.is_empty() {
            if below.is_empty() || below.contains_key(SELF) {
                fields.remove(element);
            }
            continue;
        }
        if below.is_empty() {
            fields.remove(element);
            continue;
        }
        subtract(own, below);
        if own.is_empty() {
            fields.remove(element);
        }
    }
}

/// Adds the fields of `other` to `fields`.
pub(super) fn unite(fields: &mut Fields, other: &Fields) {
    for (element, below) in other {
        let own = fields.entry(element.clone()).or_insert_with(|| json!({}));
        if let (Some(own), Some(below)) = (own.as_object_mut(), below.as_object()) {
            unite(own, below);
        }
    }
}

/// Whether any field at or below an element of the set is in it.
pub(super) fn below<'a>(fields: &'a Fields, element: &str) -> Option<&'a Fields> {
    fields.get(element).and_then(Value::as_object)
}

/// A path in the form of error messages: `.spec.containers[name="a"].image`.
pub(super) fn path(prefix: &str, element: &str) -> String {
    if let Some(field) = element.strip_prefix("f:") {
        return format!("{prefix}.{field}");
    }
    if let Some(key) = element.strip_prefix("k:")
        && let Ok(Value::Object(key)) = serde_json::from_str(key)
    {
        let keys: Vec<_> = key.iter().map(|(k, v)| format!("{k}={v}")).collect();
        return format!("{prefix}[{}]", keys.join(","));
    }
    format!("{prefix}[={}]", element.strip_prefix("v:").unwrap_or(element))
}

/// Whether this element is the owner of its container rather than of a part.
pub(super) fn is_self(element: &str) -> bool {
    element == SELF
}

/// Whether a schema treats the value as a list of parts.
pub(super) fn is_list_of_parts(schema: Option<&Schema>) -> bool {
    schema.is_some_and(|schema| schema.kind == Kind::Array && schema.list != ListType::Atomic)
}
