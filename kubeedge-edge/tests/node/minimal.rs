use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    message::Message,
    meta::{Collection, MetaHandle, MetaKey},
    names::{PropertyName, UnixMillis},
    outbox,
    resource::{Resource, ResourceType},
    testing::{MemoryStore, twin_suite},
    transport::{TransportHandle, memory::MemoryTransport},
    twin::{PropertyPatch, TwinPatch},
    uplink::LinkState,
    words::{Group, Operation, Source},
};
use kubeedge_edge::{
    edged::EdgedConfig,
    meta::SqliteStore,
    node::{EdgeNode, SpawnError},
};
use tempfile::TempDir;

use crate::cloud::{Cloud, deleted, device, model, node, object, within};

fn patch(name: &str, value: &str) -> TwinPatch {
    let property = PropertyPatch { value: value.into(), value_type: None };
    TwinPatch::from([(PropertyName::new(name).unwrap(), Some(property))])
}

#[tokio::test]
async fn a_node_of_hub_store_and_twins_works() {
    let memory = MemoryStore::new();
    let (builder, acceptor) = node();
    let node = builder.meta_store(MetaHandle::of(memory.clone())).spawn().await.unwrap();
    let mut cloud = Cloud::accept(&acceptor).await;
    within(node.link_state().wait_for(|state| *state == LinkState::Connected { session: 1 })).await.unwrap();
    cloud.apply(object(ResourceType::ConfigMap, "web", 1, serde_json::json!({"data": {}}))).await;
    cloud.apply(model(2)).await;
    cloud.apply(device(3, "edge-1", "40")).await;
    // The spec became the desired value, and the cloud heard of it.
    cloud.twin_shows("default/boiler-1", "setpoint", "expected", "40").await;
    let id = "default/boiler-1".parse().unwrap();
    let delta = node.twins().report(id, patch("setpoint", "39")).await.unwrap();
    assert_eq!(delta.values().collect::<Vec<_>>(), ["40"]);
    cloud.twin_shows("default/boiler-1", "setpoint", "actual", "39").await;
    within(node.outbox().emptied()).await;
    let key = MetaKey::new(Collection::from(&ResourceType::ConfigMap), "default", "web");
    assert!(node.store().get(key).await.unwrap().is_some());
    node.shutdown(Duration::from_secs(5)).await.unwrap();
    assert!(cloud.next().await.is_none(), "the link is closed");
}

