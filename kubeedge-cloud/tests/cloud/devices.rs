//! Devices down, and what nodes report of them up.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Edge, SOON, Site, create, eventually};

fn model(name: &str) -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": { "name": name },
        "spec": { "protocol": "modbus", "properties": [{ "name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly" }] },
    })
}

fn device(name: &str, model: &str, node: &str) -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": { "name": name, "labels": { "description": "Thermometer" } },
        "spec": {
            "deviceModelRef": { "name": model }, "nodeName": node, "protocol": { "protocolName": "modbus" },
            "properties": [{ "name": "temperature", "visitors": { "protocolName": "modbus" } }],
        },
    })
}

fn twin(property: &str, value: &str) -> Value {
    let twin = json!({ property: {
        "actual": { "value": value, "metadata": { "timestamp": 1_795_232_561_599_i64 } }, "optional": true,
        "metadata": { "type": "float" }, "actual_version": { "cloud": 0, "edge": 1 },
    } });
    json!({ "event_id": "e", "timestamp": 1, "twin": twin })
}

async fn report(edge: &mut Edge, device: &str, what: &str, content: Value) -> Value {
    let answer = edge.ask_as("twin", "resource", "update", &format!("device/{device}/{what}"), content).await;
    let route = json!({ "source": "devicecontroller", "group": "twin", "operation": "response", "resource": "twin" });
    assert_eq!(answer["route"], route);
    answer["content"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_goes_down_and_its_values_come_up() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    assert_eq!(edge.compared().await["content"]["devices"], json!([]));

    create(&site.models(), model("thermo")).await;
    let made = create(&site.devices(), device("d1", "thermo", "edge-1")).await;
    let added = edge.until(|message| message["route"]["resource"] == "membership").await;
    let expected = json!([{ "id": "default/d1", "name": "d1", "description": "Thermometer" }]);
    assert_eq!((&added["content"]["added_devices"], &added["content"]["removed_devices"]), (&expected, &Value::Null));
    for resource in ["default/device/d1", "default/devicemodel/thermo"] {
        let sent = edge.object("insert", resource).await;
        assert_eq!(sent["route"]["source"], "devicecontroller");
        assert_eq!(sent["content"]["apiVersion"], "devices.kubeedge.io/v1beta1");
    }
    let status = eventually("DeviceStatus", async || site.statuses().get_opt("d1").await.unwrap()).await;
    let owner = &status.metadata.owner_references.unwrap()[0];
    assert_eq!((Some(&owner.uid), owner.controller), (made.metadata.uid.as_ref(), Some(true)));

    // The first report is stored, and confirmed only then.
    assert_eq!(report(&mut edge, "default/d1", "twin/edge_updated", twin("temperature", "18.2")).await, "OK");
    let status = site.statuses().get("d1").await.unwrap().data["status"].clone();
    let reported = json!({ "value": "18.2", "metadata": { "timestamp": "1795232561599", "type": "float" } });
    assert_eq!(status["twins"][0]["reported"], reported);
    let state = json!({ "event_id": "e", "device": { "name": "d1", "state": "online", "lastOnlineTime": "2026-11-21T03:42:39Z" } });
    assert_eq!(report(&mut edge, "default/d1", "state/update", json!(state.to_string())).await, "OK");
    let status = site.statuses().get("d1").await.unwrap().data["status"].clone();
    assert_eq!((&status["state"], &status["twins"][0]["reported"]), (&json!("online"), &reported));
    assert_eq!(report(&mut edge, "default/d1", "twin/edge_updated", twin("humidity", "55")).await, "OK");
    assert_eq!(site.statuses().get("d1").await.unwrap().data["status"], status, "unknown properties do not count");

    // Labels and models count as changes.
    let label = Patch::Merge(json!({ "metadata": { "labels": { "floor": "1" } } }));
    site.devices().patch("d1", &PatchParams::default(), &label).await.unwrap();
    edge.object("update", "default/device/d1").await;
    let unit = Patch::Merge(json!({ "spec": { "protocol": "other" } }));
    site.models().patch("thermo", &PatchParams::default(), &unit).await.unwrap();
    edge.object("update", "default/devicemodel/thermo").await;

    site.devices().delete("d1", &DeleteParams::default()).await.unwrap();
    edge.object("delete", "default/device/d1").await;
    edge.object("delete", "default/devicemodel/thermo").await;
    edge.until(|message| message["content"]["removed_devices"].is_array()).await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_model_holds_back_nobody_and_strangers_are_refused() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    create(&site.devices(), device("orphan", "nowhere", "edge-1")).await;
    create(&site.models(), model("thermo")).await;
    create(&site.devices(), device("d1", "thermo", "edge-1")).await;
    create(&site.devices(), device("theirs", "thermo", "edge-2")).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.compared().await;
    for resource in ["default/device/orphan", "default/devicemodel/thermo", "default/device/d1"] {
        edge.got(resource).await;
    }
    let code = |content: Value| content["ErrStatus"]["code"].as_u64();
    let refused = report(&mut edge, "default/unknown", "twin/edge_updated", twin("temperature", "1")).await;
    assert_eq!(code(refused), Some(404));
    let refused = report(&mut edge, "default/theirs", "twin/edge_updated", twin("temperature", "1")).await;
    assert_eq!(code(refused), Some(403));
    let refused = report(&mut edge, "default/d1", "twin/edge_updated", json!("nonsense")).await;
    assert_eq!(code(refused), Some(400));

    // A Go edge asks for its devices when it connects, and again until it is confirmed.
    let ask = json!({ "event_type": "group_membership_event", "operation": "detail" }).to_string();
    let answer = edge.ask_as("twin", "resource", "get", "membership/detail", json!(ask)).await;
    assert_eq!(answer["content"], "OK");
    let list = edge.compared().await;
    assert!(list["header"]["parent_msg_id"].is_null(), "a list with a parent is taken for a confirmation");
    let ids: Vec<_> = list["content"]["devices"].as_array().unwrap().iter().map(|device| &device["id"]).collect();
    assert_eq!(ids, ["default/d1", "default/orphan"]);
    assert_eq!(list["content"]["devices"][0]["twin"], json!({}));
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_moves_to_another_node() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    create(&site.models(), model("thermo")).await;
    create(&site.devices(), device("d1", "thermo", "edge-1")).await;
    let (mut one, mut two) = (Edge::connect(&cloud, "edge-1").await, Edge::connect(&cloud, "edge-2").await);
    one.compared().await;
    two.compared().await;
    one.got("default/device/d1").await;
    let moved = Patch::Merge(json!({ "spec": { "nodeName": "edge-2" } }));
    site.devices().patch("d1", &PatchParams::default(), &moved).await.unwrap();
    one.object("delete", "default/device/d1").await;
    one.object("delete", "default/devicemodel/thermo").await;
    two.object("insert", "default/devicemodel/thermo").await;
    two.object("insert", "default/device/d1").await;
    let refused = report(&mut one, "default/d1", "twin/edge_updated", twin("temperature", "1")).await;
    assert_eq!(refused["ErrStatus"]["code"], 403);
    assert_eq!(report(&mut two, "default/d1", "twin/edge_updated", twin("temperature", "2")).await, "OK");
    cloud.shutdown(SOON).await;
}
