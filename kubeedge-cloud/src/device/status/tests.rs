#![allow(clippy::unwrap_used)]
use std::{collections::HashMap as Map, convert::Infallible};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use kubeedge_core::{
    message::Message,
    names::{MessageId, NodeName, SystemClock},
};
use serde_json::{Value, json};
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::{
    device::{device_facts, report::TwinReport},
    object::{Kind, NodeObject},
};

const INTERVAL: Duration = Duration::from_secs(1);

/// DeviceStatus objects, with versions; how long a call takes, and what goes wrong.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: Map<String, Value>,
    version: u64,
    delay: Duration,
    away: bool,
    calls: Map<Method, usize>,
    under_way: usize,
    most: usize,
    /// When each object was written.
    writes: Map<String, Vec<Instant>>,
}

impl Api {
    fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let delay = {
                    let mut state = lock(&api.0);
                    state.under_way += 1;
                    state.most = state.most.max(state.under_way);
                    state.delay
                };
                sleep(delay).await;
                let (status, value) = lock(&api.0).answer(&head.method, head.uri.path(), &body);
                let bytes = Bytes::from(value.to_string());
                Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(bytes)).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn status(&self, device: &str) -> Value {
        lock(&self.0).objects[&path(device)]["status"].clone()
    }

    fn calls(&self, method: &Method) -> usize {
        lock(&self.0).calls.get(method).copied().unwrap_or_default()
    }
}

fn path(device: &str) -> String {
    format!("/apis/devices.kubeedge.io/v1beta1/namespaces/default/devicestatuses/{device}")
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        self.under_way -= 1;
        *self.calls.entry(method.clone()).or_default() += 1;
        if self.away {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
        }
        match *method {
            Method::POST => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return failure(StatusCode::CONFLICT, "AlreadyExists");
                }
                (StatusCode::CREATED, self.put(path, object))
            }
            Method::PATCH => {
                let patch: Value = serde_json::from_slice(body).unwrap();
                let Some(mut object) = self.objects.get(path).cloned() else {
                    return failure(StatusCode::NOT_FOUND, "NotFound");
                };
                if patch["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                json_patch::merge(&mut object, &patch);
                self.writes.entry(path.into()).or_default().push(Instant::now());
                (StatusCode::OK, self.put(path.into(), object))
            }
            _ => match self.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            },
        }
    }

    fn put(&mut self, path: String, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path, object.clone());
        object
    }
}

fn failure(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "code": code.as_u16(),
    });
    (code, status)
}

struct World {
    api: Api,
    statuses: Arc<Statuses>,
    node: NodeName,
}

impl World {
    /// Devices `d0` and so on, each with the properties `a` and `b`, and their objects.
    async fn new(devices: usize) -> (Self, impl Fn() -> Option<Message>) {
        let (api, hub, node) = (Api::default(), HubHandle::new(1), NodeName::new("edge-1").unwrap());
        let sent = hub.sit(&node);
        let truth = Truth::new(api.client(), hub.clone());
        let statuses = Arc::new(Statuses::new(api.client(), truth, hub, Arc::new(SystemClock), INTERVAL));
        let running = statuses.clone();
        tokio::spawn(async move { running.run().await });
        let world = Self { api, statuses, node };
        for number in 0..devices {
            world.bind(number, "edge-1");
        }
        while lock(&world.statuses.made).len() < devices {
            sleep(Duration::from_millis(1)).await;
        }
        (world, sent)
    }

    fn bind(&self, number: usize, node: &str) {
        let device = json!({
            "metadata": { "name": format!("d{number}"), "namespace": "default", "uid": format!("u{number}"),
                "resourceVersion": (number + 1).to_string() },
            "spec": { "nodeName": node, "properties": [{ "name": "a" }, { "name": "b" }] },
        });
        let facts = device_facts(&device);
        let object = NodeObject::new(&Kind::DEVICE, device).unwrap();
        let path = object.path.clone();
        self.statuses.truth.placement().apply(object, facts);
        self.statuses.follow(Followed::Applied(&path));
    }

    fn report(&self, number: usize, id: &str, property: &str, value: &str) -> Result<bool, ApiStatus> {
        let twin = json!({ "twin": { property: { "actual": { "value": value } } } });
        let report: TwinReport = serde_json::from_value(twin).unwrap();
        let (id, device) = (MessageId::new(id).unwrap(), format!("default/d{number}").parse().unwrap());
        self.statuses.report((&self.node, &id), &device, |properties| report.changes(properties))
    }
}

fn value(status: &Value, property: &str) -> String {
    let twins = status["twins"].as_array().cloned().unwrap_or_default();
    let twin = twins.iter().find(|twin| twin["propertyName"] == property).cloned().unwrap_or_default();
    twin["reported"]["value"].as_str().unwrap_or_default().to_owned()
}

/// The reports that were answered, and with what.
fn answers(sent: &impl Fn() -> Option<Message>) -> Vec<(String, String)> {
    let read = |message: Message| {
        (message.parent.map(|id| id.to_string()).unwrap_or_default(), message.content.as_json().to_owned())
    };
    std::iter::from_fn(sent).map(read).collect()
}

