//! Schemas as OpenAPI v3 documents, for `kubectl explain` and client-side checks.

use serde_json::{Map, Value, json};

use super::{Kind, ListType, Schema};

/// The OpenAPI v3 form of a schema.
pub(crate) fn openapi(schema: &Schema) -> Value {
    let mut out = Map::new();
    let kind = match schema.kind {
        Kind::Any => None,
        Kind::Object => Some("object"),
        Kind::Array => Some("array"),
        Kind::String | Kind::Bytes | Kind::Time | Kind::Quantity => Some("string"),
        Kind::Integer => Some("integer"),
        Kind::Number => Some("number"),
        Kind::Boolean => Some("boolean"),
        Kind::IntOrString => {
            out.insert("x-kubernetes-int-or-string".to_owned(), Value::Bool(true));
            None
        }
    };
    if let Some(kind) = kind {
        out.insert("type".to_owned(), kind.into());
    }
    for (name, value) in [("format", &schema.format), ("description", &schema.description)] {
        if let Some(value) = value.as_ref().filter(|_| schema.kind != Kind::IntOrString || name != "format") {
            let value = if value == "microtime" { "date-time" } else { value };
            out.insert(name.to_owned(), value.into());
        }
    }
    for (name, set) in [("nullable", schema.nullable), ("x-kubernetes-preserve-unknown-fields", schema.preserve)] {
        if set {
            out.insert(name.to_owned(), Value::Bool(true));
        }
    }
    if !schema.properties.is_empty() {
        let properties = schema.properties.iter().map(|(name, field)| (name.clone(), openapi(field))).collect();
        out.insert("properties".to_owned(), Value::Object(properties));
    }
    if let Some(additional) = &schema.additional {
        out.insert("additionalProperties".to_owned(), openapi(additional));
    }
    if let Some(items) = &schema.items {
        out.insert("items".to_owned(), openapi(items));
    }
    if !schema.required.is_empty() {
        out.insert("required".to_owned(), json!(schema.required));
    }
    if let Some(default) = &schema.default {
        out.insert("default".to_owned(), default.clone());
    }
    if let Some(allowed) = schema.rules.as_ref().and_then(|rules| rules.allowed.as_ref()) {
        out.insert("enum".to_owned(), json!(allowed));
    }
    match &schema.list {
        ListType::Atomic => {}
        ListType::Set => {
            out.insert("x-kubernetes-list-type".to_owned(), "set".into());
        }
        ListType::Map(keys) => {
            out.insert("x-kubernetes-list-type".to_owned(), "map".into());
            out.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
        }
    }
    Value::Object(out)
}
