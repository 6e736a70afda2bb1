//! A WebSocket message: what decodes is encoded again to what decodes to the same, and its content can be looked at.
#![no_main]

use kubeedge_core::{answer::Answer, wire::json};
use kubeedge_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    bounded(data, 16, || {
        let Ok(message) = json::decode(text) else { return };
        let again = json::encode(&message);
        assert_eq!(json::decode(&again).expect("what we encode decodes"), message);
        let _ = (message.content.as_text(), message.content.is_ok(), format!("{message:?}"));
    });
    // A tree of values is larger than its text: one node may cost two bytes.
    bounded(data, 256, || {
        let Ok(message) = json::decode(text) else { return };
        match Answer::read(&message.content) {
            Answer::Refused(status) => assert!(status.message.len() <= 1024),
            answer => drop(answer.to_object_resp().expect("what was parsed has a form")),
        }
        let _ = message.content.parse::<serde_json::Value>();
    });
});
