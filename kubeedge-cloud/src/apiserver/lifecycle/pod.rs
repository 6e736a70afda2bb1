//! Defaults of pods.

use serde_json::{Value, json};

use super::defaults::or;

/// Fills in what a pod leaves open.
pub(super) fn fill(object: &mut Value) {
    let mirrors = object.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    let spec = &mut object["spec"];
    or(spec, "restartPolicy", "Always");
    or(spec, "terminationGracePeriodSeconds", 30);
    or(spec, "dnsPolicy", "ClusterFirst");
    or(spec, "schedulerName", "default-scheduler");
    or(spec, "enableServiceLinks", true);
    or(spec, "securityContext", json!({}));
    // A mirror of a pod that a node runs from a file acts for nobody.
    if !mirrors {
        or(spec, "serviceAccountName", "default");
        let account = spec["serviceAccountName"].clone();
        or(spec, "serviceAccount", account);
    }
    or(spec, "priority", 0);
    or(spec, "preemptionPolicy", "PreemptLowerPriority");
    for list in ["initContainers", "containers"] {
        for item in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container(item);
        }
    }
    for item in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        volume(item);
    }
    tolerations(spec);
    let class = quality(spec);
    or(&mut object["status"], "phase", "Pending");
    or(&mut object["status"], "qosClass", class);
}

fn container(container: &mut Value) {
    or(container, "terminationMessagePath", "/dev/termination-log");
    or(container, "terminationMessagePolicy", "File");
    let policy = if is_latest(container["image"].as_str().unwrap_or_default()) { "Always" } else { "IfNotPresent" };
    or(container, "imagePullPolicy", policy);
    or(container, "resources", json!({}));
    let limits = container["resources"]["limits"].clone();
    for (name, limit) in limits.as_object().into_iter().flatten() {
        or(&mut container["resources"]["requests"], name, limit.clone());
    }
    if let Some(resources) = container["resources"].as_object_mut() {
        resources.retain(|_, value| !value.is_null());
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container.get(key).is_some_and(Value::is_object) {
            probe(&mut container[key]);
        }
    }
    let Some(container) = container.as_object_mut() else { return };
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        or(port, "protocol", "TCP");
    }
    for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            or(reference, "apiVersion", "v1");
        }
    }
}

fn probe(probe: &mut Value) {
    for (key, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        or(probe, key, default);
    }
    if let Some(get) = probe.get_mut("httpGet") {
        or(get, "scheme", "HTTP");
        or(get, "path", "/");
    }
}

/// Whether an image has the tag latest, or neither tag nor digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn volume(volume: &mut Value) {
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(kind) {
            or(source, "defaultMode", 0o644);
        }
    }
    if let Some(path) = volume.get_mut("hostPath")
        && let Some(path) = path.as_object_mut()
    {
        path.entry("type").or_insert_with(|| "".into());
    }
    let sources = volume.pointer_mut("/projected/sources").and_then(Value::as_array_mut);
    for token in sources.into_iter().flatten().filter_map(|source| source.get_mut("serviceAccountToken")) {
        or(token, "expirationSeconds", 3600);
    }
    let bare = volume.as_object().is_some_and(|map| map.keys().all(|key| key == "name"));
    if bare {
        volume["emptyDir"] = json!({});
    }
}

/// Pods stand it for five minutes that their node is not ready or cannot be reached.
fn tolerations(spec: &mut Value) {
    or(spec, "tolerations", json!([]));
    let Some(list) = spec["tolerations"].as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = list.iter().any(|t| {
            let any_key = t["key"].as_str().is_none_or(str::is_empty);
            let any_effect = t["effect"].as_str().is_none_or(str::is_empty);
            (any_key || t["key"] == key) && (any_effect || t["effect"] == "NoExecute")
        });
        if !tolerated {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
}

fn quality(spec: &Value) -> &'static str {
    let containers = ["initContainers", "containers"].map(|list| spec[list].as_array().into_iter().flatten());
    let (mut any, mut all) = (false, true);
    for container in containers.into_iter().flatten() {
        let (requests, limits) = (&container["resources"]["requests"], &container["resources"]["limits"]);
        for name in ["cpu", "memory"] {
            any |= !requests[name].is_null() || !limits[name].is_null();
            all &= !limits[name].is_null() && requests[name] == limits[name];
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_the_defaults_of_kubernetes() {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}], "volumes": [{"name": "v", "secret": {"secretName": "s"}}]}});
        fill(&mut pod);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["resources"]["requests"], json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!(pod["spec"]["volumes"][0]["secret"]["defaultMode"], 420);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
        let once = pod.clone();
        fill(&mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn latest_is_what_has_no_other_tag() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.2", false),
            ("host:5000/nginx", true),
            ("host:5000/nginx:1", false),
            ("nginx@sha256:abc", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
