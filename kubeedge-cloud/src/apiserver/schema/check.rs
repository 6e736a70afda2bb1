//! Validation of custom resources against their schema.

use std::collections::HashSet;

use serde_json::Value;

use super::{Kind, ListType, Rules, Schema, join, type_name};
use crate::apiserver::status::FieldError;

/// No more errors than this are reported for one object.
const MOST_ERRORS: usize = 20;

/// Checks `value` (a whole object) and returns what is wrong with it.
pub(crate) fn validate(schema: &Schema, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, value, "", &mut errors);
    errors
}

fn check(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if errors.len() >= MOST_ERRORS {
        return;
    }
    if value.is_null() {
        if !schema.nullable && schema.kind != Kind::Any {
            errors.push(FieldError::invalid(path, value, &format!("must be of type {}", wanted(schema))));
        }
        return;
    }
    if !fits(schema, value) {
        let why = format!("must be of type {}, not {}", wanted(schema), type_name(value));
        errors.push(FieldError::type_invalid(path, value, &why));
        return;
    }
    match value {
        Value::Object(map) => {
            for name in &schema.required {
                if !map.contains_key(name) {
                    errors.push(FieldError::required(&join(path, name)));
                }
            }
            for (name, v) in map {
                if let Some(field) = schema.field(name) {
                    check(field, v, &join(path, name), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    check(schema, item, &format!("{path}[{i}]"), errors);
                }
            }
            duplicates(schema, items, path, errors);
        }
        Value::String(text) => format(schema, text, path, errors),
        _ => {}
    }
    if let Some(rules) = &schema.rules {
        check_rules(rules, value, path, errors);
    }
}

fn wanted(schema: &Schema) -> &'static str {
    match schema.kind {
        Kind::Any => "any",
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::String | Kind::Bytes | Kind::Time => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
        Kind::IntOrString | Kind::Quantity => "integer or string",
    }
}

