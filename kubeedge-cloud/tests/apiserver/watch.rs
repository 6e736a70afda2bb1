//! Watches, raw and through `kube`.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use kubeedge_cloud::apiserver::EmbeddedApi;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{SOON, api, pod, raw};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The events of a watch, each as its type and object.
async fn watch(api: &EmbeddedApi, path: &str) -> BoxStream<'static, (String, Value)> {
    let request = Request::get(path).body(Full::<bytes::Bytes>::default()).unwrap();
    let response = api.service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    Box::pin(response.into_body().into_data_stream().map(|frame| {
        let frame = frame.unwrap();
        assert!(frame.ends_with(b"\n"));
        let event: Value = serde_json::from_slice(&frame).unwrap();
        (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
    }))
}

async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> Option<T> {
    tokio::time::timeout(SOON, stream.next()).await.expect("no event")
}

/// The next event as type and name.
async fn seen(stream: &mut (impl Stream<Item = (String, Value)> + Unpin)) -> (String, String) {
    let (kind, object) = next(stream).await.expect("the watch ended");
    (kind, object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

fn map(name: &str, color: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"color": color}}})
}

async fn set(api: &EmbeddedApi, name: &str, color: &str) {
    let patch = json!({"metadata": {"labels": {"color": color}}}).to_string();
    let done = raw::call(api, "PATCH", &format!("{MAPS}/{name}"), "application/merge-patch+json", patch).await;
    assert_eq!(done.status, 200);
}

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn changes_come_in_order_and_each_once() {
    let api = api().await;
    raw::post(&api, MAPS, &map("a", "red")).await;
    let list = raw::get(&api, MAPS).await.body;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = watch(&api, &format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    raw::post(&api, MAPS, &map("b", "red")).await;
    set(&api, "a", "blue").await;
    set(&api, "a", "blue").await;
    raw::call(&api, "DELETE", &format!("{MAPS}/a"), "", "").await;
    for expected in [event("ADDED", "b"), event("MODIFIED", "a"), event("DELETED", "a")] {
        assert_eq!(seen(&mut events).await, expected);
    }
    // Without a version, what is there comes first.
    let mut events = watch(&api, &format!("{MAPS}?watch=1")).await;
    assert_eq!(seen(&mut events).await, event("ADDED", "b"));
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let api = api().await;
    raw::post(&api, MAPS, &map("a", "red")).await;
    let mut events = watch(&api, &format!("{MAPS}?watch=true&labelSelector=color%3Dred")).await;
    assert_eq!(seen(&mut events).await, event("ADDED", "a"));
    raw::post(&api, MAPS, &map("b", "blue")).await;
    set(&api, "a", "blue").await;
    let (kind, object) = next(&mut events).await.unwrap();
    assert_eq!((kind.as_str(), &object["metadata"]["labels"]["color"]), ("DELETED", &json!("red")));
    let now = raw::get(&api, &format!("{MAPS}/a")).await.body;
    assert_eq!(object["metadata"]["resourceVersion"], now["metadata"]["resourceVersion"]);
    set(&api, "b", "red").await;
    assert_eq!(seen(&mut events).await, event("ADDED", "b"));
    set(&api, "b", "green").await;
    assert_eq!(seen(&mut events).await, event("DELETED", "b"));
}

#[tokio::test]
async fn a_version_that_is_forgotten_or_unknown_is_gone() {
    let api = api().await;
    raw::post(&api, MAPS, &map("a", "0")).await;
    let list = raw::get(&api, MAPS).await.body;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut slow = watch(&api, &format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    // More bytes than the history holds.
    let large = "x".repeat(900_000);
    for i in 1..=20 {
        raw::post(&api, MAPS, &json!({"metadata": {"name": format!("large-{i}")}, "data": {"large": large}})).await;
    }
    // A watch that was not read meanwhile holds nothing back and has to list again.
    let (kind, object) = next(&mut slow).await.unwrap();
    assert_eq!((kind.as_str(), &object["code"], &object["reason"]), ("ERROR", &json!(410), &json!("Expired")));
    assert!(next(&mut slow).await.is_none());
    for version in [version.as_str(), "99999999"] {
        let mut events = watch(&api, &format!("{MAPS}?watch=true&resourceVersion={version}")).await;
        assert_eq!(next(&mut events).await.unwrap().0, "ERROR");
    }
    assert_eq!(
        raw::get(&api, &format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await.status,
        410
    );
}

#[tokio::test(start_paused = true)]
async fn bookmarks_and_timeouts_keep_their_time() {
    let api = api().await;
    let begin = tokio::time::Instant::now();
    let mut events = watch(&api, &format!("{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=100")).await;
    let (kind, object) = events.next().await.unwrap();
    assert_eq!((kind.as_str(), &object["kind"]), ("BOOKMARK", &json!("ConfigMap")));
    assert_eq!(begin.elapsed().as_secs(), 60);
    assert_eq!(events.next().await.unwrap().0, "BOOKMARK");
    assert!(events.next().await.is_none());
    assert_eq!(begin.elapsed().as_secs(), 100);
}

#[tokio::test]
async fn kube_watchers_see_everything_by_list_or_by_stream() {
    let api = api().await;
    let pods: Api<Pod> = Api::default_namespaced(api.client("default"));
    let make = |name: &str| serde_json::from_value::<Pod>(pod(name)).unwrap();
    pods.create(&PostParams::default(), &make("a")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = Box::pin(watcher(pods.clone(), config));
        let mut initial = Vec::new();
        loop {
            match tokio::time::timeout(SOON, events.try_next()).await.unwrap().unwrap().unwrap() {
                watcher::Event::Init => {}
                watcher::Event::InitApply(pod) => initial.extend(pod.metadata.name),
                watcher::Event::InitDone => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(initial, ["a"]);
        pods.create(&PostParams::default(), &make("b")).await.unwrap();
        let label = json!({"metadata": {"labels": {"x": "y"}}});
        pods.patch("b", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
        pods.delete("b", &DeleteParams::default()).await.unwrap();
        let mut kinds = Vec::new();
        for _ in 0..3 {
            match tokio::time::timeout(SOON, events.try_next()).await.unwrap().unwrap().unwrap() {
                watcher::Event::Apply(pod) => kinds.push(("apply", pod.metadata.name.unwrap())),
                watcher::Event::Delete(pod) => kinds.push(("delete", pod.metadata.name.unwrap())),
                other => panic!("unexpected {other:?}"),
            }
        }
        let b = || "b".to_owned();
        assert_eq!(kinds, [("apply", b()), ("apply", b()), ("delete", b())]);
    }
}

#[tokio::test]
async fn many_watch_one_resource() {
    let api = api().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client("default"));
    let mut watches = Vec::new();
    for _ in 0..500 {
        watches.push(watch(&api, &format!("{MAPS}?watch=true")).await);
    }
    maps.create(&PostParams::default(), &serde_json::from_value(map("a", "red")).unwrap()).await.unwrap();
    for events in &mut watches {
        assert_eq!(seen(events).await, event("ADDED", "a"));
    }
}

#[tokio::test]
async fn a_watch_ends_with_the_last_handle() {
    let api = api().await;
    let mut events = watch(&api, &format!("{MAPS}?watch=true")).await;
    drop(api);
    let end = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap();
    assert!(end.is_none());
}
