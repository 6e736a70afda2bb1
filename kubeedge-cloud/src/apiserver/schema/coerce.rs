//! Decoding of built-in kinds: types are checked, nulls and unknown fields go, numbers become quantities.

use serde_json::Value;

use super::{Kind, Schema, join, type_name};

/// What was found while a value was brought into shape.
#[derive(Debug, Default)]
pub(crate) struct Coerced {
    /// Paths of the unknown fields that were dropped.
    pub(crate) unknown: Vec<String>,
    /// Why the value cannot be decoded at all: the first field of a wrong type.
    pub(crate) error: Option<String>,
}

/// Brings `value` into the shape of `schema`.
pub(crate) fn coerce(schema: &Schema, value: &mut Value) -> Coerced {
    let mut found = Coerced::default();
    walk(schema, value, "", &mut found);
    found.unknown.sort_unstable();
    found
}

fn walk(schema: &Schema, value: &mut Value, path: &str, found: &mut Coerced) {
    if found.error.is_some() {
        return;
    }
    let fits = match (schema.kind, &mut *value) {
        (Kind::Object, Value::Object(map)) => {
            if schema.properties.is_empty() && schema.additional.is_none() {
                return;
            }
            map.retain(|_, v| !v.is_null());
            let mut unknown = Vec::new();
            for (name, v) in map.iter_mut() {
                let path = join(path, name);
                match schema.field(name) {
                    Some(field) => walk(field, v, &path, found),
                    None => unknown.push((name.clone(), path)),
                }
            }
            for (name, path) in unknown {
                map.remove(&name);
                found.unknown.push(path);
            }
            true
        }
        (Kind::Array, Value::Array(items)) => {
            if let Some(schema) = &schema.items {
                for (i, item) in items.iter_mut().enumerate() {
                    walk(schema, item, &format!("{path}[{i}]"), found);
                }
            }
            true
        }
        (Kind::Integer | Kind::IntOrString, Value::Number(n)) => n.is_i64() || n.is_u64(),
        (Kind::Any, _)
        | (Kind::String | Kind::Quantity | Kind::IntOrString, Value::String(_))
        | (Kind::Number, Value::Number(_))
        | (Kind::Boolean, Value::Bool(_)) => true,
        (Kind::Time, Value::String(text)) => text.parse::<jiff::Timestamp>().is_ok(),
        (Kind::Bytes, Value::String(text)) => is_base64(text),
        (Kind::Quantity, Value::Number(n)) => {
            *value = Value::String(n.to_string());
            true
        }
        _ => false,
    };
    if !fits {
        found.error = Some(misfit(schema, value, path));
    }
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    // Line breaks are let through, as encoding/json of the Go clients does.
    if text.contains(['\n', '\r']) {
        let joined: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        return base64::engine::general_purpose::STANDARD.decode(joined).is_ok();
    }
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn misfit(schema: &Schema, value: &Value, path: &str) -> String {
    let wanted = match schema.kind {
        Kind::Any => "any",
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::String => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
        Kind::IntOrString => "integer or string",
        Kind::Quantity => "quantity",
        Kind::Bytes => "base64 string",
        Kind::Time => "RFC 3339 time",
    };
    let shown = match value {
        Value::Array(_) | Value::Object(_) => type_name(value).to_owned(),
        scalar => scalar.to_string(),
    };
    format!("{}: must be of type {wanted}, not {shown}", if path.is_empty() { "<root>" } else { path })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::TypeTable, *};

    #[test]
    fn unknown_fields_go_nulls_go_and_numbers_become_quantities() {
        let pod = TypeTable::load().schema("Pod");
        let mut value = json!({"metadata": {"creationTimestamp": null, "name": "p"}, "bogus": 1, "spec": {
            "containers": [{"name": "c", "imagee": "x", "resources": {"limits": {"cpu": 1}}}]}});
        let found = coerce(&pod, &mut value);
        assert_eq!(found.unknown, ["bogus", "spec.containers[0].imagee"].map(str::to_owned));
        assert_eq!(
            value,
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]}})
        );
    }

    #[test]
    fn a_wrong_type_is_named_with_its_field_and_value() {
        let pod = TypeTable::load().schema("Pod");
        let mut value = json!({"spec": {"containers": [{"name": 3}]}});
        assert_eq!(
            coerce(&pod, &mut value).error.as_deref(),
            Some("spec.containers[0].name: must be of type string, not 3")
        );
    }
}
