//! Connections: who gets in, who is thrown out, and who does not notice.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use kubeedge_cloud::hub::HubConfig;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Credentials, Edge, NoLink, SOON, Site, create, eventually, node, pod};

fn status(refused: Result<impl Sized, NoLink>) -> (u16, String) {
    match refused {
        Err(NoLink::Status(status, text)) => (status, text),
        Err(other) => panic!("not refused by HTTP: {other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_node_with_its_own_certificate_gets_in() {
    let (site, other) = (Site::new().await, Site::new().await);
    let (cloud, _other_cloud) = (site.cloud().await, other.cloud().await);
    let credentials = Credentials::of(&site.client, "edge-1").await;
    let usage = ("connectionuse", "msg");

    let refused = status(Edge::dial(&cloud, &credentials, &[usage, ("node_id", "edge-2")]).await);
    assert_eq!(refused, (403, r#"header Node_id "edge-2" is not the node edge-1 of the certificate"#.into()));
    assert_eq!(status(Edge::dial(&cloud, &credentials, &[("node_id", "edge-1")]).await).0, 400);
    assert_eq!(status(Edge::dial(&cloud, &credentials, &[usage]).await).0, 400);
    let foreign = [usage, ("node_id", "edge-1"), ("origin", "https://evil.example")];
    assert_eq!(status(Edge::dial(&cloud, &credentials, &foreign).await).0, 403);

    // Trusts the right cloud, but shows the certificate of another.
    let mut stranger = Credentials::of(&other.client, "edge-1").await;
    stranger.roots = credentials.roots.clone();
    let refused = Edge::dial(&cloud, &stranger, &[usage, ("node_id", "edge-1")]).await;
    assert!(matches!(refused, Err(NoLink::Tls)));

    assert!(cloud.hub().connected().is_empty());
    let _edge = Edge::connect_as(&cloud, &credentials, "edge-1").await;
    eventually("the node is connected", async || cloud.hub().session(&node("edge-1"))).await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_takes_over_and_the_limit_counts_nodes() {
    let site = Site::new().await;
    let cloud = site.builder().hub(HubConfig::default().node_limit(1)).spawn().await.unwrap();
    let mut first = Edge::connect(&cloud, "edge-1").await;
    let number = eventually("the first session", async || cloud.hub().session(&node("edge-1"))).await;

    let second_node = Credentials::of(&site.client, "edge-2").await;
    let headers = [("connectionuse", "msg"), ("node_id", "edge-2")];
    assert_eq!(status(Edge::dial(&cloud, &second_node, &headers).await).0, 503);

    let mut second = Edge::connect(&cloud, "edge-1").await;
    while first.next().await.is_some() {}
    drop(first);
    // The end of the first one has left no trace.
    let answer = second.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    assert_eq!(answer["content"]["Err"]["ErrStatus"]["reason"], "NotFound");
    let session = cloud.hub().session(&node("edge-1")).unwrap();
    assert!(session > number);

    second.socket.close(None).await.unwrap();
    eventually("room for another", async || cloud.hub().connected().is_empty().then_some(())).await;
    let _third = Edge::connect_as(&cloud, &second_node, "edge-2").await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_and_one_that_talks_nonsense_are_cut_off() {
    let site = Site::new().await;
    let config = HubConfig::default().keepalive(Duration::from_millis(300)).message_limit(64 * 1024);
    let cloud = site.builder().hub(config).spawn().await.unwrap();
    let mut silent = Edge::connect(&cloud, "edge-1").await;
    while silent.next().await.is_some() {}

    let mut noisy = Edge::connect(&cloud, "edge-2").await;
    noisy.send_text(r#"{"header":{"msg_id":"1","timestamp":1.5},"route":{}}"#).await;
    while noisy.next().await.is_some() {}

    let mut verbose = Edge::connect(&cloud, "edge-3").await;
    let route = json!({ "source": "edged", "group": "meta", "operation": "query", "resource": "a/pod/b" });
    let message = json!({ "header": crate::support::header(), "route": route, "content": "x".repeat(100_000) });
    // It may be cut off before all of it is written.
    let _ = verbose.socket.send(Message::text(message.to_string())).await;
    while verbose.next().await.is_some() {}
    eventually("all are gone", async || cloud.hub().connected().is_empty().then_some(())).await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_every_kind_are_understood() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let query = |id: &str| {
        let route = json!({ "source": "edged", "group": "meta", "operation": "query", "resource": "kube-node-lease/lease/edge-1" });
        json!({ "header": { "msg_id": id, "timestamp": 0 }, "route": route, "content": null }).to_string()
    };
    edge.socket.send(Message::binary(query("binary").into_bytes())).await.unwrap();
    edge.until(|message| message["header"]["parent_msg_id"] == "binary").await;
    // What follows the first value is ignored, as Go does.
    edge.send_text(&format!("{} trailing", query("more"))).await;
    edge.until(|message| message["header"]["parent_msg_id"] == "more").await;
    edge.socket.send(Message::Ping("are you there".into())).await.unwrap();
    let pong = timeout(SOON, async {
        loop {
            if let Some(Ok(Message::Pong(text))) = edge.socket.next().await {
                return text;
            }
        }
    });
    assert_eq!(&pong.await.unwrap()[..], b"are you there");
    // A stopping edgecore says this; it is no reason to end the session.
    edge.send(&json!({ "header": { "msg_id": "", "timestamp": 0 }, "route": {}, "content": null })).await;
    let answer = edge.ask_as("edged", "meta", "ping", "", Value::Null).await;
    assert_eq!((&answer["route"]["operation"], &answer["content"]), (&json!("response"), &json!("ack")));
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_comes_again_unchanged() {
    let site = Site::new().await;
    let config = HubConfig::default().resend(Duration::from_millis(100), 3);
    let cloud = site.builder().hub(config).spawn().await.unwrap();
    site.make_node("edge-1").await;
    create(&site.pods(), pod("web", "edge-1", &[])).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let mut copies = vec![];
    while copies.len() < 5 {
        let message = edge.next_silent().await.unwrap();
        if message["route"]["resource"] == "default/pod/web" {
            copies.push(message);
        } else if message["route"]["group"] == "resource" {
            edge.acknowledge(&message).await;
        }
    }
    assert!(copies[..3].iter().all(|copy| *copy == copies[0]), "sent three times as it was");
    assert_ne!(copies[3]["header"]["msg_id"], copies[0]["header"]["msg_id"], "then as a new message");
    assert_eq!(copies[3]["content"], copies[0]["content"]);
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_refused_does_not_hold_up_the_others() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    site.make_node("edge-1").await;
    for name in ["a", "b", "c", "d"] {
        create(&site.pods(), pod(name, "edge-1", &[])).await;
    }
    // One at a time, as a Go edge takes them; the resends of the session come 5 s apart.
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let (mut refused, mut taken) = (0, std::collections::BTreeSet::new());
    let begin = std::time::Instant::now();
    while refused < 2 || taken.len() < 3 {
        let message = edge.next_silent().await.unwrap();
        let resource = message["route"]["resource"].as_str().unwrap().to_owned();
        if resource == "default/pod/a" {
            let mut route = message["route"].clone();
            route["operation"] = "error".into();
            let mut header = crate::support::header();
            header["parent_msg_id"] = message["header"]["msg_id"].clone();
            edge.send(&json!({ "header": header, "route": route, "content": "disk full" })).await;
            refused += 1;
        } else if message["route"]["group"] == "resource" {
            edge.acknowledge(&message).await;
            if resource.starts_with("default/pod/") {
                taken.insert(resource);
            }
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_node_does_not_delay_another() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut flooder = Edge::connect(&cloud, "edge-1").await;
    // It never reads an answer. At some point the cloud does not read it either.
    let flood = tokio::spawn(async move {
        loop {
            let route = json!({ "source": "edged", "group": "meta", "operation": "query", "resource": "kube-node-lease/lease/edge-1" });
            let message = json!({ "header": crate::support::header(), "route": route, "content": "x".repeat(4096) });
            if flooder.socket.send(Message::text(message.to_string())).await.is_err() {
                return;
            }
        }
    });
    let mut polite = Edge::connect(&cloud, "edge-2").await;
    for _ in 0..50 {
        let answer = polite.ask("query", "kube-node-lease/lease/edge-2", Value::Null).await;
        assert_eq!(answer["content"]["Err"]["ErrStatus"]["code"], 404);
    }
    flood.abort();
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cloud_says_farewell() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    eventually("the node is connected", async || cloud.hub().session(&node("edge-1"))).await;
    let started = std::time::Instant::now();
    let closed = tokio::spawn(async move {
        loop {
            match edge.socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                Some(Ok(_)) => {}
                other => panic!("no farewell: {other:?}"),
            }
        }
    });
    cloud.shutdown(Duration::from_secs(3)).await;
    assert_eq!(closed.await.unwrap(), 1012);
    assert!(started.elapsed() < Duration::from_secs(3));
}
