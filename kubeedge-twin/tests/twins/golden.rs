//! The recorded conversation of applications with the Go program, replayed.

use std::collections::VecDeque;

use kubeedge_core::{
    device::DeviceState,
    message::{Content, Message},
    names::{DeviceId, UnixMillis},
    resource::Resource,
    twin::Twins as _,
    wire,
    words::{Group, Operation, Source},
};
use serde_json::{Value, json};

use super::rig::Rig;

const RECORDED: &str = include_str!("../golden/08-mqtt-twin.jsonl");
const THERMO: &str = "$hw/events/device/default/thermo-1";

/// What an application published, and all that came of it.
struct Exchange {
    topic: String,
    payload: String,
    published: VecDeque<(String, Value)>,
    told: Vec<Message>,
}

fn exchanges() -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    for line in RECORDED.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (topic, frame) = (line["topic"].as_str().unwrap_or_default(), line["frame"].as_str().unwrap());
        match line["dir"].as_str().unwrap() {
            "mqtt app>edge" => exchanges.push(Exchange {
                topic: topic.to_owned(),
                payload: frame.to_owned(),
                published: VecDeque::new(),
                told: Vec::new(),
            }),
            "mqtt edge>app" => {
                let body = serde_json::from_str(frame).unwrap();
                exchanges.last_mut().unwrap().published.push_back((topic.to_owned(), body));
            }
            _ => exchanges.last_mut().unwrap().told.push(wire::json::decode(frame).unwrap()),
        }
    }
    exchanges
}

/// Where we do otherwise, by event id or, for bodies without one, by the body.
fn deviate(exchange: &mut Exchange) {
    let body: Value = serde_json::from_str(&exchange.payload).unwrap_or_default();
    let event_id = body["event_id"].as_str().unwrap_or_default().to_owned();
    for (topic, answer) in &mut exchange.published {
        // Errors about a body go to the device that the topic names, with the event id if it could be read.
        if topic == "$hw/events/device//twin/update/result" {
            *topic = format!("{THERMO}/twin/update/result");
            answer["event_id"] = event_id.clone().into();
        }
    }
    // `state/update` that cannot be carried out is answered.
    if exchange.topic.ends_with("/state/update") && exchange.published.is_empty() {
        let code = if exchange.topic.contains("ghost") { 404 } else { 400 };
        let answer = json!({"event_id": event_id, "timestamp": 0, "code": code, "reason": "ours"});
        exchange.published.push_back((format!("{}/result", exchange.topic), answer));
    }
}

/// Values that upstream refuses and we accept: blanks and more than 512 bytes. Tested on their own below.
fn is_accepted_by_us_only(exchange: &Exchange) -> bool {
    ["\"u-13\"", "\"u-19\""].iter().any(|id| exchange.payload.contains(id))
}

