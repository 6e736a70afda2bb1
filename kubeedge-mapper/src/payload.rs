//! Payloads of text protocols: values in them, and templates for them.

use kubeedge_core::{
    mapper::{Value, ValueType},
    names::{DeviceId, PropertyName, UnixMillis},
};
use serde_json::Value as Json;

use crate::convert::{self, ConvertError};

/// The value in `payload`: what the JSON pointer (RFC 6901) leads to, or without one the whole of it.
pub(crate) fn extract(payload: &[u8], pointer: Option<&str>) -> Result<Value, ConvertError> {
    let Some(pointer) = pointer else {
        return Ok(match std::str::from_utf8(payload) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(payload.to_vec()),
        });
    };
    let mismatch = |found| ConvertError::Mismatch { found, wanted: "the value at the pointer" };
    let json: Json = serde_json::from_slice(payload).map_err(|_| mismatch("a payload that is no JSON"))?;
    match json.pointer(pointer) {
        Some(Json::String(text)) => Ok(Value::Text(text.clone())),
        Some(Json::Bool(flag)) => Ok(Value::Bool(*flag)),
        Some(Json::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Value::Int(whole)),
            (None, Some(float)) => Ok(Value::Float(float)),
            (None, None) => Err(mismatch("a number out of range")),
        },
        Some(part @ (Json::Array(_) | Json::Object(_))) => Ok(Value::Text(part.to_string())),
        Some(Json::Null) => Err(mismatch("null")),
        None => Err(mismatch("a payload without it")),
    }
}

/// A text with places for a value: `{value}` for its text, `{json}` for it as JSON, `{device}`, `{property}`, and `{time}`
/// for milliseconds since 1970. Other braces stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(String);

impl Template {
    pub(crate) fn new(text: Option<String>) -> Self {
        Self(text.unwrap_or_else(|| "{value}".to_owned()))
    }

    /// Whether it is for JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.0.trim_start().starts_with(['{', '[']) && !self.0.starts_with("{value}") || self.0.contains("{json}")
    }

    pub(crate) fn render(
        &self,
        value: &Value,
        device: &DeviceId,
        property: &PropertyName,
        at: UnixMillis,
    ) -> Result<Vec<u8>, ConvertError> {
        if let (Value::Bytes(bytes), "{value}") = (value, self.0.as_str()) {
            return Ok(bytes.clone());
        }
        let mut filled = String::new();
        let mut rest = self.0.as_str();
        while let Some(brace) = rest.find('{') {
            filled.push_str(&rest[..brace]);
            rest = &rest[brace..];
            let end = rest.find('}').map_or(rest.len(), |end| end + 1);
            match &rest[..end] {
                "{value}" => filled.push_str(&plain(value)?),
                "{json}" => filled.push_str(&json(value)?),
                "{device}" => filled.push_str(&device.to_string()),
                "{property}" => filled.push_str(property.as_str()),
                "{time}" => filled.push_str(&at.to_string()),
                _ => {
                    filled.push('{');
                    rest = &rest[1..];
                    continue;
                }
            }
            rest = &rest[end..];
        }
        filled.push_str(rest);
        Ok(filled.into_bytes())
    }
}

fn plain(value: &Value) -> Result<String, ConvertError> {
    match value {
        Value::Bytes(_) => convert::to_text(value, ValueType::Bytes),
        value => convert::to_text(value, ValueType::String),
    }
}

fn json(value: &Value) -> Result<String, ConvertError> {
    Ok(match value {
        Value::Text(_) | Value::Bytes(_) => Json::String(plain(value)?).to_string(),
        // The text of a number or truth value is JSON.
        value => plain(value)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_found_in_payloads() {
        let payload = br#"{"sensors": [{"t": 21.5, "on": true, "name": "a/b", "n": -3}], "gone": null}"#;
        let at = |pointer| extract(payload, Some(pointer));
        assert_eq!(at("/sensors/0/t"), Ok(Value::Float(21.5)));
        assert_eq!(at("/sensors/0/on"), Ok(Value::Bool(true)));
        assert_eq!(at("/sensors/0/name"), Ok(Value::Text("a/b".into())));
        assert_eq!(at("/sensors/0/n"), Ok(Value::Int(-3)));
        assert!(at("/gone").is_err() && at("/sensors/1").is_err() && extract(b"{", Some("/a")).is_err());
        assert_eq!(extract(b"21.5", None), Ok(Value::Text("21.5".into())));
        assert_eq!(extract(b"21.5", Some("")), Ok(Value::Float(21.5)));
        assert_eq!(extract(&[0xFF], None), Ok(Value::Bytes(vec![0xFF])));
    }

    #[test]
    fn templates_are_filled() {
        let fill = |text: &str, value: Value| {
            let (device, property) = ("default/d".parse().unwrap(), "p".parse().unwrap());
            let filled = Template::new(Some(text.into())).render(&value, &device, &property, UnixMillis(7)).unwrap();
            String::from_utf8(filled).unwrap()
        };
        assert_eq!(
            fill(r#"{"{property}": {json}, "at": {time}}"#, Value::Text("a\"b".into())),
            r#"{"p": "a\"b", "at": 7}"#
        );
        assert_eq!(fill("set {device} {value}", Value::Float(21.5)), "set default/d 21.5");
        assert_eq!(fill(r#"{"on": {json}, "x": {{value}"#, Value::Bool(true)), r#"{"on": true, "x": {true"#);
        assert_eq!(fill("{unknown} {", Value::Int(1)), "{unknown} {");
        let bytes = Template::new(None).render(
            &Value::Bytes(vec![255]),
            &"a/b".parse().unwrap(),
            &"p".parse().unwrap(),
            UnixMillis(0),
        );
        assert_eq!(bytes.unwrap(), [255]);
        assert!(Template::new(Some("{\"a\": {value}}".into())).is_json() && !Template::new(None).is_json());
    }
}
