//! The API through `kube`.

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Node, Pod, Secret},
};
use kube::{
    Api, Error,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use kubeedge_cloud::apiserver::{EmbeddedApi, StoreError};
use serde_json::{Value, json};

use crate::{api, pod};

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Api(status)) => status.reason.clone(),
        other => panic!("not an API error: {other:?}"),
    }
}

fn map(name: &str, data: &Value) -> ConfigMap {
    object(json!({"metadata": {"name": name}, "data": data}))
}

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let api = api().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client("default"));
    let post = PostParams::default();
    let made = maps.create(&post, &map("a", &json!({"k": "1"}))).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    assert_eq!(reason(maps.create(&post, &map("a", &json!({}))).await), "AlreadyExists");

    let mut newer = made.clone();
    newer.data = Some([("k".to_owned(), "2".to_owned())].into());
    let newer = maps.replace("a", &post, &newer).await.unwrap();
    assert_ne!(newer.metadata.resource_version, made.metadata.resource_version);
    assert_eq!(newer.metadata.uid, made.metadata.uid);
    // Writing the same again changes nothing.
    let same = maps.replace("a", &post, &newer).await.unwrap();
    assert_eq!(same.metadata.resource_version, newer.metadata.resource_version);
    // Who holds an old version has to read again.
    assert_eq!(reason(maps.replace("a", &post, &made).await), "Conflict");

    let unconditional = maps.replace("a", &post, &map("a", &json!({"k": "3"}))).await.unwrap();
    assert_eq!(unconditional.metadata.creation_timestamp, made.metadata.creation_timestamp);
    assert!(maps.delete("a", &DeleteParams::default()).await.unwrap().is_right());
    assert_eq!(reason(maps.get("a").await), "NotFound");
}

