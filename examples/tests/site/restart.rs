//! Programs that are killed without warning and started again.

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kubeedge_examples::observe;
use serde_json::json;

use crate::field::{Field, PATIENCE, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_killed_without_cloud_comes_back_from_disk() {
    let mut field = Field::start().await;
    let before = field.running().await;
    field.kill_cloud().await;
    field.kill_edge().await;
    let polls = field.boiler.view().requests();
    // The pod outlives its agent; here it dies too, as in a power cut.
    for id in field.greeters() {
        assert!(std::process::Command::new("kill").args(["-KILL", &id.to_string()]).status().unwrap().success());
    }
    field.edge = Some(field.site.start_edge().unwrap());
    eventually("one greeter process, without any cloud", async || (field.greeters().len() == 1).then_some(())).await;
    eventually("the device is polled, without any cloud", async || {
        (field.boiler.view().requests() > polls + 3).then_some(())
    })
    .await;
    assert!((field.boiler.view().now().setpoint - 45.0).abs() < 0.05, "the desired value is still the one of before");

    field.cloud = Some(field.site.start_cloud().unwrap());
    let after = eventually("the truth in the cloud: restarted once", async || {
        let pod = field.pods().get_opt("greeter").await.ok()??;
        (observe::phase(&pod) == "Running" && observe::restarts(&pod) == 1).then_some(pod)
    })
    .await;
    assert_eq!(before.metadata.uid, after.metadata.uid);
    assert_eq!(field.greeters().len(), 1, "no duplicate");
    field.desire(52.0).await;
    field.reported("setpoint", 52.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_finds_its_pods_running() {
    let mut field = Field::start().await;
    let before = field.greeters();
    assert_eq!(before.len(), 1);
    field.kill_edge().await;
    assert_eq!(field.greeters(), before, "the pod outlives the agent");
    field.edge = Some(field.site.start_edge().unwrap());
    field.desire(51.0).await;
    field.reported("setpoint", 51.0).await;
    assert_eq!(field.greeters(), before, "the pod is adopted, not started again");
    assert_eq!(observe::restarts(&field.running().await), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_is_killed_comes_back_to_the_same_node() {
    let mut field = Field::start().await;
    let before = field.running().await;
    let processes = field.greeters();
    // Acknowledged by the API, perhaps not yet by the edge: must not be lost.
    field.desire(55.0).await;
    field.kill_cloud().await;
    field.cloud = Some(field.site.start_cloud().unwrap());
    tokio::time::timeout(PATIENCE, field.site.client()).await.expect("the API is back");
    field.reported("setpoint", 55.0).await;
    let nodes: Api<Node> = Api::all(field.client.clone());
    assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items.len(), 1, "the same node");
    let pods = field.pods().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].metadata.uid, before.metadata.uid, "the same pod");
    assert_eq!(field.greeters(), processes, "the same process");

    let maps: Api<ConfigMap> = Api::default_namespaced(field.client.clone());
    let patch = json!({"data": {"text": "after the restart"}});
    maps.patch("greeting", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    eventually("the new text in the log", async || {
        field.last_greeting().await.contains("after the restart").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_while_the_edge_is_away_is_gone_when_it_is_back() {
    let mut field = Field::start().await;
    field.kill_edge().await;
    assert_eq!(field.greeters().len(), 1);
    field.pods().delete("greeter", &DeleteParams::default().grace_period(0)).await.unwrap();
    field.edge = Some(field.site.start_edge().unwrap());
    eventually("the process is stopped", async || field.greeters().is_empty().then_some(())).await;
    field.desire(53.0).await;
    field.reported("setpoint", 53.0).await;
}
