//! Settings on their way through DMI: JSON values as wrappers of protobuf in an `Any`, and back.
//!
//! Mappers made with the Go framework understand `StringValue`, `BoolValue`, `FloatValue`, `Int32Value` and
//! `Int64Value`, and overlook every other type without a word. So these are what is sent:
//!
//! | JSON | wrapper |
//! |---|---|
//! | text | `StringValue` |
//! | true, false | `BoolValue` |
//! | number that 32-bit floating point has exactly | `FloatValue`, as Go sends it |
//! | other whole number | `Int64Value`; as text if it does not fit |
//! | other number | `FloatValue`, the nearest one, as Go sends it: it keeps seven digits, and a text in its place would not be taken as a number. As text if it is beyond 32-bit floating point |
//! | object, array | `StringValue` with the JSON; Go refuses the whole device |
//! | null | left out; Go refuses the whole device |
//!
//! Upstream: `edge/pkg/devicetwin/dtcommon/util.go` and `mapper-framework/pkg/util/parse`.

use prost::Message;
use serde_json::{Number, Value};

use super::wire::{Any, CustomizedValue};
use kubeedge_core::device::ConfigData;

const PREFIX: &str = "type.googleapis.com/google.protobuf.";

pub(super) fn from_config(config: &ConfigData) -> CustomizedValue {
    let data = config.iter().filter_map(|(key, value)| Some((key.clone(), from_json(value)?)));
    CustomizedValue { data: data.collect() }
}

/// What is of no known type is left out, with a warning.
pub(super) fn to_config(values: Option<&CustomizedValue>) -> ConfigData {
    let values = values.into_iter().flat_map(|values| &values.data);
    let known = |(key, any): (&String, &Any)| {
        let value = to_json(any);
        if value.is_none() {
            tracing::warn!(setting = key, r#type = any.type_url, "setting has a type that is not understood");
        }
        Some((key.clone(), value?))
    };
    values.filter_map(known).collect()
}

fn from_json(value: &Value) -> Option<Any> {
    Some(match value {
        Value::Null => return None,
        Value::String(text) => wrap("StringValue", text),
        Value::Bool(flag) => wrap("BoolValue", flag),
        Value::Number(number) => from_number(number),
        Value::Array(_) | Value::Object(_) => wrap("StringValue", &value.to_string()),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest one is what is asked for")]
fn from_number(number: &Number) -> Any {
    let whole = number.as_i64();
    let nearest = number.as_f64().unwrap_or(f64::INFINITY) as f32;
    let exact = match whole {
        Some(whole) => is_exact(whole, nearest),
        None => nearest.is_finite(),
    };
    match (exact, whole, number.is_u64()) {
        (true, _, false) | (true, Some(_), true) => wrap("FloatValue", &nearest),
        (false, Some(whole), _) => wrap("Int64Value", &whole),
        _ => wrap("StringValue", &number.to_string()),
    }
}

/// Up to 24 bits are exact, and so are larger numbers that end in as many zeros.
fn is_exact(whole: i64, nearest: f32) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "compared as integers of 128 bits, which hold either")]
    let back = f64::from(nearest) as i128;
    back == i128::from(whole)
}

fn to_json(any: &Any) -> Option<Value> {
    // Any prefix is allowed before the last slash.
    let name = any.type_url.rsplit('/').next()?.strip_prefix("google.protobuf.")?;
    let value = any.value.as_slice();
    match name {
        "StringValue" => String::decode(value).ok().map(Value::String),
        "BoolValue" => bool::decode(value).ok().map(Value::Bool),
        "Int32Value" => i32::decode(value).ok().map(Value::from),
        "Int64Value" => i64::decode(value).ok().map(Value::from),
        "UInt32Value" => u32::decode(value).ok().map(Value::from),
        "UInt64Value" => u64::decode(value).ok().map(Value::from),
        "DoubleValue" => f64::decode(value).ok().and_then(to_number),
        // 0.1 was meant, not the 0.10000000149 that is nearest to it.
        "FloatValue" => f32::decode(value).ok().and_then(|number| to_number(number.to_string().parse().ok()?)),
        _ => None,
    }
}

/// Whole numbers as such: drivers ask for the number 1, not 1.0.
fn to_number(number: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and fits")]
        return Some(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number)
}

fn wrap(name: &str, value: &impl Message) -> Any {
    Any { type_url: format!("{PREFIX}{name}"), value: value.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn kind(value: &Value) -> Option<String> {
        from_json(value).map(|any| any.type_url.strip_prefix(PREFIX).unwrap().to_owned())
    }

    fn around(value: &Value) -> Value {
        to_json(&from_json(value).unwrap()).unwrap()
    }

    #[test]
    fn numbers_keep_their_value_in_types_that_go_mappers_know() {
        for (number, name) in [
            (json!(7), "FloatValue"),
            (json!(0), "FloatValue"),
            (json!(-1000), "FloatValue"),
            (json!(16_777_216), "FloatValue"),
            (json!(16_777_217), "Int64Value"),
            (json!(i64::MAX), "Int64Value"),
            (json!(i64::MIN), "FloatValue"),
            (json!(u64::MAX), "StringValue"),
            (json!(0.1), "FloatValue"),
            (json!(1e300), "StringValue"),
        ] {
            assert_eq!(kind(&number).as_deref(), Some(name), "{number}");
        }
        assert_eq!(around(&json!(16_777_217)), json!(16_777_217));
        assert_eq!(around(&json!(0.1)), json!(0.1));
        assert_eq!(around(&json!(7)), json!(7), "a whole number comes back as one");
        assert_eq!(around(&json!(u64::MAX)), json!(u64::MAX.to_string()));
    }

    #[test]
    fn what_go_refuses_is_carried_as_text_or_left_out() {
        let config: ConfigData =
            serde_json::from_value(json!({"list": [1, "a"], "none": null, "data": "x", "map": {"a": true}})).unwrap();
        let back = to_config(Some(&from_config(&config)));
        assert_eq!(Value::Object(back), json!({"list": "[1,\"a\"]", "data": "x", "map": "{\"a\":true}"}));
        assert!(to_config(None).is_empty());
    }

    #[test]
    fn wrappers_of_others_are_understood_and_unknown_types_left_out() {
        let values = [
            ("int", "type.googleapis.com/google.protobuf.Int32Value", 5_i32.encode_to_vec()),
            ("double", "example.com/google.protobuf.DoubleValue", 0.25_f64.encode_to_vec()),
            ("nan", "type.googleapis.com/google.protobuf.FloatValue", f32::NAN.encode_to_vec()),
            ("struct", "type.googleapis.com/google.protobuf.Struct", vec![]),
            ("noise", "type.googleapis.com/google.protobuf.StringValue", vec![0xff, 0xff]),
        ];
        let data = values.map(|(key, url, value)| (key.to_owned(), Any { type_url: url.to_owned(), value })).into();
        assert_eq!(Value::Object(to_config(Some(&CustomizedValue { data }))), json!({"int": 5, "double": 0.25}));
    }

    proptest! {
        #[test]
        fn whole_numbers_and_texts_come_back_as_they_were(number in any::<i64>(), text in ".{0,20}") {
            prop_assert_eq!(around(&json!(number)).to_string(), number.to_string());
            prop_assert_eq!(around(&json!(text.clone())), json!(text));
        }
    }
}
