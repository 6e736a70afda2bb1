//! Devices and models as `v1alpha2` had them, made into those of `v1beta1`. Pure.

use serde_json::{Map, Value, json};

use super::{GROUP, Problem, VERSION, Why};

/// Parts of `spec.protocol` that are settings of the line, not of a protocol.
const COMMON: &str = "common";
/// Protocols that have a part of their own.
const TYPED: [&str; 3] = ["modbus", "opcua", "bluetooth"];
const CUSTOM: &str = "customizedProtocol";

/// An object of `v1beta1`, and what of the older one has no place in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The object; `metadata` is as it was.
    pub object: Value,
    /// What was left out, or has to be looked at.
    pub problems: Vec<Problem>,
}

/// Whether a Device has what only `v1alpha2` has.
pub fn is_older_device(device: &Value) -> bool {
    let (spec, protocol) = (&device["spec"], &device["spec"]["protocol"]);
    let is_there = |value: &Value| !value.is_null();
    ["nodeSelector", "propertyVisitors", "data"].iter().any(|name| is_there(&spec[name]))
        || TYPED.iter().chain(&[CUSTOM, COMMON]).any(|name| is_there(&protocol[name]))
        || is_there(&device["status"]["twins"])
}

/// Whether a DeviceModel has what only `v1alpha2` has: a type that is an object.
pub fn is_older_model(model: &Value) -> bool {
    properties(model).any(|property| property["type"].as_object().is_some_and(|parts| !parts.is_empty()))
}

/// Makes a Device of `v1alpha2` into one of `v1beta1`.
///
/// | `v1alpha2` | `v1beta1` |
/// |---|---|
/// | first value of `spec.nodeSelector` | `spec.nodeName` |
/// | `spec.protocol.modbus` and so on, with `common` | `spec.protocol`: name, and one flat `configData` |
/// | `spec.propertyVisitors` | `spec.properties`, with `visitors` and cycles |
/// | `status.twins[].desired` | `spec.properties[].desired` |
///
/// What is reported is left out, as the edge reports it again; so is `spec.data`. Fields that are there in the newer form
/// already stay. Cycles keep their number, whose unit the mapper decides.
pub fn device_from_v1alpha2(device: &Value) -> Converted {
    let (old, mut problems) = (&device["spec"], Vec::new());
    let mut spec = Map::new();
    for name in ["deviceModelRef", "nodeName", "methods", "stateReport"] {
        if !old[name].is_null() {
            spec.insert(name.into(), old[name].clone());
        }
    }
    if !old["nodeSelector"].is_null() && spec.get("nodeName").is_none_or(|name| name == "") {
        spec.insert("nodeName".into(), node(&old["nodeSelector"], &mut problems).into());
    }
    spec.insert("protocol".into(), protocol(&old["protocol"], &mut problems));
    let mut properties: Vec<Value> = old["properties"].as_array().cloned().unwrap_or_default();
    for (index, visitor) in old["propertyVisitors"].as_array().into_iter().flatten().enumerate() {
        let name = &visitor["propertyName"];
        if properties.iter().any(|property| property["name"] == *name) {
            let field = format!("spec.propertyVisitors[{index}].propertyName");
            problems.push(Problem::new(field, &text(name), Why::Duplicate));
            continue;
        }
        let mut property = json!({ "name": name, "visitors": part(visitor, "customizedValues") });
        for cycle in ["reportCycle", "collectCycle"].iter().filter(|cycle| !visitor[**cycle].is_null()) {
            property[cycle] = visitor[cycle].clone();
        }
        properties.push(property);
    }
    let mut reported = false;
    for (index, twin) in device["status"]["twins"].as_array().into_iter().flatten().enumerate() {
        reported |= twin["reported"]["value"].as_str().is_some_and(|value| !value.is_empty());
        if twin["desired"]["value"].as_str().is_none_or(str::is_empty) {
            continue;
        }
        match properties.iter_mut().find(|property| property["name"] == twin["propertyName"]) {
            Some(property) if property["desired"].is_null() => property["desired"] = twin["desired"].clone(),
            Some(_) => {}
            None => {
                let field = format!("status.twins[{index}].propertyName");
                let why = Why::Older("it has a desired value, but no visitor");
                problems.push(Problem::new(field, &text(&twin["propertyName"]), why));
            }
        }
    }
    if reported {
        let why = Why::Older("reported values are left out, as the edge reports them again");
        problems.push(Problem::new("status.twins", "", why));
    }
    if !old["data"].is_null() {
        let why = Why::Older("v1beta1 has no data topic; pushMethod takes its place");
        problems.push(Problem::new("spec.data.dataTopic", &text(&old["data"]["dataTopic"]), why));
    }
    spec.insert("properties".into(), properties.into());
    Converted { object: whole(device, "Device", &spec), problems }
}

