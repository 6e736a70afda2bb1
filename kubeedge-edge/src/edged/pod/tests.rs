#![allow(clippy::unwrap_used)]
use kubeedge_core::{
    meta::{Collection, MetaKey},
    names::UnixMillis,
    resource::ResourceType,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::edged::{
    decide::{Input, Memory, Observed, back_off::BackOffs, decide},
    env::{FieldContext, environment},
    references::Sources,
    status::{StatusInput, pod_status},
    volumes::Volumes,
};

const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

fn full() -> Value {
    let from = json!({"configMapKeyRef": {"name": "settings", "key": "color", "optional": true}});
    json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u-1", "labels": {"a": "b"},
            "deletionTimestamp": "2026-11-21T03:37:08Z", "deletionGracePeriodSeconds": 5,
        },
        "spec": {
            "nodeName": "edge-1", "restartPolicy": "Always", "serviceAccountName": "default",
            "initContainers": [{"name": "init", "image": "i", "restartPolicy": "Always"}],
            "containers": [{
                "name": "main", "image": "i", "command": ["$(A)"], "env": [{"name": "A", "valueFrom": from}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                "volumeMounts": [{"name": "all", "mountPath": "/etc/app", "subPath": "a"}],
            }],
            "volumes": [
                {"name": "all", "projected": {"sources": [
                    {"configMap": {"name": "settings", "optional": true, "items": [{"key": "a", "path": "b", "mode": 1}]}},
                    {"downwardAPI": {"items": [{"path": "c", "fieldRef": {"fieldPath": "metadata.labels['a']"}}]}},
                ]}},
                {"name": "host", "hostPath": {"path": "/nowhere", "type": ""}},
            ],
        },
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": 3, "containerID": "native://1",
        }]},
    })
}

fn read(namespace: &str, name: &str, pod: &Value) -> Result<Option<PodEntry>, BoxError> {
    let key = MetaKey::new(Collection::from(&ResourceType::Pod), namespace, name);
    PodEntry::read(&Record::new(key, pod.to_string()), "edge-1")
}

/// Everything that is made of a pod without touching the disk.
fn look_at(entry: &PodEntry) {
    let spec = entry.pod.spec.as_ref().unwrap();
    let context = FieldContext { node: "edge-1", host_ip: "192.0.2.1", pod_ip: "192.0.2.1" };
    let sources = Sources::new();
    let _resolved = Volumes::resolve(&entry.pod, &sources, context, "/nowhere".into());
    for container in &spec.containers {
        let _env = environment(&entry.pod, container, &sources, context, &BTreeMap::new());
    }
    let memory = Memory {
        back_off: BackOffs::new(Duration::from_secs(10), Duration::from_mins(5)),
        waiting: BTreeMap::new(),
        stopping: BTreeMap::new(),
    };
    let observed = Observed::default();
    for goal in [entry.goal(), Goal::Run, Goal::End(entry.grace())] {
        let told = entry.pod.status.as_ref();
        let input = Input { pod: &entry.pod, goal, told, observed: &observed, memory: &memory, now: NOW };
        let plan = decide(&input);
        pod_status(&StatusInput {
            pod: &entry.pod,
            goal,
            told,
            observed: &observed,
            memory: &memory,
            crash_loops: &plan.crash_loops,
            ended: plan.ended,
            runtime: "native",
            host_ip: None,
            now: NOW,
        });
    }
}

#[test]
fn a_pod_is_read_under_its_own_name_only() {
    let pod = full();
    let entry = read("shop", "web", &pod).unwrap().unwrap();
    assert_eq!((entry.key.to_string(), entry.uid.as_str()), ("shop/web".to_owned(), "u-1"));
    assert!(read("shop", "other", &pod).unwrap_err().to_string().contains("name"));
    assert!(read("bank", "web", &pod).unwrap_err().to_string().contains("namespace"));
    let mut nameless = pod.clone();
    nameless["metadata"].as_object_mut().unwrap().retain(|key, _| key == "uid");
    let entry = read("shop", "web", &nameless).unwrap().unwrap();
    assert_eq!(entry.pod.metadata.namespace.as_deref(), Some("shop"), "what it refers to is in its namespace");
    let mut elsewhere = pod;
    elsewhere["spec"]["nodeName"] = json!("edge-2");
    assert!(read("shop", "web", &elsewhere).unwrap().is_none());
}

#[test]
fn names_that_are_no_segments_of_a_path_are_refused_in_few_words() {
    let long = "n".repeat(1 << 20);
    for evil in ["", "..", ".hidden", "../x", "/etc", "a/b", "a\0b", "a b", "a_b", "a\nb", long.as_str()] {
        for at in ["/metadata/uid", "/spec/containers/0/name", "/spec/initContainers/0/name"] {
            let mut pod = full();
            *pod.pointer_mut(at).unwrap() = json!(evil);
            let error = read("shop", "web", &pod).unwrap_err().to_string();
            assert!(error.len() < 200, "{at}: {error}");
        }
        assert!(read(evil, "web", &full()).is_err() && read("shop", evil, &full()).is_err());
    }
}

/// The places of all values in a document.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, member)| places(member, format!("{at}/{key}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, format!("{at}/{index}"), found));
        }
        _ => {}
    }
    found.push(at);
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[$()/.:a-z0-9\\[\\]'\\PC]{0,12}".prop_map(Value::from),
        Just(Value::from("9".repeat(400))),
        Just(Value::from("../..")),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{0,8}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_pod_makes_the_agent_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), anything()), 1..4)) {
        let mut pod = full();
        for (place, value) in changes {
            let mut all = Vec::new();
            places(&pod, String::new(), &mut all);
            *pod.pointer_mut(place.get::<String>(&all)).unwrap() = value;
        }
        if let Ok(Some(entry)) = read("shop", "web", &pod) {
            look_at(&entry);
        }
    }
}
