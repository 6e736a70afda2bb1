//! Bodies in the protobuf form of Kubernetes, which typed Go clients send for the built-in kinds.
//!
//! They are read by the tables of the built-in types into the same trees as JSON. Answers are always JSON, which these
//! clients accept too.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::schema::{Kind, Schema};

const MAGIC: &[u8] = b"k8s\0";
/// Messages nested deeper than this are refused.
const DEPTH_LIMIT: usize = 64;

/// Reads the object in a body; `schema` is that of its kind.
pub(crate) fn decode(schema: &Schema, body: &[u8]) -> Result<Value, String> {
    let envelope = body.strip_prefix(MAGIC).ok_or("it does not begin with \"k8s\" and a zero")?;
    let (mut version, mut kind, mut object) = (Value::Null, Value::Null, json!({}));
    for field in fields(envelope)? {
        match field {
            (1, Wire::Bytes(meta)) => {
                for field in fields(meta)? {
                    match field {
                        (1, Wire::Bytes(text)) => version = string(text)?,
                        (2, Wire::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => object = message(schema, raw, 0)?,
            _ => {}
        }
    }
    if let Some(map) = object.as_object_mut() {
        for (key, value) in [("apiVersion", version), ("kind", kind)] {
            if value.as_str().is_some_and(|text| !text.is_empty()) {
                map.insert(key.to_owned(), value);
            }
        }
    }
    Ok(object)
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Splits a message into its fields.
fn fields(mut rest: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, String> {
    let mut list = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field number is too large")?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut rest)?),
            1 => Wire::Bytes(take(&mut rest, 8)?),
            2 => {
                let length = varint(&mut rest)?;
                Wire::Bytes(take(&mut rest, length)?)
            }
            5 => Wire::Bytes(take(&mut rest, 4)?),
            other => return Err(format!("unknown wire type {other}")),
        };
        list.push((number, wire));
    }
    Ok(list)
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, left) = rest.split_first().ok_or("it ends within a number")?;
        *rest = left;
        if shift < 64 {
            value |= u64::from(byte & 0x7f) << shift;
        }
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".to_owned())
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], String> {
    let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
    let (taken, left) = rest.split_at(length.ok_or("it ends within a field")?);
    *rest = left;
    Ok(taken)
}

fn string(bytes: &[u8]) -> Result<Value, String> {
    std::str::from_utf8(bytes).map(Value::from).map_err(|_| "a text is not UTF-8".to_owned())
}

fn message(schema: &Schema, bytes: &[u8], depth: usize) -> Result<Value, String> {
    let mut map = Map::new();
    fill(schema, &[], bytes, &mut map, depth)?;
    Ok(Value::Object(map))
}

/// Reads the fields of a message, or of one embedded in it at `place`, into a map.
fn fill(
    schema: &Schema,
    place: &[u32],
    bytes: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > DEPTH_LIMIT {
        return Err("it is nested too deep".to_owned());
    }
    for (number, wire) in fields(bytes)? {
        let path = [place, &[number]].concat();
        let field = schema.wire.iter().find(|field| field.path == path);
        let Some(field) = field else {
            let embeds = schema.wire.iter().any(|field| field.path.starts_with(&path));
            if let (true, Wire::Bytes(bytes)) = (embeds, wire) {
                fill(schema, &path, bytes, map, depth + 1)?;
            }
            continue;
        };
        let Some(kind) = schema.properties.get(&field.name) else { continue };
        match kind.kind {
            Kind::Array => {
                let items = kind.items.as_deref();
                let value = items.map_or(Ok(Value::Null), |items| self::value(items, &wire, depth + 1))?;
                if let Value::Array(list) = map.entry(field.name.clone()).or_insert_with(|| json!([])) {
                    list.push(value);
                }
            }
            Kind::Object if kind.additional.is_some() => {
                let (key, value) = entry(kind, &wire, depth + 1)?;
                if let Value::Object(entries) = map.entry(field.name.clone()).or_insert_with(|| json!({})) {
                    entries.insert(key, value);
                }
            }
            _ => {
                let value = value(kind, &wire, depth + 1)?;
                // What has no pointer is always sent, and means nothing when it is empty.
                if field.significant || !is_zero(&value) {
                    map.insert(field.name.clone(), value);
                }
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn entry(schema: &Schema, wire: &Wire<'_>, depth: usize) -> Result<(String, Value), String> {
    let Wire::Bytes(bytes) = wire else { return Err("a map entry is not a message".to_owned()) };
    let (mut key, mut found) = (String::new(), None);
    let kind = schema.additional.as_deref();
    for (number, wire) in fields(bytes)? {
        match (number, &wire) {
            (1, Wire::Bytes(text)) => string(text)?.as_str().unwrap_or_default().clone_into(&mut key),
            (2, wire) => found = kind.map(|kind| value(kind, wire, depth + 1)).transpose()?,
            _ => {}
        }
    }
    let empty = || match kind.map(|kind| kind.kind) {
        Some(Kind::Quantity) => "0".into(),
        _ => "".into(),
    };
    Ok((key, found.unwrap_or_else(empty)))
}

fn value(schema: &Schema, wire: &Wire<'_>, depth: usize) -> Result<Value, String> {
    match (schema.kind, wire) {
        (Kind::Integer, Wire::Number(number)) => Ok(number.cast_signed().into()),
        (Kind::Boolean, Wire::Number(number)) => Ok((*number != 0).into()),
        (Kind::Number, Wire::Bytes(bytes)) => {
            let bytes: [u8; 8] = (*bytes).try_into().map_err(|_| "a number is not 8 bytes long")?;
            Ok(f64::from_le_bytes(bytes).into())
        }
        (Kind::String, Wire::Bytes(bytes)) => string(bytes),
        (Kind::Bytes, Wire::Bytes(bytes)) => Ok(base64::engine::general_purpose::STANDARD.encode(bytes).into()),
        (Kind::Time, Wire::Bytes(bytes)) => time(bytes, schema.format.as_deref() == Some("microtime")),
        (Kind::Quantity, Wire::Bytes(bytes)) => first_text(bytes),
        (Kind::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes),
        (Kind::Any, Wire::Bytes(bytes)) => raw(bytes),
        (Kind::Object, Wire::Bytes(bytes)) => message(schema, bytes, depth + 1),
        // A list where only one value has its place is a message that holds the list.
        (Kind::Array, Wire::Bytes(bytes)) => {
            let Some(items) = &schema.items else { return Ok(Value::Null) };
            fields(bytes)?.iter().map(|(_, wire)| value(items, wire, depth + 1)).collect()
        }
        _ => Err("a field is of the wrong type".to_owned()),
    }
}

fn first_text(bytes: &[u8]) -> Result<Value, String> {
    for field in fields(bytes)? {
        if let (1, Wire::Bytes(text)) = field {
            return string(text);
        }
    }
    Ok("".into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut text) = (false, 0_u64, Value::from(""));
    for field in fields(bytes)? {
        match field {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(value)) => number = value,
            (3, Wire::Bytes(value)) => text = string(value)?,
            _ => {}
        }
    }
    Ok(if is_text { text } else { number.cast_signed().into() })
}

fn time(bytes: &[u8], micro: bool) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (None, 0);
    for field in fields(bytes)? {
        match field {
            (1, Wire::Number(value)) => seconds = Some(value.cast_signed()),
            (2, Wire::Number(value)) => nanos = i32::try_from(value).map_err(|_| "a time is out of range")?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| "a time is out of range")?;
    Ok(if micro { format!("{time:.6}") } else { super::lifecycle::seconds(time) }.into())
}

/// JSON that is carried as it is.
fn raw(bytes: &[u8]) -> Result<Value, String> {
    for field in fields(bytes)? {
        if let (1, Wire::Bytes(text)) = field {
            return serde_json::from_slice(text).map_err(|_| "embedded JSON cannot be read".to_owned());
        }
    }
    Ok(Value::Null)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::apiserver::schema::TypeTable;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn body(kind: &str, object: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, object)].concat()
    }

    #[test]
    fn a_pod_with_embedded_and_pointed_to_fields() {
        let empty_dir = field(2, b"");
        let volume = [field(1, b"data"), field(2, &empty_dir)].concat();
        let image = [field(1, b"main"), field(2, b"busybox"), field(3, b"sh"), field(14, b"")].concat();
        // terminationGracePeriodSeconds 0 is a pointer, hostNetwork false is not.
        let spec = [field(1, &volume), field(2, &image), vec![4 << 3, 0], vec![11 << 3, 0]].concat();
        let metadata =
            [field(1, b"web"), field(3, b""), field(11, &[field(1, b"app"), field(2, b"x")].concat())].concat();
        let pod = [field(1, &metadata), field(2, &spec), field(3, b"")].concat();
        let read = decode(&TypeTable::load().schema("Pod"), &body("Pod", &pod)).unwrap();
        assert_eq!(
            read,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "x"}},
                "spec": {"volumes": [{"name": "data", "emptyDir": {}}], "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "main", "image": "busybox", "command": ["sh"]}]}})
        );
    }

    #[test]
    fn times_quantities_and_secrets() {
        let types = TypeTable::load();
        let spec = [field(1, b"me"), field(4, &[vec![8, 100], vec![16, 0]].concat())].concat();
        let lease = decode(&types.schema("Lease"), &body("Lease", &field(2, &spec))).unwrap();
        assert_eq!(lease["spec"], json!({"holderIdentity": "me", "renewTime": "1970-01-01T00:01:40.000000Z"}));
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let secret = decode(&types.schema("Secret"), &body("Secret", &field(2, &entry))).unwrap();
        assert_eq!(secret["data"], json!({"k": "dg=="}));
    }

    #[test]
    fn broken_bytes_are_errors() {
        let schema = TypeTable::load().schema("Pod");
        for broken in
            [&b""[..], b"k8s", b"k8s\0\x12\x05a", b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"k8s\0\x0b"]
        {
            assert!(decode(&schema, broken).is_err(), "{broken:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let schema = TypeTable::load().schema("Lease");
            drop(decode(&schema, &[MAGIC, &bytes].concat()));
            drop(decode(&schema, &body("Lease", &bytes[..bytes.len().min(100)])));
        }
    }
}