/// Makes a DeviceModel of `v1alpha2` into one of `v1beta1`: the one member of each type becomes the type, its bounds become
/// text. A default value has no place.
pub fn model_from_v1alpha2(model: &Value) -> Converted {
    let mut problems = Vec::new();
    let convert = |(index, old): (usize, &Value)| {
        let mut property = Map::new();
        for name in ["name", "description"].iter().filter(|name| !old[**name].is_null()) {
            property.insert((*name).into(), old[name].clone());
        }
        let field = |name: &str| format!("spec.properties[{index}].type{name}");
        let Some((word, bounds)) = old["type"].as_object().and_then(|types| types.iter().next()) else {
            // One that is newer already, or has none.
            return old.clone();
        };
        if old["type"].as_object().is_some_and(|types| types.len() > 1) {
            let why = Why::Older("only the first of several types counts");
            problems.push(Problem::new(field(""), &old["type"].to_string(), why));
        }
        property.insert("type".into(), word.to_ascii_uppercase().into());
        for (name, value) in bounds.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "minimum" | "maximum" | "unit" => drop(property.insert(name.clone(), text(value).into())),
                "accessMode" => drop(property.insert(name.clone(), value.clone())),
                _ => {
                    let why = Why::Older("v1beta1 has no place for it");
                    problems.push(Problem::new(field(&format!(".{word}.{name}")), &text(value), why));
                }
            }
        }
        Value::Object(property)
    };
    let properties: Vec<Value> = properties(model).enumerate().map(convert).collect();
    let mut spec = model["spec"].as_object().cloned().unwrap_or_default();
    spec.insert("properties".into(), properties.into());
    Converted { object: whole(model, "DeviceModel", &spec), problems }
}

fn whole(old: &Value, kind: &str, spec: &Map<String, Value>) -> Value {
    let api_version = format!("{GROUP}/{VERSION}");
    json!({ "apiVersion": api_version, "kind": kind, "metadata": old["metadata"], "spec": spec })
}

fn properties(model: &Value) -> impl Iterator<Item = &Value> {
    model["spec"]["properties"].as_array().into_iter().flatten()
}

/// The first value of the first requirement, as upstream read it.
fn node(selector: &Value, problems: &mut Vec<Problem>) -> String {
    let values = |requirement: &Value| requirement["values"].as_array().map_or(0, Vec::len);
    let terms = selector["nodeSelectorTerms"].as_array().map(Vec::as_slice).unwrap_or_default();
    let requirements: Vec<&Value> =
        terms.iter().flat_map(|term| term["matchExpressions"].as_array().into_iter().flatten()).collect();
    let first = requirements.first().copied().unwrap_or(&Value::Null);
    let name = first["values"][0].as_str().unwrap_or_default();
    let fields = terms.iter().any(|term| !term["matchFields"].is_null());
    if name.is_empty() || requirements.len() != 1 || values(first) != 1 || fields || first["operator"] != "In" {
        let why = Why::Older("a device has one node: only the first value of the first expression counts");
        problems.push(Problem::new("spec.nodeSelector", &selector.to_string(), why));
    }
    name.to_owned()
}

fn protocol(old: &Value, problems: &mut Vec<Problem>) -> Value {
    if !old["protocolName"].is_null() {
        return old.clone();
    }
    let several = TYPED.iter().chain(&[CUSTOM]).filter(|name| !old[**name].is_null()).count() > 1;
    if several {
        let why = Why::Older("only the first of several protocols counts");
        problems.push(Problem::new("spec.protocol", &old.to_string(), why));
    }
    let mut new = part(old, "");
    let mut common = old[COMMON].as_object().cloned().unwrap_or_default();
    // Mappers of v1beta1 read one flat map.
    for group in ["com", "tcp", "customizedValues"] {
        if let Some(Value::Object(members)) = common.remove(group) {
            common.extend(members);
        }
    }
    if let Some(config) = new.get_mut("configData").and_then(Value::as_object_mut) {
        for (key, value) in common {
            config.entry(key).or_insert(value);
        }
    } else if !common.is_empty() {
        new["configData"] = common.into();
    }
    new
}

/// The protocol and the settings of a protocol or a visitor; settings under `more` are added.
fn part(old: &Value, more: &str) -> Value {
    let typed = TYPED.iter().find(|name| !old[**name].is_null());
    let (name, config) = match typed {
        Some(name) => ((*name).into(), old[name].as_object().cloned()),
        None => (old[CUSTOM]["protocolName"].clone(), old[CUSTOM]["configData"].as_object().cloned()),
    };
    let mut config = config.unwrap_or_default();
    config.extend(old[more].as_object().cloned().unwrap_or_default());
    let mut new = Map::new();
    if !name.is_null() {
        new.insert("protocolName".into(), name);
    }
    if !config.is_empty() {
        new.insert("configData".into(), config.into());
    }
    new.into()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "older/tests.rs"]
mod tests;
