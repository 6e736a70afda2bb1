use std::time::Duration;

use futures_util::SinkExt as _;
use kubeedge_cloud::hub::HubConfig;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    MIB, resident,
    support::{Edge, SOON, Site, config_map, create, header, pod},
};

/// A node that is sent large objects and never reads one.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_reads_is_given_up_and_costs_little() {
    let site = Site::new().await;
    let config = HubConfig::default().write_timeout(Duration::from_millis(500)).resend(Duration::from_millis(50), 5);
    let cloud = site.builder().hub(config).spawn().await.unwrap();
    site.make_node("edge-1").await;
    let large = "x".repeat(900_000);
    let names: Vec<String> = (0..20).map(|count| format!("large-{count}")).collect();
    for name in &names {
        create(&site.config_maps(), config_map(name, &large)).await;
    }
    let uses: Vec<&str> = names.iter().map(String::as_str).collect();
    create(&site.pods(), pod("web", "edge-1", &uses)).await;
    let mut polite = Edge::connect(&cloud, "edge-2").await;
    let before = resident();
    // It answers nothing, so it is sent one after another, each five times; it takes none from its socket.
    let sloth = Edge::connect(&cloud, "edge-1").await;
    let hub = cloud.hub().clone();
    let node = crate::support::node("edge-1");
    let ended = async {
        let mut feed = hub.follow();
        let session = loop {
            if let Some(Some(session)) = feed.next().await.remove(&node) {
                break session;
            }
        };
        hub.ended(&node, session).await;
    };
    let ask = async {
        for _ in 0..50 {
            let answer = polite.ask("query", "kube-node-lease/lease/edge-2", Value::Null).await;
            assert_eq!(answer["content"]["Err"]["ErrStatus"]["code"], 404);
        }
    };
    let both = async { tokio::join!(ended, ask) };
    timeout(SOON * 3, both).await.expect("the sloth is given up");
    let more = resident().saturating_sub(before) / MIB;
    assert!(more < 64, "{more} MiB for a node that does not read");
    drop(sloth);
    cloud.shutdown(SOON).await;
}

/// A node that reads everything and acknowledges nothing, while its objects change all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_acknowledges_nothing_costs_no_more_with_time() {
    let site = Site::new().await;
    let config = HubConfig::default().resend(Duration::from_millis(50), 3);
    let cloud = site.builder().hub(config).spawn().await.unwrap();
    site.make_node("edge-1").await;
    create(&site.config_maps(), config_map("settings", "0")).await;
    create(&site.pods(), pod("web", "edge-1", &["settings"])).await;
    let mut sloth = Edge::connect(&cloud, "edge-1").await;
    let settings = site.config_maps();
    let mut change = async |value: String| {
        let patch = kube::api::Patch::Merge(json!({ "data": { "key": value } }));
        settings.patch("settings", &kube::api::PatchParams::default(), &patch).await.unwrap();
        sloth.keepalive().await;
        while sloth.next_silent().await.unwrap()["route"]["resource"] != "default/configmap/settings" {}
    };
    let payload = "x".repeat(10_000);
    for count in 0..20 {
        change(format!("{count}{payload}")).await;
    }
    let before = resident();
    for count in 0..100 {
        change(format!("{count}{payload}")).await;
    }
    let more = resident().saturating_sub(before) / MIB;
    // The API keeps a history of its own, in memory here.
    assert!(more < 48, "{more} MiB");
    cloud.shutdown(SOON).await;
}

/// A node that asks and asks, and does not read the answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_fills_no_memory() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut flooder = Edge::connect(&cloud, "edge-1").await;
    let before = resident();
    let flood = async {
        let route = json!({ "source": "edged", "group": "meta", "operation": "query", "resource": "kube-node-lease/lease/edge-1" });
        let content = "x".repeat(16 * 1024);
        for _ in 0..20_000 {
            let message = json!({ "header": header(), "route": route, "content": content });
            if flooder.socket.send(Message::text(message.to_string())).await.is_err() {
                return;
            }
        }
    };
    // 320 MiB would come, if it were read.
    let _ = timeout(Duration::from_secs(5), flood).await;
    let more = resident().saturating_sub(before) / MIB;
    assert!(more < 96, "{more} MiB");
    cloud.shutdown(SOON).await;
}
