//! Registration, status and lease of the node, in paused time.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kubeedge_core::{
    answer::{Answer, ApiStatus},
    message::Message,
    resource::ResourceType,
    uplink::LinkState,
    words::Operation,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    fake::{FakeRuntime, PausedClock},
    stage::{Agent, Cloud, SOON, Script, Stage, is, not_found, object},
};

const LEASE: &str = "kube-node-lease/lease/edge-1";
const NODE: &str = "null/node/edge-1";
const PATCH: &str = "null/nodepatch/edge-1";

/// The API behind a cloud, as far as a node needs it.
#[derive(Default)]
struct Api {
    node: Option<Value>,
    lease: Option<Value>,
    version: u64,
    /// Errors to give before anything else, in order.
    errors: Vec<(&'static str, Answer)>,
}

fn cloud(api: &Arc<Mutex<Api>>) -> Cloud {
    let api = Arc::clone(api);
    let script: Script = Arc::new(move |message| Some(api.lock().unwrap().answer(message)));
    Cloud::new(script)
}

impl Api {
    fn answer(&mut self, message: &Message) -> Answer {
        let resource = message.resource.to_string();
        if let Some(at) = self.errors.iter().position(|(about, _)| *about == resource) {
            return self.errors.remove(at).1;
        }
        self.version += 1;
        let exists = Answer::Refused(ApiStatus::failure(409, "AlreadyExists", "exists"));
        let store = |slot: &mut Option<Value>, version: u64| {
            let mut value: Value = message.content.parse().unwrap();
            value["metadata"]["uid"] = json!("node-uid");
            value["metadata"]["resourceVersion"] = json!(version.to_string());
            *slot = Some(value.clone());
            object(&value)
        };
        match (resource.as_str(), &message.operation) {
            (NODE, Operation::Insert) if self.node.is_some() => exists,
            (NODE, Operation::Insert) => store(&mut self.node, self.version),
            (PATCH, Operation::Patch) => self.node.as_ref().map_or_else(not_found, object),
            (LEASE, Operation::Query) => self.lease.as_ref().map_or_else(not_found, object),
            (LEASE, Operation::Insert) if self.lease.is_some() => exists,
            (LEASE, Operation::Insert | Operation::Update) => store(&mut self.lease, self.version),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

fn stage(api: &Arc<Mutex<Api>>) -> (Stage, Agent) {
    let mut stage = Stage::new(cloud(api));
    stage.clock = Arc::new(PausedClock(Instant::now()));
    stage.config.disk_reserve_percent = 0;
    let agent = stage.agent_on(FakeRuntime::new(Arc::clone(&stage.clock), false));
    (stage, agent)
}

#[tokio::test(start_paused = true)]
async fn a_node_is_ready_with_its_first_message_and_keeps_its_lease() {
    let api = Arc::new(Mutex::new(Api::default()));
    let (stage, agent) = stage(&api);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.cloud.count(|_| true), 0, "without a link nothing is tried");
    stage.cloud.connect(1);
    let insert = stage.cloud.got("registration", is(&Operation::Insert, NODE)).await;
    let node: Value = insert.content.parse().unwrap();
    assert_eq!(node["status"]["conditions"][3]["status"], "True");
    assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/edge"], "");
    assert_eq!(node["status"]["nodeInfo"]["containerRuntimeVersion"], "fake://1");
    stage.cloud.got("lease", is(&Operation::Insert, LEASE)).await;
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(stage.cloud.count(is(&Operation::Patch, PATCH)), 0, "nothing changed: {:?}", started.elapsed());
    let renewals = stage.cloud.count(is(&Operation::Update, LEASE));
    assert!((28..=32).contains(&renewals), "{renewals}");
    stage.cloud.got("report", is(&Operation::Patch, PATCH)).await;
    assert!(started.elapsed() < Duration::from_secs(315), "{:?}", started.elapsed());
    let renewal = stage.cloud.got("renewal", is(&Operation::Update, LEASE)).await;
    let lease: Value = renewal.content.parse().unwrap();
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseDurationSeconds"]),
        (&json!("edge-1"), &json!(40))
    );
    assert!(lease["spec"]["renewTime"].as_str().unwrap().ends_with("000Z"));
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_known_node_is_told_its_status_and_labels_right_after_each_connect() {
    let known = json!({"metadata": {"name": "edge-1", "uid": "node-uid", "labels": {"old": "label"}}, "status": {}});
    let api = Arc::new(Mutex::new(Api { node: Some(known.clone()), ..Api::default() }));
    let (stage, agent) = stage(&api);
    stage.put(&ResourceType::Node, &known).await;
    for session in 1..=3 {
        stage.cloud.connect(session);
        let wait = async {
            let mut came = stage.cloud.came.clone();
            let patched = |log: &Vec<Message>| log.iter().filter(|m| is(&Operation::Patch, PATCH)(m)).count();
            came.wait_for(|log| patched(log) >= usize::try_from(session).unwrap()).await.unwrap();
        };
        let before = Instant::now();
        tokio::time::timeout(SOON, wait).await.expect("no status");
        assert!(before.elapsed() < Duration::from_millis(10), "{:?}", before.elapsed());
        stage.cloud.link.send_replace(LinkState::Disconnected);
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.cloud.count(is(&Operation::Insert, NODE)), 0);
    let update = stage.cloud.got("labels", is(&Operation::Update, NODE)).await;
    let node: Value = update.content.parse().unwrap();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "edge-1");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_the_cloud_forgot_is_registered_again() {
    let known = json!({"metadata": {"name": "edge-1", "uid": "old"}, "status": {}});
    let api = Arc::new(Mutex::new(Api::default()));
    let (stage, agent) = stage(&api);
    stage.put(&ResourceType::Node, &known).await;
    stage.cloud.connect(1);
    stage.cloud.got("registration", is(&Operation::Insert, NODE)).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_exists_is_patched_even_if_we_do_not_know_it() {
    let known = json!({"metadata": {"name": "edge-1", "uid": "node-uid"}, "status": {}});
    let api = Arc::new(Mutex::new(Api { node: Some(known), ..Api::default() }));
    let (stage, agent) = stage(&api);
    stage.cloud.connect(1);
    stage.cloud.got("registration", is(&Operation::Insert, NODE)).await;
    stage.cloud.got("status", is(&Operation::Patch, PATCH)).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_registration_is_tried_again_soon() {
    let down = || (NODE, Answer::Refused(ApiStatus::failure(503, "ServiceUnavailable", "later")));
    let api = Arc::new(Mutex::new(Api { errors: vec![down(), down(), down()], ..Api::default() }));
    let (stage, agent) = stage(&api);
    let before = Instant::now();
    stage.cloud.connect(1);
    let mut came = stage.cloud.came.clone();
    let fourth = came.wait_for(|log| log.iter().filter(|m| is(&Operation::Insert, NODE)(m)).count() == 4);
    tokio::time::timeout(SOON, fourth).await.expect("given up").unwrap();
    assert_eq!(before.elapsed().as_millis() / 100, 7, "0.1 s, 0.2 s and 0.4 s");
    agent.stop().await;
}

/// The recorded programs renewed a lease without a name for ever after an error of the API server.
#[tokio::test(start_paused = true)]
async fn an_error_about_the_lease_is_never_taken_for_the_lease() {
    let nameless = object(&json!({"metadata": {"creationTimestamp": null}, "spec": {}}));
    let unreachable = Answer::Refused(ApiStatus::failure(503, "ServiceUnavailable", "connection refused"));
    let api = Arc::new(Mutex::new(Api::default()));
    let (stage, agent) = stage(&api);
    stage.cloud.connect(1);
    stage.cloud.got("renewal", is(&Operation::Update, LEASE)).await;
    // With members that are something else than they should be, which must not end the agent either.
    let strange = |spec: Value| {
        object(&json!({"metadata": {"name": "edge-1", "resourceVersion": "7", "uid": "u"}, "spec": spec}))
    };
    let strange = [strange(json!("soon")), strange(json!([1])), object(&json!(["lease"])), object(&json!(7))];
    for error in [nameless, unreachable, Answer::Done].into_iter().chain(strange) {
        api.lock().unwrap().errors.push((LEASE, error));
        let before =
            (stage.cloud.count(is(&Operation::Query, LEASE)), stage.cloud.count(is(&Operation::Update, LEASE)));
        let mut came = stage.cloud.came.clone();
        let healed = came.wait_for(|log| {
            let count = |operation| log.iter().filter(|m| is(&operation, LEASE)(m)).count();
            count(Operation::Query) > before.0 && count(Operation::Update) >= before.1 + 2
        });
        tokio::time::timeout(SOON, healed).await.expect("the lease is not renewed any more").unwrap();
    }
    assert_eq!(stage.cloud.count(|message| message.resource.to_string() == "kube-node-lease/lease/"), 0);
    assert_eq!(api.lock().unwrap().lease.as_ref().unwrap()["metadata"]["name"], "edge-1");
    agent.stop().await;
}
