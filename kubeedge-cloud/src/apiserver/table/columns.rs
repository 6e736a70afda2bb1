//! The columns of the built-in kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, pod};
use crate::apiserver::registry::{Resource, Strategy};

type Columns = &'static [(&'static str, &'static str, bool)];

const NAME: (&str, &str, bool) = ("Name", "string", false);
const AGE: (&str, &str, bool) = ("Age", "string", false);

const fn text(name: &'static str) -> (&'static str, &'static str, bool) {
    (name, "string", false)
}

const fn number(name: &'static str) -> (&'static str, &'static str, bool) {
    (name, "integer", false)
}

const fn wide(name: &'static str) -> (&'static str, &'static str, bool) {
    (name, "string", true)
}

const PLAIN: Columns = &[NAME, AGE];
const NAMESPACES: Columns = &[NAME, text("Status"), AGE];
const NODES: Columns = &[
    NAME,
    text("Status"),
    text("Roles"),
    AGE,
    text("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];
const CONFIG_MAPS: Columns = &[NAME, number("Data"), AGE];
const SECRETS: Columns = &[NAME, text("Type"), number("Data"), AGE];
const ACCOUNTS: Columns = &[NAME, number("Secrets"), AGE];
const EVENTS: Columns = &[
    text("Last Seen"),
    text("Type"),
    text("Reason"),
    text("Object"),
    wide("Subobject"),
    wide("Source"),
    text("Message"),
    wide("First Seen"),
    wide("Count"),
    ("Name", "string", true),
];
const SERVICES: Columns =
    &[NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), AGE, wide("Selector")];
const ENDPOINTS: Columns = &[NAME, text("Endpoints"), AGE];
const LEASES: Columns = &[NAME, text("Holder"), AGE];
const VOLUMES: Columns = &[
    NAME,
    text("Capacity"),
    text("Access Modes"),
    text("Reclaim Policy"),
    text("Status"),
    text("Claim"),
    text("StorageClass"),
    text("Reason"),
    AGE,
    wide("VolumeMode"),
];
const CLAIMS: Columns = &[
    NAME,
    text("Status"),
    text("Volume"),
    text("Capacity"),
    text("Access Modes"),
    text("StorageClass"),
    AGE,
    wide("VolumeMode"),
];
const ATTACHMENTS: Columns = &[NAME, text("Attacher"), text("PV"), text("Node"), ("Attached", "boolean", false), AGE];
const SIGNINGS: Columns = &[NAME, AGE, text("SignerName"), text("Requestor"), text("Condition")];
const DEFINITIONS: Columns = &[NAME, ("Created At", "date", false)];

pub(super) fn headings(resource: &Resource) -> Columns {
    match resource.strategy {
        Strategy::Namespace => NAMESPACES,
        Strategy::Pod => pod::COLUMNS,
        Strategy::Node => NODES,
        Strategy::ConfigMap => CONFIG_MAPS,
        Strategy::Secret => SECRETS,
        Strategy::ServiceAccount => ACCOUNTS,
        Strategy::Event => EVENTS,
        Strategy::Service => SERVICES,
        Strategy::Lease => LEASES,
        Strategy::Volume => VOLUMES,
        Strategy::Claim => CLAIMS,
        Strategy::Signing => SIGNINGS,
        Strategy::Definition => DEFINITIONS,
        _ => match resource.plural.as_str() {
            "endpoints" => ENDPOINTS,
            "volumeattachments" => ATTACHMENTS,
            _ => PLAIN,
        },
    }
}

/// The cells of one object, as many as there are headings.
pub(super) fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = object["metadata"]["name"].clone();
    let born = age(&object["metadata"]["creationTimestamp"], now);
    let at = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    let word = |pointer: &str| or_empty(object.pointer(pointer));
    match resource.strategy {
        Strategy::Namespace => vec![name, word("/status/phase"), born],
        Strategy::Pod => pod::cells(object, now),
        Strategy::Node => node(object, name, born),
        Strategy::ConfigMap => vec![name, (size(&object["data"]) + size(&object["binaryData"])).into(), born],
        Strategy::Secret => vec![name, word("/type"), size(&object["data"]).into(), born],
        Strategy::ServiceAccount => vec![name, object["secrets"].as_array().map_or(0, Vec::len).into(), born],
        Strategy::Event => event(object, now),
        Strategy::Service => service(object, name, born),
        Strategy::Lease => vec![name, word("/spec/holderIdentity"), born],
        Strategy::Volume => vec![
            name,
            word("/spec/capacity/storage"),
            modes(&object["spec"]["accessModes"]),
            word("/spec/persistentVolumeReclaimPolicy"),
            word("/status/phase"),
            claim(&object["spec"]["claimRef"]),
            word("/spec/storageClassName"),
            word("/status/reason"),
            born,
            word("/spec/volumeMode"),
        ],
        Strategy::Claim => vec![
            name,
            word("/status/phase"),
            word("/spec/volumeName"),
            word("/status/capacity/storage"),
            modes(&object["status"]["accessModes"]),
            word("/spec/storageClassName"),
            born,
            word("/spec/volumeMode"),
        ],
        Strategy::Signing => {
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
            let conditions: Vec<_> = conditions.into_iter().flatten().filter_map(|c| c["type"].as_str()).collect();
            let condition = if conditions.is_empty() { "Pending".to_owned() } else { conditions.join(",") };
            vec![name, born, word("/spec/signerName"), word("/spec/username"), condition.into()]
        }
        Strategy::Definition => vec![name, at("/metadata/creationTimestamp")],
        _ => match resource.plural.as_str() {
            "endpoints" => vec![name, endpoints(object), born],
            "volumeattachments" => vec![
                name,
                word("/spec/attacher"),
                word("/spec/source/persistentVolumeName"),
                word("/spec/nodeName"),
                (at("/status/attached") == true).into(),
                born,
            ],
            _ => vec![name, born],
        },
    }
}

