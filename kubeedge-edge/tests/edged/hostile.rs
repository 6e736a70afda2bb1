//! A cloud that means harm, or has lost its mind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use kubeedge_core::{
    meta::{Collection, MetaKey, Record},
    resource::ResourceType,
};
use serde_json::{Value, json};

use crate::stage::{Cloud, Stage, is_running, script};

/// All that there is below a directory; links are not followed.
fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for path in fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()) {
            if path.symlink_metadata().unwrap().is_dir() {
                open.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

/// The pod `name` with `change` made to its spec and its only container.
fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = script(name, "sleep 1000");
    pod["spec"]["volumes"] =
        json!([{"name": "cfg", "configMap": {"name": "settings"}}, {"name": "work", "emptyDir": {}}]);
    change(&mut pod);
    pod
}

fn mount(pod: &mut Value, mount: &Value) {
    pod["spec"]["containers"][0]["volumeMounts"] = json!([mount]);
}

fn item(pod: &mut Value, path: &str) {
    pod["spec"]["volumes"][0]["configMap"]["items"] = json!([{"key": "color", "path": path}]);
}

/// Pods that try to get out of their directory, one way each.
fn escapes() -> Vec<Value> {
    let long = "n".repeat(100_000);
    vec![
        pod("item-up", |pod| item(pod, "../../../../../../escaped")),
        pod("item-root", |pod| item(pod, "/tmp/kubeedge-escaped")),
        pod("item-data", |pod| item(pod, "./..data/escaped")),
        pod("item-long", |pod| item(pod, &long)),
        pod("item-nul", |pod| item(pod, "a\0b")),
        pod("keys", |pod| pod["spec"]["volumes"][0]["configMap"]["name"] = json!("evil-keys")),
        pod("mount-up", |pod| mount(pod, &json!({"name": "work", "mountPath": "/../../../../escaped"}))),
        pod("mount-long", |pod| mount(pod, &json!({"name": "work", "mountPath": long}))),
        pod("sub-up", |pod| mount(pod, &json!({"name": "work", "mountPath": "/w", "subPath": "../../escaped"}))),
        pod("sub-expr", |pod| {
            pod["spec"]["containers"][0]["env"] = json!([{"name": "UP", "value": "../../escaped"}]);
            mount(pod, &json!({"name": "work", "mountPath": "/w", "subPathExpr": "$(UP)"}));
        }),
        pod("volume-name", |pod| pod["spec"]["volumes"][1]["name"] = json!("../../escaped")),
        pod("container-name", |pod| pod["spec"]["containers"][0]["name"] = json!("../../escaped")),
        pod("uid-up", |pod| pod["metadata"]["uid"] = json!("../../escaped")),
        pod("uid-dots", |pod| pod["metadata"]["uid"] = json!("..")),
        pod("work-dir", |pod| pod["spec"]["containers"][0]["workingDir"] = json!("../../../../escaped")),
        pod("numbers", |pod| {
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(i64::MAX);
            pod["spec"]["terminationGracePeriodSeconds"] = json!(i64::MIN);
            pod["status"] = json!({"phase": "Running", "containerStatuses": [
                {"name": "main", "image": "", "imageID": "", "ready": true, "restartCount": i32::MAX, "containerID": "x"},
            ]});
            mount(pod, &json!({"name": "none", "mountPath": "/w"}));
        }),
        json!({"metadata": {"name": "no-spec", "namespace": "shop", "uid": "x"}}),
        json!({"metadata": {"name": "no-pod", "namespace": "shop", "uid": "x"}, "spec": {"containers": "none"}}),
    ]
}

#[tokio::test]
async fn hostile_pods_write_nowhere_and_stop_nobody() {
    let mut stage = Stage::new(Cloud::absent());
    stage.config.retry = std::time::Duration::from_millis(20);
    stage.put_config("settings", &json!({"color": "red"})).await;
    stage.put_config("evil-keys", &json!({"../../../escaped": "x", "/tmp/kubeedge-escaped": "x"})).await;
    for pod in escapes() {
        // Not every such uid is one for the record, but the object keeps it.
        let name = pod["metadata"]["name"].as_str().unwrap();
        let key = MetaKey::new(Collection::from(&ResourceType::Pod), "shop", name);
        stage.store.put(Record::new(key, pod.to_string())).await.unwrap();
    }
    for (namespace, name) in [("../../escaped", "x"), ("shop", "../../escaped"), ("..", "..")] {
        let key = MetaKey::new(Collection::from(&ResourceType::Pod), namespace, name);
        stage.store.put(Record::new(key, script("x", "sleep 1000").to_string())).await.unwrap();
    }
    let agent = stage.agent().await;
    for pod in ["item-up", "item-root", "item-data", "item-nul", "item-long", "keys", "mount-up", "sub-up", "sub-expr"]
    {
        agent
            .sees(pod, "held back", |pod| {
                ["CreateContainerConfigError", "CreateContainerError"].contains(&pod.containers[0].state.as_str())
            })
            .await;
    }
    stage.put(&ResourceType::Pod, &pod("good", |pod| mount(pod, &json!({"name": "cfg", "mountPath": "/cfg"})))).await;
    agent.sees("good", "running", is_running).await;

    let known = ["kubelet", "logs", "native"].map(|dir| stage.dir.path().join(dir));
    let strange: Vec<_> = tree(stage.dir.path())
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("escaped") || !known.iter().any(|dir| path.starts_with(dir)))
        .collect();
    assert!(strange.is_empty(), "{strange:#?}");
    assert!(!Path::new("/tmp/kubeedge-escaped").exists());
    // They were tried again and again meanwhile, which leaves nothing behind either.
    let volume = stage.dir.path().join("kubelet/pods/uid-item-long/volumes/kubernetes.io~configmap/cfg");
    assert!(fs::read_dir(volume).unwrap().count() <= 1, "what failed is taken away");
    agent.stop().await;
}