#[tokio::test]
async fn twins_of_a_node_pass_their_suite() {
    let (builder, acceptor) = node();
    let node = builder.meta_store(MetaHandle::of(MemoryStore::new())).spawn().await.unwrap();
    let mut cloud = Cloud::accept(&acceptor).await;
    cloud.apply(model(1)).await;
    cloud.apply(device(2, "edge-1", "")).await;
    let id: kubeedge_core::names::DeviceId = "default/boiler-1".parse().unwrap();
    within(async {
        while node.twins().get(id.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    twin_suite(node.twins().clone(), id).await;
}

#[tokio::test]
async fn a_restart_without_cloud_has_everything_and_tells_it_later() {
    let folder = TempDir::new().unwrap();
    let id: kubeedge_core::names::DeviceId = "default/boiler-1".parse().unwrap();
    let open = || SqliteStore::open(folder.path().join("edge.db")).unwrap();
    let store = open();
    let (builder, acceptor) = node();
    let first = builder.meta_store(MetaHandle::of(store.clone())).spawn().await.unwrap();
    let mut cloud = Cloud::accept(&acceptor).await;
    cloud.apply(model(1)).await;
    cloud.apply(device(2, "edge-1", "40")).await;
    cloud.twin_shows("default/boiler-1", "setpoint", "expected", "40").await;
    drop((cloud, acceptor));
    first.twins().report(id.clone(), patch("setpoint", "38")).await.unwrap();
    first.twins().desire(id.clone(), patch("label", "cellar")).await.unwrap();
    first.shutdown(Duration::from_secs(5)).await.unwrap();
    store.close().await;

    let store = open();
    let (builder, acceptor) = node();
    let second = builder.meta_store(MetaHandle::of(store.clone())).spawn().await.unwrap();
    let twin = second.twins().get(id).await.unwrap();
    let property = |name: &str| &twin.properties[&PropertyName::new(name).unwrap()];
    assert_eq!(property("setpoint").reported.as_ref().unwrap().value, "38");
    assert_eq!(property("label").desired.as_ref().unwrap().value, "cellar");
    let mut cloud = Cloud::accept(&acceptor).await;
    cloud.twin_shows("default/boiler-1", "setpoint", "actual", "38").await;
    second.shutdown(Duration::from_secs(5)).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn devices_come_and_go_with_their_objects() {
    let (builder, acceptor) = node();
    let node = builder.meta_store(MetaHandle::of(MemoryStore::new())).spawn().await.unwrap();
    let mut cloud = Cloud::accept(&acceptor).await;
    // A device before its model, as upstream often sends them.
    cloud.apply(device(1, "edge-1", "40")).await;
    cloud.apply(model(2)).await;
    cloud.twin_shows("default/boiler-1", "setpoint", "expected", "40").await;
    cloud.apply(device(3, "edge-1", "45")).await;
    cloud.twin_shows("default/boiler-1", "setpoint", "expected", "45").await;
    let gone = |twins: kubeedge_core::twin::TwinHandle| async move {
        let id: kubeedge_core::names::DeviceId = "default/boiler-1".parse().unwrap();
        within(async {
            while twins.get(id.clone()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    cloud.apply(device(4, "edge-2", "45")).await;
    gone(node.twins().clone()).await;
    cloud.apply(device(5, "edge-1", "50")).await;
    cloud.twin_shows("default/boiler-1", "setpoint", "expected", "50").await;
    cloud.apply(deleted(device(5, "edge-1", "50"))).await;
    gone(node.twins().clone()).await;
}

#[tokio::test]
async fn a_node_says_what_it_lacks() {
    let spawn =
        |builder: kubeedge_edge::node::EdgeNodeBuilder| async { builder.spawn().await.unwrap_err().to_string() };
    assert_eq!(spawn(EdgeNode::builder("edge-1")).await, "an edge node needs an endpoint");
    assert_eq!(spawn(EdgeNode::builder("edge-1").endpoint("a:1")).await, "an edge node needs a transport");
    let (builder, _acceptor) = node();
    assert_eq!(spawn(builder).await, "an edge node needs a meta store");
    assert!(matches!(EdgeNode::builder("Edge_1").spawn().await, Err(SpawnError::Name(_))));
    let folder = TempDir::new().unwrap();
    let clock: kubeedge_core::names::SharedClock = Arc::new(kubeedge_core::names::SystemClock);
    let runtime = kubeedge_edge::edged::ProcessRuntime::open(folder.path().join("run"), clock).await.unwrap();
    let pods = EdgedConfig::new("edge-2".parse().unwrap(), folder.path(), folder.path());
    let (builder, _acceptor) = node();
    let builder = builder.meta_store(MetaHandle::of(MemoryStore::new())).pods(pods, Arc::new(runtime));
    assert_eq!(spawn(builder).await, "pods are set up for node edge-2, not for edge-1");
}

#[tokio::test]
async fn a_node_whose_store_is_closed_says_that_it_stopped_and_a_dropped_one_is_gone() {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(folder.path().join("edge.db")).unwrap();
    let (builder, acceptor) = node();
    let running = builder.meta_store(MetaHandle::of(store.clone())).spawn().await.unwrap();
    let mut cloud = Cloud::accept(&acceptor).await;
    store.close().await;
    let stopped = within(running.stopped()).await;
    assert!(["outbox", "devices"].contains(&stopped.part), "{stopped}");
    drop(running);
    assert!(cloud.next().await.is_none(), "a dropped node leaves no link behind");
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_does_not_listen_costs_only_the_link() {
    let (transport, acceptor) = MemoryTransport::new(1);
    let unread = tokio::spawn(async move {
        let _link = acceptor.accept().await;
        std::future::pending::<()>().await;
    });
    let node = EdgeNode::builder("edge-1")
        .endpoint("cloud:10000")
        .transport(TransportHandle::of(transport))
        .meta_store(MetaHandle::of(MemoryStore::new()))
        .spawn()
        .await
        .unwrap();
    within(node.link_state().wait_for(|state| state.is_connected())).await.unwrap();
    // More than the link holds, so that it cannot be closed in order.
    let message = Message::new(UnixMillis(0), Source::Twin, Group::Resource, Operation::Update, Resource::Membership);
    for subject in ["a", "b", "c"] {
        node.store().commit(vec![outbox::leave(&outbox::Subject::new(subject).unwrap(), &message)]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await; // paused time: everything that can run has run
    let unfinished = node.shutdown(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(unfinished.parts, ["hub"], "twins and devices had their own time");
    unread.abort();
}