/// Takes out what differs from run to run: times, random ids, and the words of a JSON parser.
fn normal(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match name.as_str() {
                        "timestamp" => *member = 0.into(),
                        "lastOnlineTime" | "last_online" => *member = "a time".into(),
                        "event_id" if member.as_str().is_some_and(|id| id.len() == 36) => *member = "uuid".into(),
                        "reason" => {
                            let text = member.as_str().unwrap_or_default();
                            let ours = text.starts_with("state ")
                                || text.starts_with("Unmarshal state update")
                                || text.starts_with("update rejected") && text.len() == 48
                                || text == "ours";
                            let cut = text.split(" , err: ").next().unwrap_or_default().to_owned();
                            *member = if ours { "ours".into() } else { cut.into() };
                        }
                        _ => walk(member),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    value
}

/// The device as it was when the recording began.
async fn thermo(rig: &mut Rig) {
    let version = |edge: i64| json!({"cloud": 0, "edge": edge});
    let content = json!({"devices": [{"id": "default/thermo-1", "name": "thermo-1", "twin": {
        "humidity": {"actual": {"value": "55"}, "actual_version": version(1)},
        "setpoint": {"expected": {"value": "21.0"}, "expected_version": version(3),
            "actual": {"value": "21.0"}, "actual_version": version(3)},
        "temperature": {"actual": {"value": "18.2"}, "actual_version": version(1)},
    }}]});
    let message = Message::new(
        UnixMillis(0),
        Source::DeviceController,
        Group::Twin,
        Operation::Update,
        Resource::MembershipDetail,
    )
    .content(Content::json(&content).unwrap());
    rig.twins.handle_membership(&message).await.unwrap();
    let id: DeviceId = "default/thermo-1".parse().unwrap();
    rig.twins.report_state(id, DeviceState::Offline).await.unwrap();
    for _ in 0..3 {
        rig.next().await; // announcement, document, state
    }
}

#[tokio::test(start_paused = true)]
async fn applications_get_what_the_go_program_gave_them() {
    let mut rig = Rig::new().await;
    thermo(&mut rig).await;
    let mut replayed = 0;
    for mut exchange in exchanges() {
        if is_accepted_by_us_only(&exchange) {
            continue;
        }
        deviate(&mut exchange);
        rig.clock.advance(std::time::Duration::from_secs(1));
        rig.publish(&exchange.topic, exchange.payload.clone()).await;
        for (topic, body) in exchange.published {
            let (our_topic, our_body) = rig.next().await;
            assert_eq!(our_topic, topic, "after {} {}", exchange.topic, exchange.payload);
            assert_eq!(normal(our_body), normal(body), "on {topic} after {}", exchange.payload);
        }
        rig.nothing_more().await;
        for theirs in exchange.told {
            told_as_much(&rig, &theirs).await;
        }
        replayed += 1;
    }
    assert_eq!(replayed, 38);
    rig.stop().await;
}

/// Ours tells the whole twin; what theirs tells of it must be there, values and versions alike.
async fn told_as_much(rig: &Rig, theirs: &Message) {
    let theirs_content: Value = normal(theirs.content.parse().unwrap());
    if matches!(theirs.resource, Resource::DeviceState(_)) {
        assert_eq!(normal(rig.told("state/default/thermo-1").await), theirs_content);
        return;
    }
    let ours = normal(rig.told("twin/default/thermo-1").await);
    for (name, property) in theirs_content["twin"].as_object().unwrap() {
        for (member, value) in property.as_object().unwrap() {
            assert_eq!(&ours["twin"][name][member], value, "{member} of {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn values_that_upstream_refuses_are_values() {
    let mut rig = Rig::new().await;
    thermo(&mut rig).await;
    let refused: Vec<_> = exchanges().into_iter().filter(is_accepted_by_us_only).collect();
    assert_eq!(refused.len(), 2);
    for exchange in refused {
        let request: Value = serde_json::from_str(&exchange.payload).unwrap();
        rig.publish(&exchange.topic, exchange.payload).await;
        let (topic, result) = rig.next().await;
        assert_eq!(topic, format!("{THERMO}/twin/update/result"));
        let value = |body: &Value| body["twin"]["temperature"]["actual"]["value"].clone();
        assert_eq!(value(&result), value(&request));
        assert_eq!(rig.next().await.0, format!("{THERMO}/twin/update/document"));
    }
    rig.stop().await;
}

/// In Go this kills the worker for two and a half minutes.
#[tokio::test(start_paused = true)]
async fn an_application_that_plays_cloud_without_versions_does_no_harm() {
    let mut rig = Rig::new().await;
    thermo(&mut rig).await;
    let body = r#"{"event_id":"f-3","timestamp":1,"twin":{"setpoint":{"expected":{"value":"9.0"}}}}"#;
    rig.publish(&format!("{THERMO}/twin/cloud_updated"), body).await;
    rig.publish(&format!("{THERMO}/twin/get"), r#"{"event_id":"g-10"}"#).await;
    let (topic, twin) = rig.next().await;
    assert_eq!(topic, format!("{THERMO}/twin/get/result"));
    assert_eq!(twin["twin"]["setpoint"]["expected"]["value"], "21.0");

    let newer = r#"{"event_id":"f-4","twin":{"setpoint":{"expected":{"value":"9.0"},"metadata":{"type":"string"},
        "expected_version":{"cloud":1,"edge":3}}}}"#;
    rig.publish(&format!("{THERMO}/twin/cloud_updated"), newer).await;
    let (topic, document) = rig.next().await;
    assert_eq!(topic, format!("{THERMO}/twin/update/document"));
    assert_eq!(document["event_id"], "f-4");
    let (topic, delta) = rig.next().await;
    assert_eq!(topic, format!("{THERMO}/twin/update/delta"));
    assert_eq!(delta["delta"], json!({"setpoint": "9.0"}));
    rig.stop().await;
}
