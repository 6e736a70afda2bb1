use kube::api::{DeleteParams, ListParams};
use kubeedge_core::{
    meta::{MetaHandle, MetaWrite, Precondition, Selector},
    names::NodeName,
    resource::{Resource, ResourceType},
    testing::MemoryStore,
    transport::{Extensions, TransportHandle},
};
use kubeedge_edge::hub::{DialSettings, WebSocket};

use crate::world::{Edge, World, eventually};

/// Connects an edge with `store`, and gives it back when the node has been compared, with the types of objects that came.
async fn connect(world: &World, store: MetaHandle, extensions: Extensions) -> (MetaHandle, Vec<String>) {
    let identity = world.identity("edge-1").await;
    let transport = TransportHandle::of(WebSocket::new(identity).settings(DialSettings::new().extensions(extensions)));
    let edge = Edge::start_with("edge-1", world.cloud.websocket_addr().to_string(), transport, store);
    // The list of devices is sent when the node has been compared, and behind nothing that it needs.
    let compared = || edge.seen.lock().unwrap().iter().any(|seen| seen.resource == Resource::MembershipDetail);
    eventually(async || compared()).await;
    eventually(async || edge.count(&ResourceType::Pod).await == 1).await;
    // The first connection changes the node: it names the cloud that has it.
    eventually(async || edge.node_is_annotated().await).await;
    let objects = edge.objects();
    let store = edge.stop().await;
    let node = NodeName::new("edge-1").unwrap();
    eventually(async || world.cloud.hub().session(&node).is_none()).await;
    (store, objects)
}

async fn recorded(world: &World) -> usize {
    let objects = world.api("reliablesyncs.kubeedge.io/v1alpha1", "ObjectSync", "objectsyncs", true);
    let cluster = world.api("reliablesyncs.kubeedge.io/v1alpha1", "ClusterObjectSync", "clusterobjectsyncs", false);
    let all = ListParams::default();
    objects.list(&all).await.unwrap().items.len() + cluster.list(&all).await.unwrap().items.len()
}

async fn first_connection(world: &World) -> MetaHandle {
    world.populate("edge-1").await;
    let (store, _) = connect(world, MetaHandle::of(MemoryStore::new()), Extensions::all()).await;
    eventually(async || recorded(world).await == 3).await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_up_to_date_gets_nothing_again() {
    let world = World::new().await;
    let store = first_connection(&world).await;
    for extensions in [Extensions::all(), Extensions::none()] {
        let (_, objects) = connect(&world, store.clone(), extensions).await;
        assert_eq!(objects, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_lost_its_store_gets_everything_again() {
    let world = World::new().await;
    first_connection(&world).await;
    let (_, mut objects) = connect(&world, MetaHandle::of(MemoryStore::new()), Extensions::all()).await;
    objects.sort();
    objects.dedup();
    assert!(objects.contains(&"pod".to_owned()) && objects.contains(&"configmap".to_owned()), "{objects:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_lost_are_written_again_and_nothing_is_sent() {
    let world = World::new().await;
    let store = first_connection(&world).await;
    let records = world.api("reliablesyncs.kubeedge.io/v1alpha1", "ObjectSync", "objectsyncs", true);
    records.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    eventually(async || recorded(&world).await == 1).await;
    let identity = world.identity("edge-1").await;
    let transport = TransportHandle::of(WebSocket::new(identity));
    let edge = Edge::start_with("edge-1", world.cloud.websocket_addr().to_string(), transport, store);
    eventually(async || recorded(&world).await == 3).await;
    assert_eq!(edge.objects(), Vec::<String>::new());
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edge_should_not_have_is_taken_from_it() {
    let world = World::new().await;
    let store = first_connection(&world).await;
    let selector = || Selector::all((&ResourceType::ConfigMap).into());
    let mut stale = store.list(selector()).await.unwrap().remove(0);
    (stale.key.name, stale.uid) = ("stale".into(), Some("u-stale".parse().unwrap()));
    store.commit(vec![MetaWrite::Put(stale, Precondition::Always)]).await.unwrap();

    let identity = world.identity("edge-1").await;
    let transport = TransportHandle::of(WebSocket::new(identity));
    let edge = Edge::start_with("edge-1", world.cloud.websocket_addr().to_string(), transport, store);
    eventually(async || edge.count(&ResourceType::ConfigMap).await == 1).await;
    let left = edge.store.list(selector()).await.unwrap();
    assert_eq!(&*left[0].key.name, "settings");
    edge.stop().await;
}
