use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::{
    MIB, resident,
    support::{Edge, SOON, Site, header},
};

/// Frames that are no messages; each of them ends the session of the node that sends it.
fn malformed() -> Vec<Message> {
    let deep = |bracket: &str| {
        Message::text(format!(r#"{{"header":{{"msg_id":"1","timestamp":0}},"content":{}"#, bracket.repeat(1_000_000)))
    };
    let header = |value: &str| Message::text(format!(r#"{{"header":{value},"route":{{}},"content":null}}"#));
    vec![
        Message::text(""),
        Message::text("null"),
        Message::text("[]"),
        Message::text("7"),
        Message::text(r#"{"header""#),
        deep("["),
        deep(r#"{"a":"#),
        header(r#"{"msg_id":1,"timestamp":0}"#),
        header(r#"{"msg_id":"1","timestamp":"0"}"#),
        header(r#"{"msg_id":"1","timestamp":1.7e12}"#),
        header(r#"{"msg_id":"1","timestamp":99999999999999999999}"#),
        header(r#"{"msg_id":"1","timestamp":0,"resourceversion":"-1"}"#),
        header(r#"{"msg_id":"1","timestamp":0,"resourceversion":"x"}"#),
        header(r#"{"msg_id":"1","timestamp":0,"sync":"yes"}"#),
        header("7"),
        Message::text(r#"{"header":{"msg_id":"1","timestamp":0},"route":[],"content":null}"#),
        Message::binary(vec![0xff, 0xfe, 0x00]),
        Message::binary(vec![0; 64]),
        // What two of ours may agree on, from a peer that has agreed on nothing.
        Message::binary(vec![1, 0xff, 0xff, 0xff, 0xff, 0]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_no_messages_end_one_session_and_nothing_else() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut polite = Edge::connect(&cloud, "edge-1").await;
    for frame in malformed() {
        let shown: String = frame.to_string().chars().take(60).collect();
        let mut hostile = Edge::connect(&cloud, "edge-2").await;
        hostile.socket.send(frame).await.unwrap();
        let ended = async { while hostile.next_silent().await.is_some() {} };
        tokio::time::timeout(SOON / 2, ended).await.unwrap_or_else(|_| panic!("the session outlives {shown}"));
        let answer = polite.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
        assert_eq!(answer["content"]["Err"]["ErrStatus"]["code"], 404, "after {shown}");
    }
    cloud.shutdown(SOON).await;
}

/// Well-formed messages with contents that no part expects.
#[tokio::test(flavor = "multi_thread")]
async fn contents_of_the_wrong_shape_are_survived_by_every_part() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let nested = (0..100).fold(json!(0), |inner, _| json!([inner]));
    let contents = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("{"),
        json!("\u{0}"),
        json!([]),
        json!([null]),
        json!({}),
        json!({ "metadata": 7, "spec": [], "status": "x" }),
        json!({ "metadata": { "name": [], "uid": {}, "resourceVersion": 7, "ownerReferences": [null] } }),
        json!({ "twin": { "t": { "actual": 7 } } }),
        json!({ "twin": { "": null }, "timestamp": "later" }),
        json!({ "device": { "state": [] } }),
        json!({ "event": null, "patchData": 7 }),
        nested,
    ];
    let routes = [
        ("edged", "meta", "insert", "null/node/edge-1"),
        ("edged", "meta", "update", "null/node/edge-1"),
        ("edged", "meta", "patch", "null/nodepatch/edge-1"),
        ("edged", "meta", "update", "default/nodestatus/edge-1"),
        ("edged", "meta", "insert", "kube-node-lease/lease/edge-1"),
        ("edged", "meta", "update", "kube-node-lease/lease/"),
        ("edged", "meta", "insert", "default/pod/web"),
        ("edged", "meta", "delete", "default/pod/web"),
        ("edged", "meta", "patch", "default/podpatch/web"),
        ("edged", "meta", "update", "default/podstatus"),
        ("edged", "meta", "update", "default/podstatus/web"),
        ("edged", "meta", "insert", "default/event/e"),
        ("edged", "meta", "patch", "default/event/e"),
        ("edged", "meta", "query", "default/configmap/../secret/x"),
        ("edged", "meta", "query", "default/serviceaccounttoken/default"),
        ("edged", "meta", "insert", "default/certificatesigningrequest/x"),
        ("metamanager", "meta", "query", "k8s/ca.crt"),
        ("metaserver", "dynamiccontroller", "null", "null"),
        ("metaserver", "dynamiccontroller", "null", "watchapp/sync"),
        ("twin", "resource", "update", "device/default/d/twin/edge_updated"),
        ("twin", "resource", "update", "device/default/d/state/update"),
        ("twin", "resource", "get", "membership/detail"),
        ("bus", "user", "upload", "a/b"),
        ("servicebus", "user", "upload", "http://127.0.0.1/"),
        ("websocket", "hub", "UpdateNodeActionStatus", "operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/edge-1"),
        ("edged", "meta", "query", "inventory"),
        ("", "", "", ""),
    ];
    for (source, group, operation, resource) in routes {
        for content in &contents {
            let route = json!({ "source": source, "group": group, "operation": operation, "resource": resource });
            edge.send(&json!({ "header": header(), "route": route, "content": content })).await;
        }
    }
    // It still answers, in the same session.
    edge.keepalive().await;
    let answer = edge.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    assert!(answer["content"].is_object(), "{answer}");
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_costs_no_more_than_the_limit() {
    let site = Site::new().await;
    let config = kubeedge_cloud::hub::HubConfig::default().message_limit(1024 * 1024);
    let cloud = site.builder().hub(config).spawn().await.unwrap();
    let mut hostile = Edge::connect(&cloud, "edge-1").await;
    let before = resident();
    // In fragments, so that no single frame is too long.
    let chunk = vec![b'x'; 64 * 1024];
    let mut sent = 0_u64;
    while sent < 64 * MIB {
        let code = if sent == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(chunk.clone(), OpCode::Data(code), false);
        if hostile.socket.send(Message::Frame(frame)).await.is_err() {
            break;
        }
        sent += chunk.len() as u64;
    }
    assert!(sent < 16 * MIB, "the session ended soon after the limit: {sent} bytes");
    assert!(resident() < before + 32 * MIB, "{} MiB more", (resident() - before) / MIB);
    cloud.shutdown(SOON).await;
}
