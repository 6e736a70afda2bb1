//! Rules of single built-in kinds.

use std::sync::Arc;

use serde_json::Value;

use super::is_label;
use crate::apiserver::{
    registry::{Strategy, resource_of},
    status::FieldError,
};

/// What is wrong with an object of this kind, metadata aside.
pub(crate) fn check_kind(strategy: Strategy, object: &Value) -> Vec<FieldError> {
    match strategy {
        Strategy::Pod => pod(object),
        Strategy::Secret | Strategy::ConfigMap => keys(object),
        Strategy::Service => service(object),
        Strategy::Event => event(object),
        Strategy::Lease => lease(object),
        Strategy::Definition => resource_of(object, &Arc::default()).err().unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// What an update of this kind may not do.
pub(crate) fn check_update(strategy: Strategy, old: &Value, new: &Value) -> Vec<FieldError> {
    match strategy {
        Strategy::Pod => pod_update(old, new),
        Strategy::Secret | Strategy::ConfigMap => frozen(old, new),
        Strategy::Definition => {
            let fixed = ["/spec/group", "/spec/scope", "/spec/names/kind", "/spec/names/plural"];
            fixed.iter().filter_map(|pointer| unchanged(old, new, pointer)).collect()
        }
        Strategy::Node => {
            let was = old.pointer("/spec/podCIDR").filter(|v| !v.as_str().unwrap_or_default().is_empty());
            if was.is_some() { unchanged(old, new, "/spec/podCIDR").into_iter().collect() } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

fn unchanged(old: &Value, new: &Value, pointer: &str) -> Option<FieldError> {
    let (was, is) = (old.pointer(pointer), new.pointer(pointer));
    let field = pointer[1..].replace('/', ".");
    (was != is).then(|| FieldError::invalid(&field, is.unwrap_or(&Value::Null), "field is immutable"))
}

fn pod(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let containers = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if containers.is_empty() {
        errors.push(FieldError::required("spec.containers"));
    }
    let mut names = Vec::new();
    for list in ["initContainers", "containers"] {
        for (i, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("spec.{list}[{i}]");
            match container["name"].as_str() {
                None | Some("") => errors.push(FieldError::required(&format!("{path}.name"))),
                Some(name) if !is_label(name) => {
                    let why = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'";
                    errors.push(FieldError::invalid(&format!("{path}.name"), &container["name"], why));
                }
                Some(name) if names.contains(&name) => {
                    errors.push(FieldError::duplicate(&format!("{path}.name"), &container["name"]));
                }
                Some(name) => names.push(name),
            }
            if container["image"].as_str().is_none_or(str::is_empty) {
                errors.push(FieldError::required(&format!("{path}.image")));
            }
            mounts(spec, container, &path, &mut errors);
        }
    }
    volumes(spec, &mut errors);
    one_of(&spec["restartPolicy"], "spec.restartPolicy", &["Always", "OnFailure", "Never"], &mut errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(&spec["dnsPolicy"], "spec.dnsPolicy", &policies, &mut errors);
    errors
}

fn mounts(spec: &Value, container: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (i, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let name = &mount["name"];
        if mount["mountPath"].as_str().is_none_or(str::is_empty) {
            errors.push(FieldError::required(&format!("{path}.volumeMounts[{i}].mountPath")));
        }
        if !spec["volumes"].as_array().into_iter().flatten().any(|volume| &volume["name"] == name) {
            let field = format!("{path}.volumeMounts[{i}].name");
            errors.push(FieldError::invalid(&field, name, "no volume of this name"));
        }
    }
}

fn volumes(spec: &Value, errors: &mut Vec<FieldError>) {
    let volumes = spec["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (i, volume) in volumes.iter().enumerate() {
        let field = format!("spec.volumes[{i}].name");
        match volume["name"].as_str() {
            None | Some("") => errors.push(FieldError::required(&field)),
            Some(name) if volumes[..i].iter().any(|v| v["name"] == name) => {
                errors.push(FieldError::duplicate(&field, &volume["name"]));
            }
            Some(_) => {}
        }
    }
}

fn one_of(value: &Value, field: &str, allowed: &[&str], errors: &mut Vec<FieldError>) {
    if let Some(text) = value.as_str().filter(|text| !text.is_empty())
        && !allowed.contains(&text)
    {
        let allowed: Vec<_> = allowed.iter().map(|a| Value::from(*a)).collect();
        errors.push(FieldError::not_supported(field, value, &allowed));
    }
}

/// Of a pod's spec only images, tolerations, the deadline and the grace period may change.
fn pod_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let bare = |object: &Value| {
        let mut spec = object["spec"].clone();
        if let Some(spec) = spec.as_object_mut() {
            for key in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
                spec.remove(key);
            }
            for list in ["containers", "initContainers"] {
                for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    if let Some(container) = container.as_object_mut() {
                        container.remove("image");
                    }
                }
            }
        }
        spec
    };
    if bare(old) == bare(new) {
        return Vec::new();
    }
    let why = "pod updates may not change fields other than `spec.containers[*].image`, \
        `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` or \
        `spec.terminationGracePeriodSeconds`";
    vec![FieldError::forbidden("spec", why)]
}

fn keys(object: &Value) -> Vec<FieldError> {
    const SIZE_LIMIT: usize = 1024 * 1024;
    let mut errors = Vec::new();
    let mut size = 0;
    for map in ["data", "binaryData"] {
        for (key, value) in object[map].as_object().into_iter().flatten() {
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if key.is_empty() || key.len() > 253 || !key.bytes().all(good) || key == "." || key.starts_with("..") {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
                errors.push(FieldError::invalid(&format!("{map}[{key}]"), &key.as_str().into(), why));
            }
            size += value.as_str().map_or(0, str::len);
        }
    }
    if size > SIZE_LIMIT * 4 / 3 {
        errors.push(FieldError::invalid("data", &size.into(), &format!("must have at most {SIZE_LIMIT} bytes")));
    }
    errors
}

fn frozen(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors: Vec<_> = unchanged(old, new, "/type").into_iter().collect();
    if old["immutable"] == true {
        for key in ["data", "binaryData", "immutable"] {
            if old[key] != new[key] {
                errors.push(FieldError::forbidden(key, "field is immutable when `immutable` is set"));
            }
        }
    }
    errors
}

fn service(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(&spec["type"], "spec.type", &types, &mut errors);
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        errors.push(FieldError::required("spec.ports"));
    }
    for (i, port) in ports.iter().enumerate() {
        if !port["port"].as_i64().is_some_and(|p| (1..=65535).contains(&p)) {
            let field = format!("spec.ports[{i}].port");
            errors.push(FieldError::invalid(&field, &port["port"], "must be between 1 and 65535, inclusive"));
        }
    }
    errors
}

fn event(object: &Value) -> Vec<FieldError> {
    let involved = object.pointer("/involvedObject/namespace").and_then(Value::as_str).unwrap_or_default();
    let own = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let fits = if involved.is_empty() { own == "default" || own == "kube-system" } else { involved == own };
    if fits {
        return Vec::new();
    }
    vec![FieldError::invalid("involvedObject.namespace", &involved.into(), "does not match event.namespace")]
}

fn lease(object: &Value) -> Vec<FieldError> {
    match object.pointer("/spec/leaseDurationSeconds") {
        Some(seconds) if seconds.as_i64().is_some_and(|s| s <= 0) => {
            vec![FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")]
        }
        _ => Vec::new(),
    }
}
