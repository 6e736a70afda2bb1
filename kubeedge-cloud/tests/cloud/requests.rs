//! What a node may ask for, and what it may not.

use serde_json::{Value, json};

use crate::support::{Edge, SOON, Site, config_map, create, pod};

fn reason(answer: &Value) -> &str {
    let content = &answer["content"];
    let status = if content["Err"].is_object() { &content["Err"]["ErrStatus"] } else { &content["ErrStatus"] };
    status["reason"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_touches_only_what_is_its_own() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    for name in ["edge-1", "edge-2"] {
        site.make_node(name).await;
    }
    for name in ["mine", "theirs"] {
        create(&site.config_maps(), config_map(name, "secret")).await;
    }
    create(&site.pods(), pod("my-pod", "edge-1", &["mine"])).await;
    create(&site.pods(), pod("their-pod", "edge-2", &["theirs"])).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.until(|message| message["route"]["resource"] == "default/pod/my-pod").await;

    let patch = json!({ "status": { "phase": "Running" } }).to_string();
    let lease = json!({ "metadata": { "name": "edge-2" }, "spec": { "holderIdentity": "edge-1" } });
    let options = json!({ "gracePeriodSeconds": 0 });
    for (operation, resource, content) in [
        ("insert", "null/node/edge-3", json!({ "metadata": { "name": "edge-3" } })),
        // Of what is not the node's it does not learn whether it is there.
        ("patch", "default/podpatch/absent", json!(patch)),
        ("delete", "default/pod/absent", options.clone()),
        ("query", "null/persistentvolume/absent", Value::Null),
        ("query", "default/volumeattachment/absent", Value::Null),
        ("query", "default/certificatesigningrequest/absent", Value::Null),
        ("query", "null/node/edge-2", Value::Null),
        ("update", "null/node/edge-2", json!({ "metadata": { "labels": { "a": "b" } } })),
        ("patch", "null/nodepatch/edge-2", json!(patch)),
        ("insert", "kube-node-lease/lease/edge-2", lease.clone()),
        ("update", "kube-node-lease/lease/edge-2", lease.clone()),
        ("update", "default/lease/edge-1", lease),
        ("patch", "default/podpatch/their-pod", json!(patch)),
        ("delete", "default/pod/their-pod", options),
        ("insert", "default/pod/forged", pod("forged", "edge-1", &[])),
        ("query", "default/configmap/theirs", Value::Null),
        ("query", "default/secret/any", Value::Null),
        ("query", "default/persistentvolumeclaim/any", Value::Null),
        ("query", "kube-system/serviceaccounttoken/admin", json!({ "spec": {} })),
        (
            "query",
            "default/serviceaccounttoken/default",
            json!({ "spec": { "boundObjectRef": { "kind": "Pod", "name": "their-pod" } } }),
        ),
    ] {
        let answer = edge.ask(operation, resource, content).await;
        assert_eq!(reason(&answer), "Forbidden", "{operation} {resource}: {answer}");
        assert_eq!(answer["route"]["resource"], resource);
    }
    let untouched = site.pods().get("their-pod").await.unwrap();
    assert_ne!(untouched.data["status"]["phase"], "Running");
    assert!(site.nodes().get_opt("edge-3").await.unwrap().is_none());

    let answer = edge.ask("query", "default/configmap/mine", Value::Null).await;
    assert_eq!(
        (&answer["content"]["kind"], &answer["content"]["data"]["key"]),
        (&json!("ConfigMap"), &json!("secret"))
    );
    assert!(answer["header"]["resourceversion"].is_string());
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_answered_with_a_status() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    site.make_node("edge-1").await;
    create(&site.pods(), pod("web", "edge-1", &["missing"])).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.until(|message| message["route"]["resource"] == "default/pod/web").await;

    // Upstream keeps silent, and a Go edge waits for a minute, again and again.
    let answer = edge.ask("update", "kube-node-lease/lease/", json!({})).await;
    assert_eq!(reason(&answer), "BadRequest");
    let answer = edge.ask("query", "default/configmap/missing", Value::Null).await;
    assert_eq!((reason(&answer), answer["content"]["ErrStatus"]["code"].as_u64()), ("NotFound", Some(404)));
    // Told of a pod that is gone, not of whether there is another one of that name.
    create(&site.pods(), pod("theirs", "edge-2", &[])).await;
    let patch = json!(json!({ "metadata": { "uid": "gone" }, "status": {} }).to_string());
    for name in ["gone", "theirs"] {
        let answer = edge.ask("patch", &format!("default/podpatch/{name}"), patch.clone()).await;
        assert_eq!(answer["content"]["Err"]["ErrStatus"]["message"], format!("pods \"{name}\" not found"));
        assert_eq!(reason(&answer), "NotFound");
    }
    let answer = edge.ask("patch", "default/podpatch/web", json!("no patch")).await;
    assert_eq!(reason(&answer), "BadRequest");
    // For the edge a pod that is gone is deleted, and one that is another one by now.
    let options = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": "another-uid" } });
    for name in ["gone", "web", "theirs"] {
        let answer = edge.ask("delete", &format!("default/pod/{name}"), options.clone()).await;
        assert_eq!(answer["content"], "OK", "{name}");
    }
    let theirs = site.pods().get("theirs").await.unwrap().metadata.uid.unwrap();
    let options = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": theirs } });
    let answer = edge.ask("delete", "default/pod/theirs", options).await;
    assert_eq!(reason(&answer), "Forbidden");
    assert!(site.pods().get_opt("web").await.unwrap().is_some());
    let uid = site.pods().get("web").await.unwrap().metadata.uid.unwrap();
    let answer = edge
        .ask("delete", "default/pod/web", json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": uid } }))
        .await;
    assert_eq!(answer["content"], "OK");
    edge.object("delete", "default/pod/web").await;
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_registers_renews_its_lease_and_reports_events() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.compared().await;
    let labels = json!({ "kubernetes.io/hostname": "edge-1", "node-role.kubernetes.io/edge": "", "zone": "a" });
    let node = json!({ "metadata": { "name": "other", "creationTimestamp": null, "labels": labels }, "spec": {}, "status": {} });
    let answer = edge.ask("insert", "null/node/edge-1", node.clone()).await;
    let made = &answer["content"]["Object"];
    assert_eq!((&answer["content"]["Err"], &made["metadata"]["name"]), (&Value::Null, &json!("edge-1")));
    assert_eq!(made["metadata"]["labels"], labels);
    assert_eq!(made["metadata"]["annotations"]["cloudcore"], "127.0.0.1");
    edge.until(|message| {
        message["route"]["resource"] == "null/node/edge-1" && message["route"]["operation"] == "update"
    })
    .await;
    // It may have lost its store: then it needs its node again.
    let answer = edge.ask("insert", "null/node/edge-1", node).await;
    assert_eq!(reason(&answer), "AlreadyExists");
    edge.until(|message| {
        message["route"]["resource"] == "null/node/edge-1" && message["route"]["operation"] == "update"
    })
    .await;
    let metadata = json!({ "labels": { "zone": "b", "kubernetes.io/hostname": null }, "annotations": null });
    let answer = edge
        .ask("update", "null/node/edge-1", json!({ "metadata": metadata, "spec": { "unschedulable": true } }))
        .await;
    assert_eq!(answer["content"], "OK");
    let node = site.nodes().get("edge-1").await.unwrap();
    assert_eq!(node.metadata.labels.unwrap()["zone"], "b");
    assert_eq!(node.data["spec"]["unschedulable"], Value::Null);

    let lease = json!({ "metadata": { "name": "edge-1", "namespace": "kube-node-lease", "creationTimestamp": null },
        "spec": { "holderIdentity": "edge-1", "leaseDurationSeconds": 40, "renewTime": "2026-08-06T07:00:04.000000Z" } });
    let answer = edge.ask("insert", "kube-node-lease/lease/edge-1", lease).await;
    let mut lease = answer["content"]["Object"].clone();
    lease["spec"]["renewTime"] = "2026-08-06T07:00:14.000000Z".into();
    let answer = edge.ask("update", "kube-node-lease/lease/edge-1", lease.clone()).await;
    assert_eq!(answer["content"]["Object"]["spec"]["renewTime"], "2026-08-06T07:00:14.000000Z");
    let answer = edge.ask("update", "kube-node-lease/lease/edge-1", lease).await;
    assert_eq!(reason(&answer), "Conflict");

    let event = json!({ "metadata": { "name": "e1", "namespace": "default" }, "source": { "host": "edge-1" },
        "involvedObject": { "kind": "Node", "name": "edge-1" }, "reason": "Started", "count": 1 });
    let mut forged = event.clone();
    forged["metadata"]["name"] = "e2".into();
    forged["source"]["host"] = "edge-2".into();
    for (name, event) in [("e2", forged), ("e1", event)] {
        let route = json!({ "source": "edged", "group": "meta", "operation": "insert", "resource": format!("default/event/{name}") });
        edge.send(&json!({ "header": crate::support::header(), "route": route, "content": event })).await;
    }
    let events = site.api("v1", "Event", "events", Some("default"));
    let written = crate::support::eventually("the event", async || events.get_opt("e1").await.unwrap()).await;
    assert_eq!(written.data["reason"], "Started");
    assert!(events.get_opt("e2").await.unwrap().is_none());
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_of_a_pod_is_one_of_its_status() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    site.make_node("edge-1").await;
    let made = create(&site.pods(), pod("web", "edge-1", &[])).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.got("default/pod/web").await;
    let labels = json!({ "app": "another" });
    let patch = json!({
        "metadata": { "uid": made.metadata.uid, "labels": labels, "finalizers": ["x/y"] },
        "spec": { "nodeName": "edge-2" },
        "status": { "phase": "Running" },
    });
    let answer = edge.ask("patch", "default/podpatch/web", json!(patch.to_string())).await;
    assert_eq!(answer["content"]["Err"], Value::Null);
    let pod = site.pods().get("web").await.unwrap();
    assert_eq!((&pod.data["status"]["phase"], &pod.data["spec"]["nodeName"]), (&json!("Running"), &json!("edge-1")));
    assert_eq!((pod.metadata.labels, pod.metadata.finalizers), (None, None));

    let other = json!({ "metadata": { "uid": "another-uid" }, "status": { "phase": "Failed" } });
    let answer = edge.ask("patch", "default/podpatch/web", json!(other.to_string())).await;
    assert_eq!(reason(&answer), "Conflict");

    // A deletion that is about a pod of before is done as far as the edge is concerned, and this one stays.
    let options = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": "another-uid" } });
    let answer = edge.ask("delete", "default/pod/web", options).await;
    assert_eq!(answer["content"], json!("OK"));
    assert!(site.pods().get_opt("web").await.unwrap().is_some());
    // One that does not say which pod it is about is about the one that is bound to the node.
    let answer = edge.ask("delete", "default/pod/web", json!({ "gracePeriodSeconds": 0 })).await;
    assert_eq!(answer["content"], json!("OK"));
    assert!(site.pods().get_opt("web").await.unwrap().is_none());
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_make_its_own_mirror_pods_and_ask_for_its_own_certificate() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    site.make_node("edge-1").await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let mirror = |node: &str| {
        let mut mirror = pod("static", node, &[]);
        mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "hash" });
        mirror
    };
    let answer = edge.ask("insert", "default/pod/static", mirror("edge-2")).await;
    assert_eq!(reason(&answer), "Forbidden");
    // It would be sent whatever its pods refer to.
    create(&site.config_maps(), config_map("theirs", "secret")).await;
    let mut curious = mirror("edge-1");
    curious["spec"]["volumes"] = json!([{ "name": "v", "configMap": { "name": "theirs" } }]);
    let mut account = mirror("edge-1");
    account["spec"]["serviceAccountName"] = "default".into();
    for pod in [curious, account] {
        let answer = edge.ask("insert", "default/pod/static", pod).await;
        assert_eq!(reason(&answer), "Forbidden");
    }
    assert!(site.pods().get_opt("static").await.unwrap().is_none());
    let answer = edge.ask("insert", "default/pod/static", mirror("edge-1")).await;
    assert_eq!(answer["content"]["Object"]["spec"]["serviceAccountName"], Value::Null);
    assert_eq!(
        (&answer["content"]["Err"], &answer["content"]["Object"]["metadata"]["name"]),
        (&Value::Null, &json!("static"))
    );

    let request = |node: &str, signer: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{node}"));
        let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
        json!({ "metadata": { "name": "csr-1" }, "spec": {
            "request": request, "signerName": signer, "usages": ["digital signature", "server auth"],
        } })
    };
    let serving = "kubernetes.io/kubelet-serving";
    for body in [request("edge-2", serving), request("edge-1", "kubernetes.io/kube-apiserver-client")] {
        let answer = edge.ask("insert", "default/certificatesigningrequest/csr-1", body).await;
        assert_eq!(reason(&answer), "Forbidden");
    }
    let answer = edge.ask("insert", "default/certificatesigningrequest/csr-1", request("edge-1", serving)).await;
    assert_eq!(
        (&answer["content"]["Err"], &answer["content"]["Object"]["metadata"]["name"]),
        (&Value::Null, &json!("csr-1"))
    );
    let answer = edge.ask("query", "default/certificatesigningrequest/csr-1", Value::Null).await;
    assert_eq!(answer["content"]["spec"]["signerName"], serving);
    let mut other = Edge::connect(&cloud, "edge-2").await;
    let answer = other.ask("query", "default/certificatesigningrequest/csr-1", Value::Null).await;
    assert_eq!(reason(&answer), "Forbidden");
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_none_harms_nobody() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    site.make_node("edge-1").await;
    let made = create(&site.pods(), pod("web", "edge-1", &[])).await;
    let uid = made.metadata.uid.unwrap();
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.got("default/pod/web").await;
    let started = json!({ "phase": "Running", "startTime": "2026-11-21T08:00:00Z" });
    let status = |status: Value| json!({ "UID": uid, "Name": "web", "Status": status });
    let answer = edge.ask("update", "default/podstatus/web", status(started.clone())).await;
    assert_eq!(answer["content"], "OK");
    for odd in [json!("Running"), json!(["Running"]), json!(7), Value::Null] {
        let answer = edge.ask("update", "default/podstatus/web", status(odd.clone())).await;
        assert_eq!(reason(&answer), "BadRequest", "{odd}");
    }
    let pod = site.pods().get("web").await.unwrap();
    assert_eq!(pod.data["status"]["startTime"], started["startTime"]);
    assert_eq!(pod.data["status"]["phase"], "Running");
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_write_what_node_restriction_keeps_from_it() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let tier = "node-restriction.kubernetes.io/tier";
    let control = "node-role.kubernetes.io/control-plane";
    let node = |labels: Value| json!({ "metadata": { "labels": labels } });
    for label in [tier, control, "kubernetes.io/other"] {
        let answer = edge.ask("insert", "null/node/edge-1", node(json!({ label: "" }))).await;
        assert_eq!(reason(&answer), "Forbidden", "{label}");
        assert_eq!(
            answer["content"]["Err"]["ErrStatus"]["message"],
            format!("null/node/edge-1 is forbidden to node edge-1: a node may not set label {label}")
        );
    }
    let owned = json!({ "metadata": { "ownerReferences": [{ "kind": "Pod", "name": "x", "uid": "u" }] } });
    assert_eq!(reason(&edge.ask("insert", "null/node/edge-1", owned).await), "Forbidden");
    assert!(site.nodes().get_opt("edge-1").await.unwrap().is_none());

    let labels = json!({ "kubernetes.io/hostname": "edge-1", "node-role.kubernetes.io/edge": "", "zone": "a" });
    let answer = edge.ask("insert", "null/node/edge-1", node(labels.clone())).await;
    assert_eq!(answer["content"]["Err"], Value::Null);
    // The administrator's labels come back as they are.
    let patch = json!({ "metadata": { "labels": { tier: "gold" } } });
    let merge = kube::api::Patch::Merge(&patch);
    site.nodes().patch("edge-1", &kube::api::PatchParams::default(), &merge).await.unwrap();
    let mut whole = labels;
    whole[tier] = "gold".into();
    whole["zone"] = "b".into();
    assert_eq!(edge.ask("update", "null/node/edge-1", node(whole.clone())).await["content"], "OK");
    whole[tier] = "iron".into();
    let answer = edge.ask("update", "null/node/edge-1", node(whole.clone())).await;
    assert_eq!(reason(&answer), "Forbidden");
    // A node that is there is told so, whatever it says of itself.
    assert_eq!(reason(&edge.ask("insert", "null/node/edge-1", node(whole.clone())).await), "AlreadyExists");

    let patch = json!({
        "metadata": { "labels": whole, "annotations": { "note": "x" }, "ownerReferences": [] },
        "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }], "unschedulable": true },
        "status": { "phase": "Running" },
        "$patch": "replace",
    });
    let answer = edge.ask("patch", "null/nodepatch/edge-1", json!(patch.to_string())).await;
    assert_eq!(answer["content"]["Err"], Value::Null);
    let node = site.nodes().get("edge-1").await.unwrap();
    assert_eq!((&node.data["status"]["phase"], &node.data["spec"]["taints"]), (&json!("Running"), &Value::Null));
    assert_eq!(node.metadata.annotations.unwrap()["note"], "x");
    let labels = node.metadata.labels.unwrap();
    assert_eq!((labels[tier].as_str(), labels["zone"].as_str()), ("gold", "b"));
    cloud.shutdown(SOON).await;
}
