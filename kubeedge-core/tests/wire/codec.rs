//! The codec against recorded frames of the Go programs, and against random messages.
use std::collections::HashMap;

use kubeedge_core::{
    answer::Answer,
    message::{Content, Message},
    names::{MessageId, ResourceVersion, UnixMillis},
    resource::Resource,
    wire::json::{decode, encode},
    words::{Group, Operation, Source},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::recorded::{self, Recorded};

#[test]
fn recorded_messages_keep_their_meaning() {
    let recorded = recorded::all();
    assert_eq!(recorded.len(), 1123);
    for Recorded { text, message, .. } in recorded {
        let again = encode(&message);
        let (mut was, is): (Value, Value) =
            (serde_json::from_str(&text).unwrap(), serde_json::from_str(&again).unwrap());
        if was.get("content").is_none() {
            was["content"] = Value::Null;
        }
        // An empty message, as the Go edge sends at its end, has no id; it gets one.
        if was["header"]["msg_id"] == "" {
            was["header"]["msg_id"] = is["header"]["msg_id"].clone();
        }
        assert_eq!(was, is, "{text}");
        assert_eq!(decode(&again).unwrap(), message);
        // Content goes through to the byte, whatever a parser would make of its numbers and escapes.
        assert!(text.contains(message.content.as_json()) || message.content.is_null(), "{text}");
        assert!(again.ends_with(&format!("\"content\":{}}}\n", message.content.as_json())));
    }
}

#[test]
fn recorded_messages_are_encoded_as_go_encoded_them() {
    let text = recorded::all().into_iter().filter(|recorded| recorded.text.ends_with('\n') && has_id(recorded));
    let mut count = 0;
    for Recorded { text, message, .. } in text {
        assert_eq!(encode(&message), text);
        count += 1;
    }
    assert!(count > 1000, "only {count} are text of Go");
}

fn has_id(recorded: &Recorded) -> bool {
    !recorded.text.contains("\"msg_id\":\"\"")
}

#[test]
fn recorded_messages_are_understood() {
    for Recorded { flow, from_edge, message, .. } in recorded::all() {
        let text = encode(&message);
        match (&message.source, &message.group, &message.operation) {
            // Only a control message of gQUIC and the farewell of the Go edge come from nobody.
            (Source::Absent, _, Operation::Absent | Operation::Response | Operation::Other(_)) => {
                assert!(flow == "13-quic" || message.content.is_null(), "{text}");
            }
            (Source::EdgeController, Group::Resource, _) => {
                // The lease without a name is a defect of the Go edge.
                let nameless = message.resource.to_string() == "kube-node-lease/lease/";
                assert!(nameless || matches!(message.resource, Resource::Object(_)), "{text}");
            }
            // HTTP methods, names of tasks, and the word of the metaserver.
            (
                Source::RouterServiceBus | Source::TaskManager | Source::MetaServer | Source::EdgeHub,
                _,
                Operation::Other(_),
            ) => {}
            (Source::ServiceBus, Group::User, Operation::Absent) => assert!(from_edge, "{text}"),
            (source, group, operation) => {
                assert!(!matches!(source, Source::Absent | Source::Other(_)), "{text}");
                assert!(!matches!(group, Group::Absent | Group::Other(_)), "{text}");
                assert!(!matches!(operation, Operation::Absent | Operation::Other(_)), "{text}");
            }
        }
    }
}

/// Route copied, not swapped: an edge that put itself as the source would be acknowledged by nobody.
#[test]
fn our_acknowledgements_are_those_of_go() {
    let recorded = recorded::all();
    let sent: HashMap<_, _> =
        recorded.iter().filter(|one| !one.from_edge).map(|one| (&one.message.id, &one.message)).collect();
    let mut count = 0;
    for Recorded { message: theirs, .. } in recorded.iter().filter(|one| one.from_edge) {
        let Some(acked) = theirs.parent.as_ref().and_then(|parent| sent.get(parent)) else { continue };
        if theirs.operation != Operation::Response {
            continue;
        }
        let mut ours = acked.acknowledgement(theirs.timestamp);
        ours.id = theirs.id.clone();
        // The Go edge rewrites the route of device objects before it acknowledges them; the cloud looks at neither.
        if theirs.source == Source::Meta {
            assert_eq!((&acked.source, &theirs.group), (&Source::DeviceController, &Group::Twin));
            (ours.source, ours.group) = (theirs.source.clone(), theirs.group.clone());
        }
        assert_eq!(ours, *theirs);
        count += 1;
    }
    assert!(count > 250, "only {count} acknowledgements");
}

/// Everything that a caller could take for an object, or for success, and that is neither.
#[test]
fn recorded_failures_are_not_taken_for_success() {
    let mut refused = 0;
    for Recorded { from_edge, message, .. } in recorded::all() {
        if from_edge || message.operation != Operation::Response || message.source != Source::EdgeController {
            continue;
        }
        let content: Value = message.content.parse().unwrap_or(Value::Null);
        let failed = content.get("ErrStatus").is_some() || content.get("Err").is_some_and(|error| !error.is_null());
        match Answer::read(&message.content) {
            Answer::Refused(_) => refused += 1,
            answer => assert!(!failed, "{message:?} taken for {answer:?}"),
        }
    }
    assert!(refused > 3, "only {refused} failures");
}

#[test]
fn success_is_one_word() {
    assert!(Content::ok().is_ok());
    for other in ["ok", "OK ", "\"OK\"", ""] {
        assert!(!Content::text(other).is_ok(), "{other:?}");
    }
}

#[test]
fn bytes_that_a_go_peer_sends_stay_the_text_that_they_are() {
    let message = decode(r#"{"route":{"source":"servicebus","group":"user"},"content":"eyJhIjoxfQ=="}"#).unwrap();
    assert_eq!(message.content.as_text().unwrap(), "eyJhIjoxfQ==");
    assert!(message.content.parse::<Value>().is_err(), "never decoded by guess");
}

#[test]
fn deep_nesting_is_carried_and_not_followed() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let message = decode(&format!(r#"{{"content":{deep}}}"#)).unwrap();
    assert_eq!(message.content.as_json(), deep);
    assert!(message.content.parse::<Value>().is_err());
    assert!(decode(&format!(r#"{{"header":{deep}}}"#)).is_err());
    assert!(decode(&format!(r#"{{"unknown":{deep}}}"#)).is_ok());
    assert!(decode(&deep).is_err());
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
