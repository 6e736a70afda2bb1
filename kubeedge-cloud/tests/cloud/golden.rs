//! What a Go edge once sent to a Go cloud, sent to this one: each request gets the kind of answer that it got there.

use std::collections::{HashMap, HashSet};

use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::{Edge, SOON, Site, create};

const FIRST_CONNECT: &str = include_str!("../golden/02-first-connect.jsonl");
const POD_LIFECYCLE: &str = include_str!("../golden/03-pod-lifecycle.jsonl");

/// What an answer is like, and its route.
fn class(answer: &Value) -> String {
    let content = &answer["content"];
    let version = if answer["header"]["resourceversion"].is_string() { "with version" } else { "without version" };
    let kind = if content == "OK" {
        "OK".to_owned()
    } else if content["Err"]["ErrStatus"].is_object() {
        format!("envelope of error {}", content["Err"]["ErrStatus"]["reason"])
    } else if content.get("Err").is_some() && content.get("Object").is_some() {
        format!("envelope of {}", content["Object"]["metadata"]["name"])
    } else {
        format!("bare {} {}", content["kind"], content["metadata"]["name"])
    };
    format!("{kind} {version} {}", answer["route"])
}

struct Replay {
    site: Site,
    edge: Edge,
    /// UIDs and versions there, and here.
    here: HashMap<String, String>,
    requests: usize,
}

impl Replay {
    /// The text with the UIDs and versions of here.
    fn translate(&self, frame: &str) -> String {
        let mut frame = frame.to_owned();
        for (there, here) in &self.here {
            frame = frame.replace(there, here);
        }
        frame
    }

