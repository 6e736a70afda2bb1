//! The recorded messages of `channel.jsonl`, decoded by the codec of this crate.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kubeedge_core::{message::Message, wire::json};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Line {
    flow: String,
    t: f64,
    conn: u32,
    dir: String,
    frame: Option<String>,
    packet: Option<String>,
}

/// A recorded message.
pub(crate) struct Recorded {
    pub(crate) flow: String,
    pub(crate) conn: u32,
    /// Since the flow began.
    pub(crate) at: Duration,
    pub(crate) from_edge: bool,
    /// As it was sent, or for a packet what it says in JSON.
    pub(crate) text: String,
    pub(crate) message: Message,
}

/// All of them, in order.
pub(crate) fn all() -> Vec<Recorded> {
    let read = |line| {
        let line: Line = serde_json::from_str(line).unwrap();
        let text = line.frame.unwrap_or_else(|| packet(&STANDARD.decode(line.packet.unwrap()).unwrap()));
        let message = json::decode(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let from_edge = line.dir == "edge>cloud";
        Recorded { flow: line.flow, conn: line.conn, at: Duration::from_secs_f64(line.t), from_edge, text, message }
    };
    include_str!("../golden/channel.jsonl").lines().map(read).collect()
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let len = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let (digits, rest) = bytes.split_at(len);
    *bytes = rest;
    digits.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
}

/// Fields of a protobuf message: bytes by number, and the one number that there is in a header.
fn fields(mut bytes: &[u8]) -> (BTreeMap<u64, &[u8]>, u64) {
    let (mut fields, mut number) = (BTreeMap::new(), 0);
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        if key & 7 == 2 {
            let (field, rest) = bytes.split_at(usize::try_from(value).unwrap());
            fields.insert(key >> 3, field);
            bytes = rest;
        } else {
            assert_eq!(key, 3 << 3, "the timestamp");
            number = value;
        }
    }
    (fields, number)
}

/// What a packet says, as a WebSocket message would say it.
fn packet(bytes: &[u8]) -> String {
    let (head, body) = bytes.split_at(10);
    assert_eq!(head[..6], [1, 1, 1, 0, 1, 0]);
    assert_eq!(u32::from_be_bytes(head[6..].try_into().unwrap()) as usize, body.len());
    let (message, _) = fields(body);
    let ((header, timestamp), (route, _)) = (fields(message[&1]), fields(message[&2]));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let named = |fields: &BTreeMap<u64, &[u8]>, names: &[(u64, &str)]| -> serde_json::Map<String, Value> {
        let named =
            names.iter().filter_map(|(number, name)| Some(((*name).to_owned(), text(fields.get(number)?).into())));
        named.collect()
    };
    let mut header = named(&header, &[(1, "msg_id"), (2, "parent_msg_id")]);
    // Zigzag.
    header.insert("timestamp".into(), ((timestamp >> 1).cast_signed() ^ -(timestamp & 1).cast_signed()).into());
    let route = named(&route, &[(1, "source"), (2, "group"), (3, "operation"), (4, "resource")]);
    let content = match message.get(&3).copied().map(text) {
        None => Value::Null,
        Some(content) => serde_json::from_str(&content).unwrap_or(Value::String(content)),
    };
    json!({"header": header, "route": route, "content": content}).to_string()
}
