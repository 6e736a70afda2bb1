//! The tools of an operator: `kubectl` and `mosquitto_sub` against a running site.

use std::process::{Command, Stdio};

use kubeedge_examples::observe;

use crate::field::{Field, eventually};

fn kubectl(field: &Field, args: &[&str]) -> String {
    let run = Command::new("kubectl")
        .args(args)
        .env("KUBECONFIG", field.site.layout().kubeconfig())
        // Its caches must not come from another cluster at the same port.
        .env("HOME", field.site.layout().dir())
        .output()
        .expect("kubectl is needed: install kubernetes-client");
    assert!(run.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_shows_and_changes_what_the_edge_does() {
    let field = Field::start().await;
    let node = kubectl(&field, &["get", "nodes", "edge-1"]);
    assert!(node.contains(" Ready "), "{node}");
    let status = kubectl(&field, &["get", "devicestatus", "boiler", "-o", "yaml"]);
    assert!(status.contains("propertyName: setpoint") && status.contains("value: \"45\""), "{status}");
    let lease =
        kubectl(&field, &["get", "lease", "-n", "kube-node-lease", "edge-1", "-o", "jsonpath={.spec.holderIdentity}"]);
    assert_eq!(lease, "edge-1");

    let patch = r#"[{"op":"replace","path":"/spec/properties/2/desired/value","value":"50"}]"#;
    kubectl(&field, &["patch", "device", "boiler", "--type=json", "-p", patch]);
    field.reported("setpoint", 50.0).await;
    assert!((field.boiler.view().now().setpoint - 50.0).abs() < 0.05, "the register holds it");

    kubectl(&field, &["patch", "configmap", "greeting", "-p", r#"{"data":{"text":"by kubectl"}}"#]);
    eventually("the new text in the log", async || field.last_greeting().await.contains("by kubectl").then_some(()))
        .await;

    kubectl(&field, &["delete", "pod", "greeter", "--wait"]);
    assert_eq!(field.greeters(), [0; 0], "deleted means stopped");
    kubectl(&field, &["delete", "device", "boiler"]);
    eventually("the status goes with its device", async || {
        kubectl(&field, &["get", "devicestatus", "-o", "name"]).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_mqtt_client_sees_every_twin_change() {
    let field = Field::start().await;
    let (host, port) = (field.site.mqtt().ip().to_string(), field.site.mqtt().port().to_string());
    let topic = "$hw/events/device/default/boiler/twin/update/#";
    let subscriber = Command::new("mosquitto_sub")
        .args(["-h", &host, "-p", &port, "-t", topic, "-v", "-C", "6", "-W", "30"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mosquitto_sub is needed: install mosquitto-clients");
    // The water is not yet at its setpoint, so the temperature changes by itself; the setpoint changes here.
    observe::desire(&field.client, 49.0).await.unwrap();
    let seen = tokio::task::spawn_blocking(move || subscriber.wait_with_output().unwrap()).await.unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.lines().count() >= 6, "{seen}");
    let documents: Vec<_> = seen.lines().filter(|line| line.contains("/twin/update/document ")).collect();
    assert!(documents.iter().any(|line| line.contains("temperature")), "{seen}");
    for document in documents {
        let json = document.split_once(' ').unwrap().1;
        let document: serde_json::Value = serde_json::from_str(json).unwrap();
        assert!(document["timestamp"].is_i64() && document["twin"].is_object(), "{document}");
    }
}
