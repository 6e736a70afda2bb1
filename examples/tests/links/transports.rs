use std::net::UdpSocket;

use kubeedge_core::{
    names::NodeName,
    resource::ResourceType,
    service::Causes,
    transport::{CloudEndpoint, Extensions, LinkError, Transport as _, TransportHandle},
};
use kubeedge_edge::hub::{DialSettings, Quic, Unix, WebSocket};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::world::{Edge, World, eventually, soon};

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// The extensions of the session, once there is one.
async fn agreed(world: &World, name: &str) -> Extensions {
    let hub = world.cloud.hub();
    eventually(async || hub.extensions(&node(name)).is_some()).await;
    hub.extensions(&node(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_over_each_transport_and_are_recorded() {
    let world = World::new().await;
    world.populate("edge-1").await;
    let identity = world.identity("edge-1").await;
    let path = world.path().join("hub.sock");
    let (door, listener) = (world.cloud.door().clone(), UnixListener::bind(&path).unwrap());
    let (stop, token) = (CancellationToken::new(), CancellationToken::new());
    let serving = tokio::spawn({
        let stop = stop.clone();
        async move { door.unix(listener, stop).await }
    });
    drop(token);

    let plain = WebSocket::new(identity.clone()).settings(DialSettings::new().extensions(Extensions::none()));
    let transports = [
        (world.cloud.websocket_addr().to_string(), TransportHandle::of(plain), Extensions::none()),
        (
            world.cloud.websocket_addr().to_string(),
            TransportHandle::of(WebSocket::new(identity.clone())),
            Extensions::all(),
        ),
        (world.cloud.quic_addr().unwrap().to_string(), TransportHandle::of(Quic::new(identity)), Extensions::all()),
        ("unused".to_owned(), TransportHandle::of(Unix::new(&path)), Extensions::all()),
    ];
    for (server, transport, extensions) in transports {
        // The store is new each time: whoever can tell gets everything, and the others a Go edge's lot.
        let edge = Edge::start("edge-1", &server, transport);
        assert_eq!(agreed(&world, "edge-1").await, extensions, "{server}");
        edge.populated().await;
        let pod = edge.store.list(kubeedge_core::meta::Selector::all((&ResourceType::Pod).into())).await.unwrap();
        let record = format!("edge-1.{}", pod[0].uid.as_ref().unwrap());
        let records = world.api("reliablesyncs.kubeedge.io/v1alpha1", "ObjectSync", "objectsyncs", true);
        eventually(async || records.get_opt(&record).await.unwrap().is_some()).await;
        edge.stop().await;
        eventually(async || world.cloud.hub().session(&node("edge-1")).is_none()).await;
    }
    stop.cancel();
    soon(serving).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_asks_for_the_same_proof_as_the_websocket() {
    let (world, other) = (World::new().await, World::new().await);
    let server = world.cloud.quic_addr().unwrap().to_string();
    let identity = world.identity("edge-1").await;

    let as_another = CloudEndpoint::new(&server, node("edge-2"));
    let Err(refused) = soon(Quic::new(identity).dial(as_another)).await else { panic!("let in") };
    let expected = r#"header Node_id "edge-2" is not the node edge-1 of the certificate"#;
    assert!(matches!(&refused, LinkError::Refused { reason, .. } if reason == expected), "{}", Causes(&refused));

    // The certificate of another cloud: neither side believes the other.
    let stranger = Quic::new(other.identity("edge-1").await);
    let Err(untrusted) = soon(stranger.dial(CloudEndpoint::new(&server, node("edge-1")))).await else {
        panic!("let in")
    };
    assert!(matches!(untrusted, LinkError::Untrusted { .. }), "{}", Causes(&untrusted));
    assert!(world.cloud.hub().connected().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_cloud_on_the_other_end_of_quic_is_named_in_the_error() {
    let world = World::new().await;
    // It drops what it cannot read, as the Go program does with packets of the IETF.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = CloudEndpoint::new(silent.local_addr().unwrap().to_string(), node("edge-1"));
    let quic = Quic::new(world.identity("edge-1").await)
        .settings(DialSettings::new().timeout(std::time::Duration::from_millis(200)));
    let Err(error) = soon(quic.dial(endpoint)).await else { panic!("connected") };
    assert!(Causes(&error).to_string().contains("use the WebSocket (modules.edgeHub.websocket)"), "{}", Causes(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cloud_tells_so_over_each_transport() {
    let world = World::with(|hub| hub.node_limit(1)).await;
    let identity = world.identity("edge-1").await;
    let edge =
        Edge::start("edge-1", world.cloud.websocket_addr().to_string(), TransportHandle::of(WebSocket::new(identity)));
    agreed(&world, "edge-1").await;
    let other = world.identity("edge-2").await;
    let dials = [
        soon(
            WebSocket::new(other.clone())
                .dial(CloudEndpoint::new(world.cloud.websocket_addr().to_string(), node("edge-2"))),
        )
        .await,
        soon(Quic::new(other).dial(CloudEndpoint::new(world.cloud.quic_addr().unwrap().to_string(), node("edge-2"))))
            .await,
    ];
    for dialed in dials {
        let Err(LinkError::Refused { reason, .. }) = dialed else { panic!("not refused") };
        assert!(reason.ends_with("the limit of connected nodes is reached"), "{reason}");
    }
    edge.stop().await;
}
