//! Devices down, and what nodes report of them up.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
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

/// What is there now of an edge, with what is needed to say that it is whole.
async fn got_whole(edge: &mut Edge, resources: &[&str]) {
    for resource in resources {
        let sent = edge.until(|message| message["route"]["resource"] == *resource).await;
        assert_eq!(sent["route"]["source"], "devicecontroller", "{sent}");
        let kind = if resource.contains("devicemodel") { "DeviceModel" } else { "Device" };
        let (version, found) = (&sent["content"]["apiVersion"], &sent["content"]["kind"]);
        assert_eq!((version, found), (&json!("devices.kubeedge.io/v1beta1"), &json!(kind)), "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_the_node_was_away_reaches_it_as_a_change_of_the_device_controller() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    create(&site.models(), model("thermo")).await;
    for name in ["edited", "labelled", "gone", "same"] {
        create(&site.devices(), device(name, "thermo", "edge-1")).await;
    }
    let credentials = crate::support::Credentials::of(&site.client, "edge-1").await;
    let mut edge = Edge::connect_as(&cloud, &credentials, "edge-1").await;
    for name in ["edited", "labelled", "gone", "same"] {
        edge.got(&format!("default/device/{name}")).await;
    }
    for object in [
        site.devices().list(&ListParams::default()).await.unwrap().items,
        site.models().list(&ListParams::default()).await.unwrap().items,
    ]
    .concat()
    {
        let (uid, version) = (object.metadata.uid.unwrap(), object.metadata.resource_version);
        eventually("a record", async || (site.recorded("edge-1", &uid).await == version).then_some(())).await;
    }
    drop(edge);
    let node = crate::support::node("edge-1");
    eventually("the end of the session", async || cloud.hub().session(&node).is_none().then_some(())).await;

    let patch = async |name: &str, patch: Value| {
        site.devices().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    let desired =
        json!([{ "name": "temperature", "desired": { "value": "30" }, "visitors": { "protocolName": "modbus" } }]);
    patch("edited", json!({ "spec": { "properties": desired } })).await;
    patch("labelled", json!({ "metadata": { "labels": { "floor": "1" } } })).await;
    let unit = Patch::Merge(json!({ "spec": { "protocolConfigData": { "timeout": 1 } } }));
    site.models().patch("thermo", &PatchParams::default(), &unit).await.unwrap();
    site.devices().delete("gone", &DeleteParams::default()).await.unwrap();
    create(&site.devices(), device("new", "thermo", "edge-1")).await;

    let mut edge = Edge::connect_as(&cloud, &credentials, "edge-1").await;
    got_whole(
        &mut edge,
        &["default/devicemodel/thermo", "default/device/edited", "default/device/labelled", "default/device/new"],
    )
    .await;
    edge.object("delete", "default/device/gone").await;
    let members = edge.compared().await;
    let ids: Vec<_> = members["content"]["devices"].as_array().unwrap().iter().map(|device| &device["id"]).collect();
    assert_eq!(ids, ["default/edited", "default/labelled", "default/new", "default/same"]);
    assert!(!edge.objects().iter().any(|object| object.ends_with("/same")), "{:?}", edge.objects());
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_stays_as_long_as_a_device_of_the_node_needs_it_and_comes_when_it_is_made() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let mut other = Edge::connect(&cloud, "edge-2").await;
    edge.compared().await;
    other.compared().await;
    // The devices come first; nobody waits for the model.
    for name in ["d1", "d2"] {
        create(&site.devices(), device(name, "thermo", "edge-1")).await;
        edge.object("insert", &format!("default/device/{name}")).await;
    }
    let mut bare = device("bare", "thermo", "edge-1");
    bare["spec"].as_object_mut().unwrap().remove("deviceModelRef");
    create(&site.devices(), bare).await;
    edge.object("insert", "default/device/bare").await;
    create(&site.models(), model("thermo")).await;
    edge.object("insert", "default/devicemodel/thermo").await;

    let to = |node: &str| Patch::Merge(json!({ "spec": { "nodeName": node } }));
    site.devices().patch("d1", &PatchParams::default(), &to("edge-2")).await.unwrap();
    edge.object("delete", "default/device/d1").await;
    let removed = edge.until(|message| message["content"]["removed_devices"].is_array()).await;
    assert_eq!(removed["content"]["removed_devices"][0]["id"], "default/d1");
    got_whole(&mut other, &["default/devicemodel/thermo", "default/device/d1"]).await;
    let added = other.until(|message| message["content"]["added_devices"].is_array()).await;
    assert_eq!(added["content"]["added_devices"][0]["id"], "default/d1");
    // One more message, after which it is known that the model was left alone.
    create(&site.devices(), device("d3", "thermo", "edge-1")).await;
    edge.object("insert", "default/device/d3").await;
    assert!(!edge.objects().contains(&"delete default/devicemodel/thermo".to_owned()));
    for name in ["d2", "d3"] {
        site.devices().delete(name, &DeleteParams::default()).await.unwrap();
    }
    edge.object("delete", "default/devicemodel/thermo").await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_made_again_has_nothing_of_the_former() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    create(&site.models(), model("thermo")).await;
    create(&site.devices(), device("d1", "thermo", "edge-1")).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.got("default/device/d1").await;
    eventually("DeviceStatus", async || site.statuses().get_opt("d1").await.unwrap()).await;
    assert_eq!(report(&mut edge, "default/d1", "twin/edge_updated", twin("temperature", "18.2")).await, "OK");
    site.devices().delete("d1", &DeleteParams::default()).await.unwrap();
    let made = create(&site.devices(), device("d1", "thermo", "edge-1")).await;
    let is_new = |message: &Value| message["content"]["metadata"]["uid"] == *made.metadata.uid.as_ref().unwrap();
    edge.until(|message| message["route"]["operation"] != "delete" && is_new(message)).await;
    let status = eventually("the DeviceStatus of the new one", async || {
        let status = site.statuses().get_opt("d1").await.unwrap()?;
        let owner = status.metadata.owner_references.as_ref()?.first()?.uid.clone();
        (Some(owner) == made.metadata.uid).then_some(status)
    })
    .await;
    assert_eq!(status.data["status"]["twins"], Value::Null);
    assert_eq!(report(&mut edge, "default/d1", "twin/edge_updated", twin("temperature", "7")).await, "OK");
    let status = site.statuses().get("d1").await.unwrap();
    assert_eq!(status.data["status"]["twins"][0]["reported"]["value"], "7");
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_outlive_their_node() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    site.make_node("edge-1").await;
    create(&site.models(), model("thermo")).await;
    create(&site.devices(), device("d1", "thermo", "edge-1")).await;
    let credentials = crate::support::Credentials::of(&site.client, "edge-1").await;
    let mut edge = Edge::connect_as(&cloud, &credentials, "edge-1").await;
    edge.got("default/device/d1").await;
    site.nodes().delete("edge-1", &DeleteParams::default()).await.unwrap();
    while edge.next().await.is_some() {}
    site.make_node("edge-1").await;
    let mut edge = Edge::connect_as(&cloud, &credentials, "edge-1").await;
    assert_eq!(edge.compared().await["content"]["devices"][0]["id"], "default/d1");
    // What it had it need not get again, if it comes back before its records are cleared away; what changes it gets.
    let label = json!({ "metadata": { "labels": { "description": "moved" } } });
    site.devices().patch("d1", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    edge.until(|message| message["content"]["metadata"]["labels"]["description"] == "moved").await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_any_printable_content_and_type_arrive_as_they_are() {
    let site = Site::new().await;
    let cloud = site.builder().status_interval(std::time::Duration::ZERO).spawn().await.unwrap();
    create(&site.devices(), device("d1", "thermo", "edge-1")).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.got("default/device/d1").await;
    let long = "50 % {\"°C\"}\n".chars().cycle().take(60_000).collect::<String>();
    for (word, value) in [("string", &*long), ("double", "-0.25"), ("bytes", "AAE="), ("boolean", "true"), ("", " ")] {
        let mut content = twin("temperature", value);
        content["twin"]["temperature"]["metadata"]["type"] = word.into();
        // Content is an object, or a string that holds one.
        let content = if word == "double" { json!(content.to_string()) } else { content };
        assert_eq!(report(&mut edge, "default/d1", "twin/edge_updated", content).await, "OK");
        let status = site.statuses().get("d1").await.unwrap();
        let reported = &status.data["status"]["twins"][0]["reported"];
        assert!(reported["value"] == value, "a value of type {word:?} has changed");
        assert_eq!(reported["metadata"]["type"].as_str().unwrap_or_default(), word);
    }
    cloud.shutdown(SOON).await;
}

async fn told(site: &Site, name: &str, part: &str) -> Value {
    let events = site.api("v1", "Event", "events", Some("default"));
    eventually(&format!("an Event about {name} that says {part:?}"), async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        let mut about = all.items.into_iter().filter(|event| event.data["involvedObject"]["name"] == name);
        let found = about.next()?;
        assert!(about.next().is_none(), "one Event per object");
        found.data["message"].as_str()?.contains(part).then_some(found.data)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_device_is_told_once_in_an_event_about_it() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    create(&site.devices(), device("bad", "thermo", "edge-1")).await;
    create(&site.devices(), device("unbound", "nowhere", "")).await;
    let event = told(&site, "bad", "there is no such DeviceModel").await;
    assert_eq!(
        (&event["reason"], &event["type"], &event["count"]),
        (&json!("InvalidDevice"), &json!("Warning"), &json!(1))
    );
    assert_eq!(
        event["message"],
        r#"spec.deviceModelRef.name is "thermo": there is no such DeviceModel in the namespace"#
    );
    told(&site, "unbound", "there is no such DeviceModel").await;

    // The model comes, and does not have what the device needs.
    let mut narrow = model("thermo");
    narrow["spec"]["properties"] = json!([{ "name": "x", "type": "INT" }, { "name": "x", "type": "INT" }]);
    create(&site.models(), narrow).await;
    let event = told(&site, "bad", "the model has no such property").await;
    assert_eq!(event["count"], 2);
    assert_eq!(told(&site, "thermo", "property names must be unique").await["reason"], "InvalidDeviceModel");

    // Another start judges all objects again, and has nothing new to say.
    cloud.shutdown(SOON).await;
    let cloud = site.cloud().await;
    create(&site.devices(), device("later", "nowhere", "edge-1")).await;
    told(&site, "later", "there is no such DeviceModel").await;
    assert_eq!(told(&site, "bad", "the model has no such property").await["count"], 2);
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_answers_over_https_with_the_certificate_of_the_hub() {
    use http_body_util::{BodyExt as _, Full};
    let site = Site::new().await;
    let cloud = site.builder().admission((std::net::Ipv4Addr::LOCALHOST, 0).into()).spawn().await.unwrap();
    create(&site.models(), model("thermo")).await;
    let address = cloud.admission_addr().unwrap();
    let credentials = crate::support::Credentials::of(&site.client, "edge-1").await;
    let ask = async |path: &str, media_type: &str, body: String| {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let tls = tokio_rustls::TlsConnector::from(credentials.tls());
        let stream = tls.connect(address.ip().into(), stream).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let _connection = tokio::spawn(connection);
        let request = http::Request::post(path).header("host", "webhook").header("content-type", media_type);
        let response = sender.send_request(request.body(Full::new(bytes::Bytes::from(body))).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    };
    let review = |object: Value| {
        let request = json!({ "uid": "u", "operation": "CREATE", "namespace": "default", "object": object });
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request }).to_string()
    };
    let mut wrong = device("d", "thermo", "edge-1");
    wrong["spec"]["properties"][0]["desired"] = json!({ "value": "1" });
    let (status, body) = ask("/devices", "application/json", review(wrong)).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(true)));
    let warning = r#"spec.properties[0].desired.value is "1": property "temperature" is ReadOnly"#;
    assert_eq!(answer["response"]["warnings"], json!([warning]));
    let mut twice = model("m");
    twice["spec"]["properties"] = json!([{ "name": "a" }, { "name": "a" }]);
    let (_, body) = ask("/devicemodels", "application/json", review(twice)).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["response"]["status"]["message"], "property names must be unique.");
    assert_eq!(ask("/devices", "text/plain", String::new()).await.0, 415);
    assert_eq!(ask("/devices", "application/json", "nonsense".into()).await.0, 400);
    assert_eq!(ask("/devices", "application/json", "x".repeat(kubeedge_cloud::admission::MAX_REVIEW + 1)).await.0, 413);
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_older_version_go_down_as_those_of_the_newer() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let older = |kind: &str, plural: &str| site.api("devices.kubeedge.io/v1alpha2", kind, plural, Some("default"));
    let model = json!({
        "apiVersion": "devices.kubeedge.io/v1alpha2", "kind": "DeviceModel", "metadata": { "name": "thermo" },
        "spec": { "properties": [{ "name": "temperature", "type": { "float": { "accessMode": "ReadOnly", "maximum": 9.5 } } }] },
    });
    let expression = json!({ "key": "", "operator": "In", "values": ["edge-1"] });
    let device = json!({
        "apiVersion": "devices.kubeedge.io/v1alpha2", "kind": "Device", "metadata": { "name": "d1" },
        "spec": {
            "deviceModelRef": { "name": "thermo" },
            "nodeSelector": { "nodeSelectorTerms": [{ "matchExpressions": [expression] }] },
            "protocol": { "modbus": { "slaveID": 1 }, "common": { "tcp": { "ip": "10.0.0.1", "port": 502 } } },
            "propertyVisitors": [{ "propertyName": "temperature", "modbus": { "register": "HoldingRegister", "offset": 2 } }],
            "data": { "dataTopic": "t" },
        },
    });
    create(&older("DeviceModel", "devicemodels"), model).await;
    create(&older("Device", "devices"), device).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.compared().await;
    edge.got("default/devicemodel/thermo").await;
    edge.got("default/device/d1").await;
    let sent = |resource: &str| {
        let found = edge.seen.iter().find(|message| message["route"]["resource"] == resource).unwrap();
        assert_eq!(found["content"]["apiVersion"], "devices.kubeedge.io/v1beta1");
        found["content"]["spec"].clone()
    };
    let property = json!({ "name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly", "maximum": "9.5" });
    assert_eq!(sent("default/devicemodel/thermo")["properties"], json!([property]));
    let spec = sent("default/device/d1");
    let config = json!({ "slaveID": 1, "ip": "10.0.0.1", "port": 502 });
    assert_eq!((&spec["nodeName"], &spec["protocol"]["configData"]), (&json!("edge-1"), &config));
    assert_eq!(report(&mut edge, "default/d1", "twin/edge_updated", twin("temperature", "7")).await, "OK");
    let event = told(&site, "d1", "it is of v1alpha2 and has to be written anew as v1beta1").await;
    assert!(event["message"].as_str().unwrap().contains("spec.data.dataTopic"), "{event}");
    cloud.shutdown(SOON).await;
}