    fn learn(&mut self, there: &Value, here: &Value) {
        let text = |object: &Value, member: &str| object["metadata"][member].as_str().map(str::to_owned);
        if let (Some(there), Some(here)) = (text(there, "uid"), text(here, "uid")) {
            self.here.insert(there, here);
        }
        if let (Some(there), Some(here)) = (text(there, "resourceVersion"), text(here, "resourceVersion")) {
            // Only as a member of its name, as a short number may be anything.
            self.here.insert(format!(r#""resourceVersion":"{there}""#), format!(r#""resourceVersion":"{here}""#));
        }
    }

    /// Does to the API what was done there before the cloud told the edge so.
    async fn happened(&mut self, message: &Value) {
        let (route, object) = (&message["route"], &message["content"]);
        let segments: Vec<&str> = route["resource"].as_str().unwrap().split('/').collect();
        let [_, kind, name] = segments[..] else { panic!("{route}") };
        let api: Api<DynamicObject> = match kind {
            "pod" => self.site.pods(),
            "configmap" => self.site.config_maps(),
            "secret" => self.site.api("v1", "Secret", "secrets", Some("default")),
            _ => return,
        };
        let deleting = object["metadata"]["deletionTimestamp"].is_string();
        match route["operation"].as_str().unwrap() {
            "delete" => {
                if api.get_opt(name).await.unwrap().is_some() {
                    api.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
                }
                if kind == "pod" {
                    self.edge.object("delete", route["resource"].as_str().unwrap()).await;
                }
            }
            _ if deleting => {
                api.delete(name, &DeleteParams::default()).await.unwrap();
            }
            _ => {
                let mut new = object.clone();
                let metadata = &object["metadata"];
                new["metadata"] = json!({ "name": name, "labels": metadata["labels"] });
                if kind == "pod" {
                    new["status"] = json!({});
                }
                if api.get_opt(name).await.unwrap().is_some() {
                    let patch = Patch::Merge(json!({ "data": object["data"] }));
                    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
                } else {
                    let made = create(&api, new).await;
                    self.learn(object, &serde_json::to_value(&made).unwrap());
                    if kind == "pod" {
                        self.edge.got(route["resource"].as_str().unwrap()).await;
                    }
                }
            }
        }
    }

    async fn run(&mut self, recording: &str) {
        let lines: Vec<Value> = recording.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let message = |line: &Value| -> Value { serde_json::from_str(line["frame"].as_str().unwrap()).unwrap() };
        let texts: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "text").collect();
        let answers: HashMap<String, Value> = texts
            .iter()
            .filter(|line| line["dir"] == "cloud>edge")
            .map(|line| message(line))
            .filter_map(|answer| Some((answer["header"]["parent_msg_id"].as_str()?.to_owned(), answer)))
            .collect();
        let mut failed = vec![];
        for line in texts {
            let original = message(line);
            if line["dir"] == "cloud>edge" {
                if original["header"]["parent_msg_id"].is_null() {
                    self.happened(&original).await;
                }
                continue;
            }
            let id = original["header"]["msg_id"].clone();
            self.edge.send_text(&self.translate(line["frame"].as_str().unwrap())).await;
            let Some(there) = id.as_str().and_then(|id| answers.get(id)) else { continue };
            let here = self.edge.until(|message| message["header"]["parent_msg_id"] == id).await;
            self.requests += 1;
            self.learn(&there["content"]["Object"], &here["content"]["Object"]);
            let (there, here) = (class(there), class(&here));
            if there != here {
                failed.push(format!("{}\n  there: {there}\n  here:  {here}", original["route"]));
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }
}

async fn replay() -> (Replay, kubeedge_cloud::cloud::CloudCoreHandle) {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let edge = Edge::connect(&cloud, "edge-go").await;
    (Replay { site, edge, here: HashMap::new(), requests: 0 }, cloud)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_edge_connects_for_the_first_time_and_again() {
    let (mut replay, cloud) = replay().await;
    replay.run(FIRST_CONNECT).await;
    assert_eq!(replay.requests, 17);
    let node = replay.site.nodes().get("edge-go").await.unwrap();
    let ready =
        node.data["status"]["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Ready");
    assert_eq!(ready.unwrap()["status"], "True");
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_edge_runs_pods() {
    let (mut replay, cloud) = replay().await;
    replay.site.make_node("edge-go").await;
    let accounts = replay.site.api("v1", "ServiceAccount", "serviceaccounts", Some("default"));
    if accounts.get_opt("default").await.unwrap().is_none() {
        create(&accounts, json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } }))
            .await;
    }
    let lease = json!({ "metadata": { "name": "edge-go" }, "spec": { "holderIdentity": "edge-go" } });
    let made = replay.edge.ask("insert", "kube-node-lease/lease/edge-go", lease).await;
    // The recording goes on with a lease that was there before.
    let first = POD_LIFECYCLE.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find_map(|line| {
        let message: Value = serde_json::from_str(line["frame"].as_str()?).ok()?;
        (message["route"]["resource"] == "kube-node-lease/lease/edge-go").then_some(message["content"].clone())
    });
    let first = first.unwrap();
    replay.learn(&first, &made["content"]["Object"]);
    // It belongs to the node; what belongs to nothing that exists is collected.
    let owner = first["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap().to_owned();
    replay.here.insert(owner, replay.site.nodes().get("edge-go").await.unwrap().metadata.uid.unwrap());
    replay.run(POD_LIFECYCLE).await;
    assert_eq!(replay.requests, 43);

    let seen: HashSet<String> = replay.edge.objects().into_iter().collect();
    for pod in ["plain", "crash", "badimage", "once", "web-968f94645-ztgtj"] {
        assert!(seen.contains(&format!("insert default/pod/{pod}")), "{pod}");
        assert!(seen.contains(&format!("delete default/pod/{pod}")), "{pod}");
    }
    for configuration in [
        "insert default/configmap/web-settings",
        "update default/configmap/web-settings",
        "update default/secret/web-secret",
    ] {
        assert!(seen.contains(configuration), "{configuration}: {seen:?}");
    }
    cloud.shutdown(SOON).await;
}
