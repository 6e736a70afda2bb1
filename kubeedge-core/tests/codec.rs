//! The codec against recorded frames of the Go programs, and against random messages.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use kubeedge_core::{
    message::{Content, Message},
    names::{MessageId, ResourceVersion, UnixMillis},
    resource::Resource,
    wire::json::{decode, encode},
    words::{Group, Operation, Source},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn golden() -> impl Iterator<Item = Value> {
    include_str!("golden/frames.jsonl").lines().map(|line| serde_json::from_str(line).unwrap())
}

#[test]
fn recorded_frames_keep_their_meaning() {
    let mut count = 0;
    for line in golden() {
        let frame = line["frame"].as_str().unwrap();
        let message = decode(frame).unwrap_or_else(|error| panic!("{error}: {frame}"));
        let again = encode(&message);
        let (mut was, is): (Value, Value) =
            (serde_json::from_str(frame).unwrap(), serde_json::from_str(&again).unwrap());
        if was.get("content").is_none() {
            was["content"] = Value::Null;
        }
        // An empty message, as the Go edge sends at its end, has no id; it gets one.
        if was["header"]["msg_id"] == "" {
            was["header"]["msg_id"] = is["header"]["msg_id"].clone();
        }
        assert_eq!(was, is, "{frame}");
        assert_eq!(decode(&again).unwrap(), message);
        count += 1;
    }
    assert!(count > 100, "only {count} frames were read");
}

#[test]
fn recorded_frames_are_understood() {
    for line in golden() {
        let message = decode(line["frame"].as_str().unwrap()).unwrap();
        assert!(!matches!(message.operation, Operation::Other(ref word) if word.as_ref() == "update"));
        if message.group == Group::Resource && message.source == Source::EdgeController {
            assert!(matches!(message.resource, Resource::Object(_)), "{}", message.resource);
        }
    }
}

#[test]
fn keys_come_in_the_order_of_go() {
    let mut message =
        Message::new(UnixMillis(5), Source::EdgeHub, Group::Resource, Operation::Keepalive, Resource::Keepalive)
            .content(Content::text("ping"));
    message.id = MessageId::new("6f1f6f0e-3a4b-4c8e-9d55-0a6f2d1c7b10").unwrap();
    assert_eq!(
        encode(&message),
        "{\"header\":{\"msg_id\":\"6f1f6f0e-3a4b-4c8e-9d55-0a6f2d1c7b10\",\"timestamp\":5},\"route\":{\"source\":\
         \"websocket\",\"group\":\"resource\",\"operation\":\"keepalive\",\"resource\":\"node\"},\"content\":\"ping\"}\n"
    );
}

#[test]
fn malformed_frames_are_errors() {
    for bad in [
        "",
        "null",
        "[]",
        "{",
        r#"{"header":{"timestamp":"5"}}"#,
        r#"{"header":{"timestamp":1.0}}"#,
        r#"{"header":{"timestamp":1.7e12}}"#,
        r#"{"header":{"resourceversion":"abc"}}"#,
        r#"{"header":{"msg_id":5}}"#,
        r#"{"header":{"sync":"yes"}}"#,
        r#"{"route":{"resource":["x"]}}"#,
    ] {
        assert!(decode(bad).is_err(), "{bad}");
    }
}

#[test]
fn go_tolerances_are_ours() {
    let message = decode(r#"{"unknown":1}"#).unwrap();
    assert_eq!((message.operation, message.resource), (Operation::Absent, Resource::Absent));
    assert!(message.content.is_null());
    decode("{} trailing").unwrap();
    let escaped = decode(r#"{"route":{"source":"edg\u0065d"},"content":"\u003ca\u003e"}"#).unwrap();
    assert_eq!(escaped.source, Source::Edged);
    assert_eq!(escaped.content.as_text().unwrap(), "<a>");
}

#[test]
fn content_may_be_an_object_or_a_string_that_holds_it() {
    let object: Value = Content::json(&json!({"a": [1]})).unwrap().parse().unwrap();
    let string: Value = Content::text(r#"{"a": [1]}"#).parse().unwrap();
    assert_eq!(object, string);
    assert!(Content::text("no json").parse::<Value>().is_err());
}

#[test]
fn unknown_fields_of_objects_survive_to_the_byte() {
    let frame = r#"{"header":{"timestamp":1},"content":{"z":1.10,"a":{"new":null}, "z":2}}"#;
    assert_eq!(decode(frame).unwrap().content.as_json(), r#"{"z":1.10,"a":{"new":null}, "z":2}"#);
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof!["", "insert", "update", "delete", "response", "edged", "twin", "resource", "user", "[a-zA-Z/_.-]{0,12}"]
}

prop_compose! {
    fn any_message()(
        id in "[ -~]{1,40}", parent in proptest::option::of("[a-f0-9-]{1,36}"), timestamp: i64, version: u64,
        source in word(), group in word(), operation in word(),
        resource in "[ -~]{0,40}|(default|null)/(pod|node|device)/[a-z.-]{1,12}|device/[a-z]{1,4}/[a-z]{1,4}/(state/update|twin/edge_updated)",
        content in prop_oneof![Just(Content::null()), ".{0,40}".prop_map(|text| Content::text(&text)),
            any::<(i64, bool, String)>().prop_map(|value| Content::json(&value).unwrap())],
    ) -> Message {
        let group = Group::from_word(&group);
        Message {
            id: MessageId::new(id).unwrap(),
            parent: parent.map(|parent| MessageId::new(parent).unwrap()),
            timestamp: UnixMillis(timestamp),
            resource_version: ResourceVersion::new(version),
            source: Source::from_word(&source),
            operation: Operation::from_word(&operation),
            resource: Resource::parse(&resource, &group),
            group,
            content,
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(message in any_message()) {
        prop_assert_eq!(decode(&encode(&message)).unwrap(), message);
    }

    #[test]
    fn hostile_text_never_panics(text in ".{0,200}", json in "[{}\\[\\]\":,a-z0-9\\\\ue.-]{0,200}") {
        let _ = decode(&text);
        let _ = decode(&json);
    }
}
