//! The Kubernetes API away, at the start and later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kubeedge_cloud::apiserver::EmbeddedApi;
use serde_json::{Value, json};
use tower::{ServiceExt as _, service_fn};

use crate::support::{Edge, SOON, Site, builder, create, eventually, pod};

/// A client whose connection can be cut.
fn fickle(api: &EmbeddedApi, away: &Arc<AtomicBool>) -> kube::Client {
    let (service, away) = (api.service(), away.clone());
    let service = service_fn(move |request: http::Request<kube::client::Body>| {
        let (service, away) = (service.clone(), away.clone());
        async move {
            if away.load(Ordering::SeqCst) {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
            }
            service.oneshot(request).await.map_err(|never| match never {})
        }
    });
    kube::Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cloud_waits_for_the_api_and_outlives_it() {
    let api = EmbeddedApi::builder().in_memory().build().await.unwrap();
    let site = Site { client: api.client("default") };
    let away = Arc::new(AtomicBool::new(true));
    let starting = tokio::spawn(builder(fickle(&api, &away)).spawn());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!starting.is_finished());
    away.store(false, Ordering::SeqCst);
    let cloud = tokio::time::timeout(SOON, starting).await.unwrap().unwrap().unwrap();

    site.make_node("edge-1").await;
    let credentials = crate::support::Credentials::of(&site.client, "edge-1").await;
    let mut edge = Edge::connect_as(&cloud, &credentials, "edge-1").await;
    edge.compared().await;
    let lease = json!({ "metadata": { "name": "edge-1", "namespace": "kube-node-lease" }, "spec": { "holderIdentity": "edge-1" } });
    let made = edge.ask("insert", "kube-node-lease/lease/edge-1", lease).await["content"]["Object"].clone();

    // What upstream sends here a Go edge takes for success; it goes on with an empty lease for ever.
    away.store(true, Ordering::SeqCst);
    let answer = edge.ask("update", "kube-node-lease/lease/edge-1", made.clone()).await;
    assert_eq!(answer["content"]["Object"], Value::Null);
    let status = &answer["content"]["Err"]["ErrStatus"];
    assert_eq!(
        (&status["status"], &status["reason"], &status["code"]),
        (&json!("Failure"), &json!("ServiceUnavailable"), &json!(503))
    );

    let made_pod = create(&site.pods(), pod("web", "edge-1", &[])).await;
    away.store(false, Ordering::SeqCst);
    let answer = edge.ask("update", "kube-node-lease/lease/edge-1", made).await;
    assert_eq!(answer["content"]["Err"], Value::Null);
    // A watch that was open may have gone on.
    edge.got("default/pod/web").await;
    let uid = made_pod.metadata.uid.unwrap();
    eventually("a record", async || site.recorded("edge-1", &uid).await.filter(|version| version != "0")).await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_written_when_the_api_is_back() {
    let api = EmbeddedApi::builder().in_memory().build().await.unwrap();
    let site = Site { client: api.client("default") };
    let away = Arc::new(AtomicBool::new(false));
    let cloud = builder(fickle(&api, &away)).spawn().await.unwrap();
    site.make_node("edge-1").await;
    let credentials = crate::support::Credentials::of(&site.client, "edge-1").await;
    let mut edge = Edge::connect_as(&cloud, &credentials, "edge-1").await;
    edge.compared().await;
    let made = create(&site.pods(), pod("web", "edge-1", &[])).await;
    let sent = loop {
        let message = edge.next_silent().await.unwrap();
        if message["route"]["resource"] == "default/pod/web" {
            break message;
        }
        if message["route"]["group"] == "resource" {
            edge.acknowledge(&message).await;
        }
    };
    away.store(true, Ordering::SeqCst);
    edge.acknowledge(&sent).await;
    // The session does not wait for the record.
    edge.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    let uid = made.metadata.uid.unwrap();
    assert_eq!(site.recorded("edge-1", &uid).await, None);
    away.store(false, Ordering::SeqCst);
    eventually("a record", async || site.recorded("edge-1", &uid).await.filter(|version| version != "0")).await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_confirmed_only_when_it_is_written() {
    let api = EmbeddedApi::builder().in_memory().build().await.unwrap();
    let site = Site { client: api.client("default") };
    let away = Arc::new(AtomicBool::new(false));
    let cloud = builder(fickle(&api, &away)).spawn().await.unwrap();
    let device = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": { "name": "d1" },
        "spec": { "deviceModelRef": { "name": "m" }, "nodeName": "edge-1", "properties": [{ "name": "level" }] },
    });
    create(&site.devices(), device).await;
    let credentials = crate::support::Credentials::of(&site.client, "edge-1").await;
    let mut edge = Edge::connect_as(&cloud, &credentials, "edge-1").await;
    edge.got("default/device/d1").await;
    eventually("DeviceStatus", async || site.statuses().get_opt("d1").await.unwrap()).await;

    away.store(true, Ordering::SeqCst);
    let twin = json!({ "event_id": "e", "twin": { "level": { "actual": { "value": "7" } } } });
    let route = json!({ "source": "twin", "group": "resource", "operation": "update", "resource": "device/default/d1/twin/edge_updated" });
    let header = crate::support::header();
    edge.send(&json!({ "header": header, "route": route, "content": twin })).await;
    // To a Go edge any answer would be a confirmation. The answer to what follows shows that there was none.
    edge.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    let is_answer = |message: &Value| message["header"]["parent_msg_id"] == header["msg_id"];
    assert!(!edge.seen.iter().any(is_answer));
    // It has not been forgotten.
    away.store(false, Ordering::SeqCst);
    assert_eq!(edge.until(is_answer).await["content"], "OK");
    let status = site.statuses().get("d1").await.unwrap();
    assert_eq!(status.data["status"]["twins"][0]["reported"]["value"], "7");
    cloud.shutdown(SOON).await;
}
