//! Pods and what they refer to, from the API to the node, through restarts of either.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Edge, SOON, Site, config_map, create, eventually, node, pod};

fn uid(object: &kube::api::DynamicObject) -> String {
    object.metadata.uid.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_reaches_its_node_with_what_it_refers_to_and_is_recorded() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    site.make_node("edge-1").await;
    let config = create(&site.config_maps(), config_map("app", "1")).await;
    create(&site.config_maps(), config_map("other", "1")).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.compared().await;

    let made = create(&site.pods(), pod("web", "edge-1", &["app"])).await;
    create(&site.pods(), pod("elsewhere", "edge-2", &["other"])).await;
    let sent = edge.object("insert", "default/pod/web").await;
    assert_eq!(sent["header"]["resourceversion"], json!(made.metadata.resource_version));
    assert_eq!((&sent["content"]["apiVersion"], &sent["content"]["kind"]), (&json!("v1"), &json!("Pod")));
    assert_eq!((&sent["route"]["source"], &sent["route"]["group"]), (&json!("edgecontroller"), &json!("resource")));
    edge.object("insert", "default/configmap/app").await;
    for object in [&made, &config] {
        let version =
            eventually("a record", async || site.recorded("edge-1", &uid(object)).await.filter(|v| v != "0")).await;
        assert_eq!(Some(version), object.metadata.resource_version);
    }
    let record = site.records().get(&format!("edge-1.{}", uid(&made))).await.unwrap();
    assert_eq!(record.data["spec"], json!({ "objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "web" }));

    // A status is nothing to tell the edge that it came from, a label is.
    let patch = json!({ "metadata": { "uid": uid(&made) }, "status": { "phase": "Running" } }).to_string();
    let answer = edge.ask("patch", "default/podpatch/web", json!(patch)).await;
    assert_eq!(
        (&answer["content"]["Err"], &answer["content"]["Object"]["status"]["phase"]),
        (&Value::Null, &json!("Running"))
    );
    assert!(answer["header"]["resourceversion"].is_string());
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    site.pods().patch("web", &PatchParams::default(), &label).await.unwrap();
    let update = edge.object("update", "default/pod/web").await;
    assert_eq!(update["content"]["status"]["phase"], "Running");
    assert_eq!(edge.objects().iter().filter(|seen| seen.ends_with("pod/web")).count(), 2, "{:?}", edge.objects());

    site.pods().delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    edge.object("delete", "default/pod/web").await;
    edge.object("delete", "default/configmap/app").await;
    eventually("no record", async || site.recorded("edge-1", &uid(&made)).await.is_none().then_some(())).await;
    assert!(!edge.objects().iter().any(|seen| seen.contains("elsewhere") || seen.contains("other")));
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_restarts_sends_only_what_has_changed() {
    let site = Site::new().await;
    site.make_node("edge-1").await;
    create(&site.config_maps(), config_map("app", "1")).await;
    let kept = create(&site.pods(), pod("kept", "edge-1", &["app"])).await;
    let gone = create(&site.pods(), pod("gone", "edge-1", &[])).await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.compared().await;
    let up_to_date = async |edge: &mut Edge| {
        // Objects come before the answer to this, or were acknowledged before.
        for wanted in ["default/pod/kept", "default/pod/gone", "default/configmap/app", "null/node/edge-1"] {
            edge.got(wanted).await;
        }
    };
    up_to_date(&mut edge).await;
    for object in [&kept, &gone] {
        eventually("a record", async || site.recorded("edge-1", &uid(object)).await.filter(|v| v != "0")).await;
    }
    // A status has no part in what the edge has.
    let patch = json!({ "status": { "phase": "Running" } }).to_string();
    edge.ask("patch", "default/podpatch/kept", json!(patch)).await;
    cloud.shutdown(SOON).await;

    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.compared().await;
    edge.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    assert_eq!(edge.objects(), [""; 0], "it has everything");
    drop(edge);
    eventually("the node is away", async || cloud.hub().connected().is_empty().then_some(())).await;

    // While the node is away.
    let change = Patch::Merge(json!({ "data": { "key": "2" } }));
    site.config_maps().patch("app", &PatchParams::default(), &change).await.unwrap();
    site.pods().delete("gone", &DeleteParams::default().grace_period(0)).await.unwrap();
    create(&site.pods(), pod("new", "edge-1", &[])).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let deleted = edge.object("delete", "default/pod/gone").await;
    let expected = json!({ "metadata": { "name": "gone", "namespace": "default", "uid": uid(&gone) } });
    assert_eq!(deleted["content"], expected, "only what is known of it");
    let changed = edge.object("update", "default/configmap/app").await;
    assert_eq!(changed["content"]["data"]["key"], "2");
    edge.until(|message| message["route"]["resource"] == "default/pod/new").await;
    assert_eq!(edge.objects().len(), 3, "{:?}", edge.objects());
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_recreated_under_its_name_is_another_one() {
    let site = Site::new().await;
    site.make_node("edge-1").await;
    let old = create(&site.pods(), pod("web", "edge-1", &[])).await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.until(|message| message["route"]["resource"] == "default/pod/web").await;
    eventually("a record", async || site.recorded("edge-1", &uid(&old)).await.filter(|v| v != "0")).await;
    drop(edge);
    eventually("the node is away", async || cloud.hub().connected().is_empty().then_some(())).await;
    site.pods().delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    let new = create(&site.pods(), pod("web", "edge-1", &[])).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let deleted = edge.object("delete", "default/pod/web").await;
    assert_eq!(deleted["content"]["metadata"]["uid"], json!(uid(&old)));
    let made = edge.object("update", "default/pod/web").await;
    assert_eq!(made["content"]["metadata"]["uid"], json!(uid(&new)));
    eventually("the old record is gone", async || site.recorded("edge-1", &uid(&old)).await.is_none().then_some(()))
        .await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_node_is_thrown_out_and_forgotten() {
    let site = Site::new().await;
    site.make_node("edge-1").await;
    let made = create(&site.pods(), pod("web", "edge-1", &[])).await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.until(|message| message["route"]["resource"] == "default/pod/web").await;
    eventually("a record", async || site.recorded("edge-1", &uid(&made)).await.filter(|v| v != "0")).await;
    site.nodes().delete("edge-1", &DeleteParams::default()).await.unwrap();
    while edge.next().await.is_some() {}
    eventually("no session", async || cloud.hub().session(&node("edge-1")).is_none().then_some(())).await;
    eventually("no record", async || site.recorded("edge-1", &uid(&made)).await.is_none().then_some(())).await;
    assert!(!edge.objects().contains(&"delete null/node/edge-1".into()));
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_has_lost_its_store_gets_everything_again() {
    let site = Site::new().await;
    site.make_node("edge-1").await;
    create(&site.config_maps(), config_map("app", "1")).await;
    let made = create(&site.pods(), pod("web", "edge-1", &["app"])).await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.got("default/pod/web").await;
    eventually("a record", async || site.recorded("edge-1", &uid(&made)).await.filter(|v| v != "0")).await;
    drop(edge);
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.compared().await;
    assert!(!edge.objects().iter().any(|seen| seen.ends_with("pod/web")), "it is said to have it");
    let answer = edge.ask("insert", "null/node/edge-1", json!({ "metadata": { "name": "edge-1" } })).await;
    assert_eq!(answer["content"]["Err"]["ErrStatus"]["reason"], "AlreadyExists");
    for resource in ["null/node/edge-1", "default/configmap/app", "default/pod/web"] {
        edge.object("update", resource).await;
    }
    cloud.shutdown(SOON).await;
}