#[tokio::test(start_paused = true)]
async fn many_devices_that_report_often_make_one_write_each_per_interval_and_read_nothing() {
    const DEVICES: usize = 200;
    let (world, sent) = World::new(DEVICES).await;
    lock(&world.api.0).delay = Duration::from_millis(5);
    let mut confirmed = 0;
    for round in 0..20 {
        for number in 0..DEVICES {
            let property = ["a", "b"][round % 2];
            assert_eq!(world.report(number, &format!("{number}-{round}"), property, &round.to_string()), Ok(true));
        }
        sleep(INTERVAL / 4).await;
        confirmed += answers(&sent).len();
    }
    sleep(INTERVAL * 3).await;
    confirmed += answers(&sent).len();
    assert_eq!(confirmed, 20 * DEVICES, "each report is confirmed once");
    assert_eq!(world.api.calls(&Method::GET), 0);
    let state = lock(&world.api.0);
    assert!(state.most <= 16, "{} calls at a time", state.most);
    for number in 0..DEVICES {
        let path = path(&format!("d{number}"));
        let status = &state.objects[&path]["status"];
        assert_eq!((value(status, "a"), value(status, "b")), ("18".into(), "19".into()));
        let writes = &state.writes[&path];
        // 5 s of reports, and one at the start.
        assert!((5..=6).contains(&writes.len()), "{writes:?}");
        assert!(writes.windows(2).all(|pair| pair[1] - pair[0] + Duration::from_millis(2) >= INTERVAL), "{writes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_is_confirmed_when_the_write_that_holds_it_is_durable_and_stays_until_then() {
    let (world, sent) = World::new(1).await;
    world.report(0, "1", "a", "1").unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(answers(&sent), [("1".into(), "\"OK\"".into())], "the first at once");
    world.report(0, "2", "a", "2").unwrap();
    world.report(0, "3", "b", "3").unwrap();
    sleep(INTERVAL / 2).await;
    assert_eq!(answers(&sent), [], "not before it is written");
    lock(&world.api.0).away = true;
    sleep(INTERVAL * 60).await;
    assert_eq!(answers(&sent), []);
    assert!(world.api.calls(&Method::GET) > 5, "it is tried again");
    assert_eq!(value(&world.api.status("d0"), "a"), "1");
    lock(&world.api.0).away = false;
    world.report(0, "4", "a", "4").unwrap();
    sleep(INTERVAL * 10).await;
    assert_eq!(answers(&sent).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["2", "3", "4"]);
    let status = world.api.status("d0");
    assert_eq!((value(&status, "a"), value(&status, "b")), ("4".into(), "3".into()));
}

#[tokio::test(start_paused = true)]
async fn what_others_write_is_kept() {
    let (world, _sent) = World::new(1).await;
    world.report(0, "1", "a", "1").unwrap();
    sleep(INTERVAL * 2).await;
    {
        let mut state = lock(&world.api.0);
        let mut object = state.objects[&path("d0")].clone();
        object["status"]["state"] = "ok".into();
        object["status"]["extensions"] = json!({ "theirs": 1 });
        state.put(path("d0"), object);
    }
    world.report(0, "2", "b", "2").unwrap();
    sleep(INTERVAL * 2).await;
    let status = world.api.status("d0");
    assert_eq!((value(&status, "a"), value(&status, "b")), ("1".into(), "2".into()));
    assert_eq!((&status["state"], &status["extensions"]["theirs"]), (&json!("ok"), &json!(1)));
    assert_eq!(world.api.calls(&Method::GET), 1);
    lock(&world.api.0).objects.clear();
    world.report(0, "3", "a", "3").unwrap();
    sleep(INTERVAL * 2).await;
    assert_eq!(value(&world.api.status("d0"), "a"), "3", "one that somebody has deleted is made again");
}

#[tokio::test(start_paused = true)]
async fn reports_of_a_device_that_goes_are_refused_and_not_written_to_its_successor() {
    let (world, sent) = World::new(2).await;
    for id in ["1", "2"] {
        world.report(0, id, "a", "1").unwrap();
        world.report(1, &format!("other-{id}"), "a", "1").unwrap();
        sleep(INTERVAL / 4).await;
    }
    assert_eq!(answers(&sent).len(), 2);
    // One goes, and the other moves.
    let gone = path_of(&"default/d0".parse().unwrap());
    world.statuses.truth.placement().vanish(&gone, &Uid::new("u0").unwrap());
    world.statuses.follow(Followed::Deleted(&gone));
    world.bind(1, "edge-2");
    advance(INTERVAL * 2).await;
    sleep(INTERVAL).await;
    let answers: Vec<_> = answers(&sent);
    assert_eq!(answers.len(), 2);
    assert!(answers[0].0 == "2" && answers[0].1.contains("404"), "{answers:?}");
    assert!(answers[1].0 == "other-2" && answers[1].1.contains("403"), "{answers:?}");
    assert_eq!(world.report(0, "3", "a", "1").unwrap_err().code, 404);
    assert_eq!(lock(&world.statuses.board).devices().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_a_node_that_has_gone_nothing_is_tried_again() {
    let (world, sent) = World::new(1).await;
    lock(&world.api.0).away = true;
    world.report(0, "1", "a", "1").unwrap();
    sleep(INTERVAL).await;
    let before = world.api.calls(&Method::PATCH) + world.api.calls(&Method::GET);
    let (node, number) = world.statuses.hub.connected().into_iter().next().unwrap();
    world.statuses.hub.leave(&node, number);
    sleep(INTERVAL * 10).await;
    lock(&world.api.0).away = false;
    sleep(INTERVAL * 10).await;
    let after = world.api.calls(&Method::PATCH) + world.api.calls(&Method::GET);
    assert!(after <= before + 1, "another instance may have the node");
    assert_eq!((value(&world.api.status("d0"), "a"), answers(&sent).len()), (String::new(), 0));
}