#[tokio::test]
async fn every_kind_of_patch_does_what_its_type_says() {
    let api = api().await;
    let pods: Api<Pod> = Api::default_namespaced(api.client("default"));
    pods.create(&PostParams::default(), &object(pod("web"))).await.unwrap();
    let params = PatchParams::default();
    let merge = json!({"metadata": {"labels": {"x": "1"}}});
    let found = pods.patch("web", &params, &Patch::Merge(&merge)).await.unwrap();
    assert_eq!(found.metadata.labels.unwrap().len(), 2);
    let strategic = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status("web", &params, &Patch::Strategic(&strategic)).await.unwrap();
    let strategic = json!({"status": {"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}]}});
    let found = pods.patch_status("web", &params, &Patch::Strategic(&strategic)).await.unwrap();
    assert_eq!(found.status.unwrap().conditions.unwrap().len(), 2);
    // The main endpoint leaves the status alone.
    let found = pods.patch("web", &params, &Patch::Merge(&json!({"status": {"phase": "Failed"}}))).await.unwrap();
    assert_eq!(found.status.unwrap().phase.as_deref(), Some("Running"));
    let stale = json!({"metadata": {"resourceVersion": "1", "labels": {"x": "2"}}});
    assert_eq!(reason(pods.patch("web", &params, &Patch::Merge(&stale)).await), "Conflict");
    assert_eq!(reason(pods.patch("none", &params, &Patch::Merge(&merge)).await), "NotFound");
    let image = json!({"spec": {"containers": [{"name": "main", "image": "busybox:2"}]}});
    let found = pods.patch("web", &params, &Patch::Strategic(&image)).await.unwrap();
    assert_eq!(found.spec.unwrap().containers[0].image.as_deref(), Some("busybox:2"));
    let other = json!({"spec": {"nodeName": "edge-1"}});
    assert_eq!(reason(pods.patch("web", &params, &Patch::Merge(&other)).await), "Invalid");
}

#[tokio::test]
async fn applied_configurations_have_owners() {
    let api = api().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client("default"));
    let config =
        |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    let one = PatchParams::apply("one");
    let made = maps.patch("a", &one, &Patch::Apply(config(json!({"x": "1", "y": "1"})))).await.unwrap();
    assert_eq!(made.metadata.managed_fields.as_ref().unwrap()[0].manager.as_deref(), Some("one"));
    let again = maps.patch("a", &one, &Patch::Apply(config(json!({"x": "1", "y": "1"})))).await.unwrap();
    assert_eq!(again.metadata.resource_version, made.metadata.resource_version);
    let other = maps.patch("a", &PatchParams::apply("two"), &Patch::Apply(config(json!({"x": "2"})))).await;
    let Err(Error::Api(conflict)) = other else { panic!("no conflict") };
    assert_eq!(conflict.details.as_ref().unwrap().causes[0].reason, "FieldManagerConflict");
    let forced = PatchParams::apply("two").force();
    maps.patch("a", &forced, &Patch::Apply(config(json!({"x": "2"})))).await.unwrap();
    let left = maps.patch("a", &one, &Patch::Apply(config(json!({})))).await.unwrap();
    assert_eq!(left.data.unwrap(), [("x".to_owned(), "2".to_owned())].into());
}

#[tokio::test]
async fn nodes_report_and_keep_their_leases() {
    let api = api().await;
    let nodes: Api<Node> = Api::all(api.client("default"));
    let node = json!({"metadata": {"name": "edge-1", "labels": {"node-role.kubernetes.io/edge": ""}},
        "status": {"capacity": {"cpu": "4"}}});
    let made = nodes.create(&PostParams::default(), &object(node)).await.unwrap();
    assert_eq!(made.status.as_ref().unwrap().allocatable.as_ref().unwrap().len(), 1);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let ready = nodes.patch_status("edge-1", &PatchParams::default(), &Patch::Strategic(&ready)).await.unwrap();
    assert!(ready.status.unwrap().capacity.is_some());
    let edge = ListParams::default().labels("node-role.kubernetes.io/edge=");
    assert_eq!(nodes.list(&edge).await.unwrap().items.len(), 1);

    let leases: Api<Lease> = Api::namespaced(api.client("default"), "kube-node-lease");
    let lease = |time: &str| {
        object::<Lease>(
            json!({"metadata": {"name": "edge-1"}, "spec": {"holderIdentity": "edge-1", "renewTime": time}}),
        )
    };
    // A lease that is not there is made by its update.
    leases.replace("edge-1", &PostParams::default(), &lease("2026-01-01T00:00:00.000000Z")).await.unwrap();
    let held = leases.get("edge-1").await.unwrap();
    assert_eq!(held.spec.unwrap().holder_identity.as_deref(), Some("edge-1"));
}

#[tokio::test]
async fn lists_are_selected_by_labels_and_fields() {
    let api = api().await;
    let pods: Api<Pod> = Api::default_namespaced(api.client("default"));
    for (name, node) in [("a", "edge-1"), ("b", "edge-2"), ("c", "")] {
        let mut pod = pod(name);
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.into();
        }
        pods.create(&PostParams::default(), &object(pod)).await.unwrap();
    }
    let count = async |params: ListParams| pods.list(&params).await.unwrap().items.len();
    assert_eq!(count(ListParams::default()).await, 3);
    assert_eq!(count(ListParams::default().fields("spec.nodeName=edge-1")).await, 1);
    assert_eq!(count(ListParams::default().fields("spec.nodeName!=,status.phase=Pending")).await, 2);
    assert_eq!(count(ListParams::default().labels("app in (a, c)")).await, 2);
    assert_eq!(count(ListParams::default().fields("metadata.name=b").labels("app!=b")).await, 0);
    let other: Api<Pod> = Api::namespaced(api.client("default"), "kube-system");
    assert_eq!(other.list(&ListParams::default()).await.unwrap().items.len(), 0);
    let all: Api<Pod> = Api::all(api.client("default"));
    assert_eq!(all.list(&ListParams::default()).await.unwrap().items.len(), 3);
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    let open = async || EmbeddedApi::builder().data_source(&path).build().await.unwrap();
    let api = open().await;
    let token = api.admin_token().to_owned();
    assert!(token.len() >= 43);
    let client = api.client("default");
    let secrets: Api<Secret> = Api::default_namespaced(client);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    let made = secrets.create(&PostParams::default(), &object(secret)).await.unwrap();
    let gone =
        secrets.create(&PostParams::default(), &object(json!({"metadata": {"generateName": "gone-"}}))).await.unwrap();
    secrets.delete(&gone.metadata.name.unwrap(), &DeleteParams::default()).await.unwrap();
    drop((secrets, api));

    let api = open().await;
    assert_eq!(api.admin_token(), token);
    let secrets: Api<Secret> = Api::default_namespaced(api.client("default"));
    let found = secrets.list(&ListParams::default()).await.unwrap();
    assert_eq!(found.items, std::slice::from_ref(&made));
    // Versions go on from the last one, the deletion included.
    let version = |v: &Option<String>| v.as_ref().unwrap().parse::<u64>().unwrap();
    assert!(version(&found.metadata.resource_version) > version(&made.metadata.resource_version) + 1);
    let namespaces: Api<Namespace> = Api::all(api.client("default"));
    assert_eq!(namespaces.list(&ListParams::default()).await.unwrap().items.len(), 4);
}

#[tokio::test]
async fn a_database_is_used_by_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    let first = EmbeddedApi::builder().data_source(&path).build().await.unwrap();
    let refused = EmbeddedApi::builder().data_source(&path).build().await.unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }));
    assert_eq!(refused.to_string(), format!("{} is in use by another process", path.display()));
    drop(first);
    // The second waits until the first has let go.
    EmbeddedApi::builder().data_source(&path).build().await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let refused = async |path: &std::path::Path| {
        let error = EmbeddedApi::builder().data_source(path).build().await.unwrap_err();
        assert!(std::error::Error::source(&error).is_none(), "one line tells it all: {error:?}");
        error.to_string().replace(&path.display().to_string(), "FILE")
    };
    assert_eq!(refused(folder.path()).await, "FILE cannot be used: it is a folder");
    assert_eq!(refused(&folder.path().join("none/api.db")).await, "FILE cannot be used: its folder does not exist");
    // Nobody makes files there, root included.
    assert_eq!(refused(std::path::Path::new("/proc/api.db")).await, "FILE cannot be used: it may not be opened");
    let text = folder.path().join("text.db");
    std::fs::write(&text, "not a database\n".repeat(100)).unwrap();
    assert_eq!(refused(&text).await, "FILE is not a database, or is damaged");

    // A page in the middle is overwritten.
    let path = folder.path().join("api.db");
    drop(EmbeddedApi::builder().data_source(&path).build().await.unwrap());
    let mut bytes = loop {
        // The last handle is gone, and the writer closes the file soon after.
        let bytes = std::fs::read(&path).unwrap();
        if bytes.len() > 8192 && !folder.path().join("api.db-wal").exists() {
            break bytes;
        }
        tokio::task::yield_now().await;
    };
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(refused(&path).await, "FILE is not a database, or is damaged");
}
