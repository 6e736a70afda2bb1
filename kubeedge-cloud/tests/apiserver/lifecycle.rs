//! Deletion in all its forms, owners, and namespaces.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use serde_json::{Value, json};

use crate::{api, eventually, pod};

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn map(name: &str, owner: Option<&ConfigMap>) -> ConfigMap {
    let mut map: ConfigMap = object(json!({"metadata": {"name": name}}));
    map.metadata.owner_references = owner.map(|owner| vec![owner.controller_owner_ref(&()).unwrap()]);
    map
}

#[tokio::test]
async fn a_pod_on_a_node_goes_when_the_node_says_so() {
    let api = api().await;
    let pods: Api<Pod> = Api::default_namespaced(api.client("default"));
    let post = PostParams::default();
    pods.create(&post, &object(pod("free"))).await.unwrap();
    pods.delete("free", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("free").await.unwrap().is_none());

    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = "edge-1".into();
    pods.create(&post, &object(bound)).await.unwrap();
    pods.delete("bound", &DeleteParams::default()).await.unwrap();
    let ending = pods.get("bound").await.unwrap();
    assert!(ending.metadata.deletion_timestamp.is_some());
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(30));
    let before = ending.resource_version();
    pods.delete("bound", &DeleteParams::default()).await.unwrap();
    assert_eq!(pods.get("bound").await.unwrap().resource_version(), before);
    // Its status can still be told while it ends.
    let status = json!({"status": {"phase": "Running"}});
    pods.patch_status("bound", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    pods.delete("bound", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("bound").await.unwrap().is_none());
}

#[tokio::test]
async fn finalizers_hold_an_object_and_preconditions_protect_it() {
    let api = api().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client("default"));
    let mut held = map("held", None);
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    let made = maps.create(&PostParams::default(), &held).await.unwrap();
    let stranger = kube::api::Preconditions { uid: Some("other".to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(stranger), ..DeleteParams::default() };
    assert!(maps.delete("held", &params).await.is_err());
    let kept = maps.delete("held", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(kept.metadata.deletion_timestamp.is_some());
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert!(maps.patch("held", &PatchParams::default(), &Patch::Merge(&more)).await.is_err());
    let release = json!({"metadata": {"finalizers": null}});
    let last = maps.patch("held", &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    assert_eq!(last.uid(), made.uid());
    assert!(maps.get_opt("held").await.unwrap().is_none());
}

#[tokio::test]
async fn dependents_go_with_their_owner_or_stay_as_asked() {
    let api = api().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client("default"));
    let post = PostParams::default();
    let gone = async |name: &str| maps.get_opt(name).await.unwrap().is_none();

    let owner = maps.create(&post, &map("owner", None)).await.unwrap();
    let child = maps.create(&post, &map("child", Some(&owner))).await.unwrap();
    maps.create(&post, &map("grandchild", Some(&child))).await.unwrap();
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    eventually("the grandchild goes", async || gone("child").await && gone("grandchild").await).await;

    let owner = maps.create(&post, &map("owner", None)).await.unwrap();
    maps.create(&post, &map("child", Some(&owner))).await.unwrap();
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    maps.delete("owner", &orphan).await.unwrap();
    assert!(maps.get("child").await.unwrap().owner_references().is_empty());
    maps.delete("child", &DeleteParams::default()).await.unwrap();

    let owner = maps.create(&post, &map("owner", None)).await.unwrap();
    let mut child = map("child", Some(&owner));
    child.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    maps.create(&post, &child).await.unwrap();
    maps.delete("owner", &DeleteParams::foreground()).await.unwrap();
    eventually("the child is being deleted", async || {
        maps.get("child").await.unwrap().metadata.deletion_timestamp.is_some()
    })
    .await;
    assert!(!gone("owner").await);
    let release = json!({"metadata": {"finalizers": null}});
    maps.patch("child", &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    eventually("the owner goes after the child", async || gone("owner").await).await;

    // Who comes with an owner that does not exist does not stay.
    maps.create(&post, &map("late", Some(&owner))).await.unwrap();
    eventually("the orphan goes", async || gone("late").await).await;
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let api = api().await;
    let namespaces: Api<Namespace> = Api::all(api.client("default"));
    let post = PostParams::default();
    namespaces.create(&post, &object(json!({"metadata": {"name": "site"}}))).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(api.client("default"), "site");
    accounts.get("default").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(api.client("default"), "site");
    for i in 0..250 {
        maps.create(&post, &map(&format!("m{i}"), None)).await.unwrap();
    }
    let mut held = map("held", None);
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    maps.create(&post, &held).await.unwrap();
    namespaces.delete("site", &DeleteParams::default()).await.unwrap();
    let ending = namespaces.get("site").await.unwrap();
    assert_eq!(ending.status.unwrap().phase.as_deref(), Some("Terminating"));
    let late = maps.create(&post, &map("late", None)).await;
    let Err(kube::Error::Api(status)) = late else { panic!("a namespace that ends takes nothing new") };
    assert_eq!((status.code, status.reason.as_str()), (403, "Forbidden"));
    eventually("all but one go", async || maps.list(&ListParams::default()).await.unwrap().items.len() == 1).await;
    assert!(namespaces.get_opt("site").await.unwrap().is_some());
    let release = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    eventually("the namespace goes", async || namespaces.get_opt("site").await.unwrap().is_none()).await;
    assert!(namespaces.delete("default", &DeleteParams::default()).await.is_err());
}

#[tokio::test]
async fn a_selection_can_be_deleted() {
    let api = api().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client("default"));
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red")] {
        let map = object(json!({"metadata": {"name": name, "labels": {"color": color}}}));
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let red = ListParams::default().labels("color=red");
    maps.delete_collection(&DeleteParams::default(), &red).await.unwrap();
    let left = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn events_expire_after_an_hour() {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };
    let time = Arc::new(AtomicI64::new(1_800_000_000));
    let clock = time.clone();
    let api = kubeedge_cloud::apiserver::EmbeddedApi::builder()
        .clock(move || jiff::Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap())
        .build()
        .await
        .unwrap();
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::default_namespaced(api.client("default"));
    let event = |name: &str| {
        object(json!({"metadata": {"name": name, "namespace": "default"}, "involvedObject": {"namespace": "default"}}))
    };
    events.create(&PostParams::default(), &event("old")).await.unwrap();
    time.fetch_add(3700, Ordering::Relaxed);
    events.create(&PostParams::default(), &event("new")).await.unwrap();
    eventually("the old one goes", async || events.get_opt("old").await.unwrap().is_none()).await;
    events.get("new").await.unwrap();
}