fn or_empty(value: Option<&Value>) -> Value {
    value.filter(|v| !v.is_null()).cloned().unwrap_or_else(|| "".into())
}

/// A text, or what stands for none.
pub(super) fn or_none(value: Option<&Value>) -> Value {
    value.and_then(Value::as_str).filter(|text| !text.is_empty()).unwrap_or("<none>").into()
}

fn size(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

fn modes(list: &Value) -> Value {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    list.as_array().into_iter().flatten().map(short).collect::<Vec<_>>().join(",").into()
}

fn claim(reference: &Value) -> Value {
    match (reference["namespace"].as_str(), reference["name"].as_str()) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}").into(),
        _ => "".into(),
    }
}

fn node(object: &Value, name: Value, born: Value) -> Vec<Value> {
    const ROLE: &str = "node-role.kubernetes.io/";
    let status = &object["status"];
    let ready = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let mut state = match ready.and_then(|c| c["status"].as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        state += ",SchedulingDisabled";
    }
    let labels = object["metadata"]["labels"].as_object();
    let mut roles: Vec<_> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE) {
            Some(role) if !role.is_empty() => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let address = |kind: &str| {
        let found = status["addresses"].as_array().into_iter().flatten().find(|a| a["type"] == kind);
        or_none(found.map(|a| &a["address"]))
    };
    let info = |key: &str| {
        let text = status["nodeInfo"][key].as_str().unwrap_or_default();
        Value::from(if text.is_empty() { "<unknown>" } else { text })
    };
    let version = or_empty(status.pointer("/nodeInfo/kubeletVersion"));
    vec![
        name,
        state.into(),
        roles.into(),
        born,
        version,
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let time = |pointers: &[&str]| {
        let found = pointers.iter().filter_map(|p| object.pointer(p)).find(|v| v.is_string());
        found.map_or_else(|| "<unknown>".into(), |found| age(found, now))
    };
    let last = time(&["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]);
    let first = time(&["/firstTimestamp", "/eventTime", "/metadata/creationTimestamp"]);
    let involved = &object["involvedObject"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&involved["kind"]).to_lowercase();
    let target = if text(&involved["name"]).is_empty() { kind } else { format!("{kind}/{}", text(&involved["name"])) };
    let source = [text(&object["source"]["component"]), text(&object["source"]["host"])];
    let source: Vec<_> = source.into_iter().filter(|part| !part.is_empty()).collect();
    let count = object.pointer("/series/count").or(object.get("count")).cloned().unwrap_or_else(|| 1.into());
    vec![
        last,
        or_empty(object.get("type")),
        or_empty(object.get("reason")),
        target.into(),
        or_empty(involved.get("fieldPath")),
        source.join(", ").into(),
        text(&object["message"]).trim().into(),
        first,
        count.to_string().into(),
        object["metadata"]["name"].clone(),
    ]
}

fn service(object: &Value, name: Value, born: Value) -> Vec<Value> {
    let spec = &object["spec"];
    let external = match spec["type"].as_str() {
        Some("ExternalName") => or_none(spec.get("externalName")),
        Some("LoadBalancer") => "<pending>".into(),
        _ => {
            let list = spec["externalIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let list = list.collect::<Vec<_>>().join(",");
            Value::from(if list.is_empty() { "<none>" } else { &list })
        }
    };
    let port = |port: &Value| {
        let node = port["nodePort"].as_i64().filter(|n| *n > 0).map_or_else(String::new, |n| format!(":{n}"));
        format!("{}{node}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP"))
    };
    let ports: Vec<_> = spec["ports"].as_array().into_iter().flatten().map(port).collect();
    let ports = if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") };
    let selector = spec["selector"].as_object().into_iter().flatten();
    let selector: Vec<_> = selector.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    let selector = if selector.is_empty() { "<none>".to_owned() } else { selector.join(",") };
    let address = or_none(spec.get("clusterIP"));
    vec![name, or_empty(spec.get("type")), address, external, ports.into(), born, selector.into()]
}

fn endpoints(object: &Value) -> Value {
    const MOST: usize = 3;
    let mut list = Vec::new();
    for subset in object["subsets"].as_array().into_iter().flatten() {
        for address in subset["addresses"].as_array().into_iter().flatten() {
            let ip = address["ip"].as_str().unwrap_or_default();
            match subset["ports"].as_array().filter(|ports| !ports.is_empty()) {
                Some(ports) => list.extend(ports.iter().map(|port| format!("{ip}:{}", port["port"]))),
                None => list.push(ip.to_owned()),
            }
        }
    }
    let text = match list.len() {
        0 => "<none>".to_owned(),
        n if n > MOST => format!("{} + {} more...", list[..MOST].join(","), n - MOST),
        _ => list.join(","),
    };
    text.into()
}
