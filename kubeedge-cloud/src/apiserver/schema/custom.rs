//! Schemas of custom resources, read from a definition's `openAPIV3Schema`.

use std::sync::Arc;

use regex::RegexBuilder;
use serde_json::{Map, Value};

use super::{Kind, ListType, PatchStrategy, Rules, Schema, join};

/// Patterns whose compiled form is larger than this are refused.
const PATTERN_LIMIT: usize = 1 << 20;
/// Schemas nested deeper than this are refused.
const DEPTH_LIMIT: usize = 64;

/// Reads a schema; the error says which part cannot be used and why.
pub(crate) fn parse(source: &Value) -> Result<Schema, String> {
    node(source, "", 0)
}

fn node(source: &Value, path: &str, depth: usize) -> Result<Schema, String> {
    let at = |why: &str| format!("{}: {why}", if path.is_empty() { "openAPIV3Schema" } else { path });
    if depth > DEPTH_LIMIT {
        return Err(at("is nested too deep"));
    }
    let Value::Object(source) = source else {
        return Err(at("must be an object"));
    };
    let flag = |name: &str| source.get(name).and_then(Value::as_bool).unwrap_or(false);
    let int_or_string = flag("x-kubernetes-int-or-string");
    let kind = match source.get("type").and_then(Value::as_str) {
        _ if int_or_string => Kind::IntOrString,
        None | Some("") => Kind::Any,
        Some("object") => Kind::Object,
        Some("array") => Kind::Array,
        Some("string") => Kind::String,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        Some(other) => return Err(at(&format!("unknown type {other:?}"))),
    };
    let child = |value: &Value, name: &str| node(value, &join(path, name), depth + 1).map(Arc::new);
    let mut schema = Schema {
        nullable: flag("nullable"),
        preserve: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        format: text(source, "format"),
        description: text(source, "description"),
        default: source.get("default").filter(|v| !v.is_null()).cloned(),
        atomic: source.get("x-kubernetes-map-type").is_some_and(|v| v == "atomic"),
        ..Schema::of(kind)
    };
    if let Some(Value::Object(properties)) = source.get("properties") {
        for (name, value) in properties {
            schema.properties.insert(name.clone(), child(value, name)?);
        }
    }
    match source.get("additionalProperties") {
        Some(value @ Value::Object(_)) => schema.additional = Some(child(value, "*")?),
        Some(Value::Bool(true)) => schema.additional = Some(Arc::new(Schema { preserve: true, ..Schema::default() })),
        _ => {}
    }
    if let Some(items) = source.get("items").filter(|v| !v.is_null()) {
        schema.items = Some(child(items, "[]")?);
    }
    schema.required = strings(source, "required");
    let keys = strings(source, "x-kubernetes-list-map-keys");
    match source.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("map") if keys.is_empty() => return Err(at("a list of type map needs x-kubernetes-list-map-keys")),
        Some("map") => schema.list = ListType::Map(keys),
        Some("set") => schema.list = ListType::Set,
        _ => {}
    }
    schema.patch = PatchStrategy::Replace;
    schema.rules = rules(source, path, depth)?;
    Ok(schema)
}

fn rules(source: &Map<String, Value>, path: &str, depth: usize) -> Result<Option<Box<Rules>>, String> {
    let number = |name: &str| source.get(name).and_then(Value::as_f64);
    let count = |name: &str| source.get(name).and_then(Value::as_u64);
    let flag = |name: &str| source.get(name).and_then(Value::as_bool).unwrap_or(false);
    let junction = |name: &str| -> Result<Vec<Arc<Schema>>, String> {
        let Some(Value::Array(parts)) = source.get(name) else { return Ok(Vec::new()) };
        parts.iter().map(|part| node(part, &join(path, name), depth + 1).map(Arc::new)).collect()
    };
    let pattern =
        match text(source, "pattern") {
            None => None,
            Some(pattern) => Some(RegexBuilder::new(&pattern).size_limit(PATTERN_LIMIT).build().map_err(|_| {
                format!("{}: must be a valid regular expression, not {pattern:?}", join(path, "pattern"))
            })?),
        };
    let rules = Rules {
        allowed: source.get("enum").and_then(Value::as_array).cloned(),
        minimum: number("minimum").map(|n| (n, flag("exclusiveMinimum"))),
        maximum: number("maximum").map(|n| (n, flag("exclusiveMaximum"))),
        multiple_of: number("multipleOf"),
        length: (count("minLength"), count("maxLength")),
        items: (count("minItems"), count("maxItems")),
        properties: (count("minProperties"), count("maxProperties")),
        pattern,
        unique: flag("uniqueItems"),
        all_of: junction("allOf")?,
        any_of: junction("anyOf")?,
        one_of: junction("oneOf")?,
        not: match source.get("not").filter(|v| !v.is_null()) {
            Some(not) => Some(Arc::new(node(not, &join(path, "not"), depth + 1)?)),
            None => None,
        },
    };
    let empty = rules.allowed.is_none()
        && rules.minimum.is_none()
        && rules.maximum.is_none()
        && rules.multiple_of.is_none()
        && rules.length == (None, None)
        && rules.items == (None, None)
        && rules.properties == (None, None)
        && rules.pattern.is_none()
        && !rules.unique
        && rules.all_of.is_empty()
        && rules.any_of.is_empty()
        && rules.one_of.is_empty()
        && rules.not.is_none();
    Ok((!empty).then(|| Box::new(rules)))
}

fn text(source: &Map<String, Value>, name: &str) -> Option<String> {
    source.get(name).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned)
}

fn strings(source: &Map<String, Value>, name: &str) -> Vec<String> {
    source
        .get(name)
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}
