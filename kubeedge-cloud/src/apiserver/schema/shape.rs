//! Pruning and defaults of custom resources.

use serde_json::Value;

use super::{Schema, join};

const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes what the schema does not know and returns the paths of what went.
pub(crate) fn prune(schema: &Schema, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(schema, value, "", true, &mut unknown);
    unknown.sort_unstable();
    unknown
}

fn walk(schema: &Schema, value: &mut Value, path: &str, whole_object: bool, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let mut gone = Vec::new();
            for (name, v) in map.iter_mut() {
                if whole_object && OBJECT_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                match schema.field(name) {
                    Some(field) => walk(field, v, &join(path, name), field.embedded, unknown),
                    None if schema.preserve => {}
                    None => gone.push(name.clone()),
                }
            }
            for name in gone {
                map.remove(&name);
                unknown.push(join(path, &name));
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (i, item) in items.iter_mut().enumerate() {
                    walk(schema, item, &format!("{path}[{i}]"), schema.embedded, unknown);
                }
            }
        }
        _ => {}
    }
}

/// Fills in defaults. A null in a field that is not nullable gives way to the default, or goes.
pub(crate) fn apply_defaults(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, field) in &schema.properties {
                let Some(default) = &field.default else { continue };
                let absent = map.get(name).is_none_or(|v| v.is_null() && !field.nullable);
                if absent {
                    map.insert(name.clone(), default.clone());
                }
            }
            map.retain(|name, v| !v.is_null() || schema.properties.get(name).is_none_or(|field| field.nullable));
            for (name, v) in map.iter_mut() {
                if let Some(field) = schema.field(name) {
                    apply_defaults(field, v);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for item in items {
                    apply_defaults(schema, item);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::{super::parse_custom, *};

    #[test]
    fn prunes_all_but_preserved_and_object_fields() {
        let schema = parse_custom(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "string"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "integer"}}}}}}}}))
        .unwrap();
        let mut value = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}, "other": 1,
            "spec": {"a": "1", "b": 2, "free": {"z": {"y": 1}}, "map": {"k": {"x": 1, "w": 2}}}});
        assert_eq!(prune(&schema, &mut value), ["other", "spec.b", "spec.map.k.w"]);
        assert_eq!(
            value,
            json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"},
                "spec": {"a": "1", "free": {"z": {"y": 1}}, "map": {"k": {"x": 1}}}})
        );
    }

    #[test]
    fn nulls_go_from_fields_that_are_not_nullable() {
        let schema = parse_custom(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "string"},
                "b": {"type": "string", "nullable": true},
                "map": {"type": "object", "additionalProperties": {"type": "string"}}}}}}))
        .unwrap();
        let mut value = json!({"spec": {"a": null, "b": null, "map": {"k": null}}});
        apply_defaults(&schema, &mut value);
        assert_eq!(value, json!({"spec": {"b": null, "map": {"k": null}}}));
    }

    #[test]
    fn defaults_reach_into_defaults() {
        let schema = parse_custom(&json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "mode": {"type": "string", "default": "auto"}, "n": {"type": "integer", "nullable": true, "default": 3}}}}}))
        .unwrap();
        let mut value = json!({});
        apply_defaults(&schema, &mut value);
        assert_eq!(value, json!({"spec": {"mode": "auto", "n": 3}}));
        let mut value = json!({"spec": {"mode": null, "n": null}});
        apply_defaults(&schema, &mut value);
        assert_eq!(value, json!({"spec": {"mode": "auto", "n": null}}));
    }
}