fn fits(schema: &Schema, value: &Value) -> bool {
    match (schema.kind, value) {
        (Kind::Any, _)
        | (Kind::Object, Value::Object(_))
        | (Kind::Array, Value::Array(_))
        | (Kind::String | Kind::Bytes | Kind::Time | Kind::IntOrString | Kind::Quantity, Value::String(_))
        | (Kind::Number | Kind::Quantity, Value::Number(_))
        | (Kind::Boolean, Value::Bool(_)) => true,
        (Kind::Integer | Kind::IntOrString, Value::Number(n)) => {
            n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        _ => false,
    }
}

fn duplicates(schema: &Schema, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let key = |item: &Value| match &schema.list {
        ListType::Atomic => schema.rules.as_ref().filter(|rules| rules.unique).map(|_| item.to_string()),
        ListType::Set => Some(item.to_string()),
        ListType::Map(keys) => {
            let values: Vec<_> = keys.iter().map(|k| item.get(k).unwrap_or(&Value::Null).to_string()).collect();
            Some(values.join(","))
        }
    };
    let mut seen = HashSet::new();
    for (i, item) in items.iter().enumerate() {
        if key(item).is_some_and(|key| !seen.insert(key)) {
            errors.push(FieldError::duplicate(&format!("{path}[{i}]"), item));
        }
    }
}

fn format(schema: &Schema, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let good = match schema.format.as_deref() {
        Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
        Some("date") => text.parse::<jiff::civil::Date>().is_ok(),
        Some("ipv4") => text.parse::<Ipv4Addr>().is_ok(),
        Some("ipv6") => text.parse::<Ipv6Addr>().is_ok(),
        Some("uuid") => uuid::Uuid::parse_str(text).is_ok(),
        Some("byte") => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        _ => true,
    };
    if !good {
        let why = format!("must be of format {}", schema.format.as_deref().unwrap_or_default());
        errors.push(FieldError::invalid(path, &Value::from(text), &why));
    }
}

fn check_rules(rules: &Rules, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut fail = |why: String| errors.push(FieldError::invalid(path, value, &why));
    if let Some(number) = value.as_f64() {
        match rules.minimum {
            Some((least, true)) if number <= least => fail(format!("should be greater than {least}")),
            Some((least, false)) if number < least => fail(format!("should be greater than or equal to {least}")),
            _ => {}
        }
        match rules.maximum {
            Some((most, true)) if number >= most => fail(format!("should be less than {most}")),
            Some((most, false)) if number > most => fail(format!("should be less than or equal to {most}")),
            _ => {}
        }
        if let Some(step) = rules.multiple_of.filter(|step| *step > 0.0) {
            let ratio = number / step;
            if (ratio - ratio.round()).abs() > 1e-9 {
                fail(format!("should be a multiple of {step}"));
            }
        }
    }
    let mut count = |have: usize, (least, most): (Option<u64>, Option<u64>), of: &str| {
        let have = have as u64;
        if let Some(least) = least.filter(|least| have < *least) {
            fail(format!("should have at least {least} {of}"));
        }
        if let Some(most) = most.filter(|most| have > *most) {
            fail(format!("should have at most {most} {of}"));
        }
    };
    match value {
        Value::String(text) => {
            count(text.chars().count(), rules.length, "characters");
            if let Some(pattern) = rules.pattern.as_ref().filter(|p| !p.is_match(text)) {
                fail(format!("should match '{pattern}'"));
            }
        }
        Value::Array(items) => count(items.len(), rules.items, "items"),
        Value::Object(map) => count(map.len(), rules.properties, "properties"),
        _ => {}
    }
    if let Some(allowed) = rules.allowed.as_ref().filter(|allowed| !allowed.contains(value)) {
        errors.push(FieldError::not_supported(path, value, allowed));
    }
    junctions(rules, value, path, errors);
}

fn junctions(rules: &Rules, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let holds = |schema: &Schema| {
        let mut errors = Vec::new();
        check(schema, value, path, &mut errors);
        errors.is_empty()
    };
    for part in &rules.all_of {
        check(part, value, path, errors);
    }
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(|part| holds(part)) {
        errors.push(FieldError::invalid(path, value, "must validate at least one schema (anyOf)"));
    }
    if !rules.one_of.is_empty() {
        let holding = rules.one_of.iter().filter(|part| holds(part)).count();
        if holding != 1 {
            let why = format!("must validate one and only one schema (oneOf), not {holding}");
            errors.push(FieldError::invalid(path, value, &why));
        }
    }
    if rules.not.as_ref().is_some_and(|not| holds(not)) {
        errors.push(FieldError::invalid(path, value, "must not validate the schema (not)"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::{super::parse_custom, *};

    fn errors(schema: &Value, value: &Value) -> Vec<String> {
        validate(&parse_custom(schema).unwrap(), value).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_rule_names_the_field_and_the_value() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "required": ["mode"], "properties": {
            "mode": {"type": "string", "enum": ["auto", "manual"]},
            "count": {"type": "integer", "minimum": 1, "maximum": 5},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}, "maxItems": 3},
            "map": {"type": "object", "additionalProperties": {"type": "boolean"}}}}}});
        assert!(
            errors(
                &schema,
                &json!({"spec": {"mode": "auto", "count": 5, "name": "abc", "port": 80, "tags": ["a"], "map": {"x": true}}})
            )
            .is_empty()
        );
        assert_eq!(
            errors(
                &schema,
                &json!({"spec": {"mode": "off", "count": 9, "name": "ABCD", "port": true, "tags": ["a", "a"], "map": {"x": 1}}})
            ),
            [
                "spec.count: Invalid value: 9: should be less than or equal to 5",
                "spec.map.x: Invalid value: 1: must be of type boolean, not integer",
                "spec.mode: Unsupported value: \"off\": supported values: \"auto\", \"manual\"",
                "spec.name: Invalid value: \"ABCD\": should have at most 3 characters",
                "spec.name: Invalid value: \"ABCD\": should match '^[a-z]+$'",
                "spec.port: Invalid value: true: must be of type integer or string, not boolean",
                "spec.tags[1]: Duplicate value: \"a\"",
            ]
        );
        assert_eq!(errors(&schema, &json!({})), ["spec: Required value"]);
        assert_eq!(
            errors(&schema, &json!({"spec": {"mode": null}})),
            ["spec.mode: Invalid value: null: must be of type string"]
        );
    }

    #[test]
    fn junctions_hold_as_their_names_say() {
        let schema = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]},
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}}});
        assert!(errors(&schema, &json!({"a": "1"})).is_empty());
        assert_eq!(errors(&schema, &json!({"a": "1", "b": "1"})).len(), 1);
        assert_eq!(errors(&schema, &json!({"a": "1", "c": "1"})).len(), 1);
    }
}
