//! What the built-in kinds fill in.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{metadata, pod};
use crate::apiserver::registry::Strategy;

/// Fills in what the object leaves open.
pub(super) fn fill(strategy: Strategy, object: &mut Value) {
    match strategy {
        Strategy::Pod => pod::fill(object),
        Strategy::Namespace => namespace(object),
        Strategy::Node => node(object),
        Strategy::Secret => secret(object),
        Strategy::Service => service(object),
        Strategy::Volume => {
            or(&mut object["spec"], "persistentVolumeReclaimPolicy", "Retain");
            or(&mut object["spec"], "volumeMode", "Filesystem");
            or(&mut object["status"], "phase", "Pending");
        }
        Strategy::Claim => {
            or(&mut object["spec"], "volumeMode", "Filesystem");
            or(&mut object["status"], "phase", "Pending");
        }
        Strategy::Definition => definition(object),
        Strategy::Signing => {
            or(&mut object["spec"], "username", "system:admin");
            or(&mut object["spec"], "groups", json!(["system:masters", "system:authenticated"]));
            if !object["status"].is_object() {
                object["status"] = json!({});
            }
        }
        _ => {}
    }
}

/// Keeps what an update may leave out.
pub(super) fn carry_over(strategy: Strategy, was: &Value, new: &mut Value) {
    if strategy == Strategy::Service {
        for key in ["clusterIP", "clusterIPs"] {
            if new["spec"].get(key).is_none_or(|v| v == "" || v == "None") {
                new["spec"][key] = was["spec"][key].clone();
            }
        }
    }
}

/// Sets a field that is absent or empty.
pub(super) fn or(object: &mut Value, key: &str, default: impl Into<Value>) {
    if object.is_null() {
        *object = json!({});
    }
    if let Some(map) = object.as_object_mut() {
        let slot = map.entry(key).or_insert(Value::Null);
        if slot.is_null() || slot == "" {
            *slot = default.into();
        }
    }
}

fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    let deleting = object["metadata"]["deletionTimestamp"].is_string();
    let labels = metadata(object).entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }
    if !deleting {
        or(&mut object["spec"], "finalizers", json!(["kubernetes"]));
        or(&mut object["status"], "phase", "Active");
    }
}

fn node(object: &mut Value) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    let capacity = object["status"]["capacity"].clone();
    if capacity.is_object() {
        or(&mut object["status"], "allocatable", capacity);
    } else if let Some(status) = object["status"].as_object_mut() {
        status.remove("capacity");
    }
}

fn secret(object: &mut Value) {
    or(object, "type", "Opaque");
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|o| o.remove("stringData")) else { return };
    if !object["data"].is_object() {
        object["data"] = json!({});
    }
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        object["data"][key] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}

fn service(object: &mut Value) {
    let spec = &mut object["spec"];
    or(spec, "type", "ClusterIP");
    or(spec, "sessionAffinity", "None");
    if spec["type"] != "ExternalName" {
        or(spec, "clusterIP", "None");
        let address = spec["clusterIP"].clone();
        or(spec, "clusterIPs", json!([address]));
        or(spec, "internalTrafficPolicy", "Cluster");
        or(spec, "ipFamilies", json!(["IPv4"]));
        or(spec, "ipFamilyPolicy", "SingleStack");
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        or(port, "protocol", "TCP");
        let number = port["port"].clone();
        or(port, "targetPort", number);
    }
    or(&mut object["status"], "loadBalancer", json!({}));
}

fn definition(object: &mut Value) {
    let spec = &mut object["spec"];
    or(spec, "conversion", json!({"strategy": "None"}));
    let names = &mut spec["names"];
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    or(names, "listKind", format!("{kind}List"));
    or(names, "singular", kind.to_lowercase());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_secret_data_is_encoded_over_what_is_there() {
        let mut object = json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "new"}});
        fill(Strategy::Secret, &mut object);
        assert_eq!(object, json!({"type": "Opaque", "data": {"a": "bmV3", "b": "eQ=="}}));
    }

    #[test]
    fn services_are_headless_unless_they_say_otherwise() {
        let mut object = json!({"spec": {"ports": [{"port": 80}]}});
        fill(Strategy::Service, &mut object);
        assert_eq!(object["spec"]["clusterIP"], "None");
        assert_eq!(object["spec"]["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
    }
}
