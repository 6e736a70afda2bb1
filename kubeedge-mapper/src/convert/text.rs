use base64::{Engine as _, engine::general_purpose::STANDARD};
use kubeedge_core::mapper::{Value, ValueType};

use super::ConvertError;

/// The text of `value` as a twin of type `as_type` has it.
///
/// # Errors
/// [`ConvertError`] if the value cannot be of that type; numbers that are infinite or none at all never can.
pub fn to_text(value: &Value, as_type: ValueType) -> Result<String, ConvertError> {
    Ok(match coerce(value.clone(), as_type)? {
        Value::Int(number) => number.to_string(),
        Value::Float(number) if as_type == ValueType::Float => single_text(number),
        Value::Float(number) => double_text(number),
        Value::Bool(flag) => flag.to_string(),
        Value::Text(text) => text,
        Value::Bytes(bytes) => STANDARD.encode(bytes),
        _ => return Err(ConvertError::Mismatch { found: "a value of an unknown kind", wanted: "text" }),
    })
}

/// The value that `text` stands for.
///
/// # Errors
/// [`ConvertError::Malformed`] names the text.
pub fn parse(text: &str, as_type: ValueType) -> Result<Value, ConvertError> {
    let malformed = |expected| ConvertError::malformed(text, expected);
    match as_type {
        ValueType::Int => text.parse().map(Value::Int).map_err(|_| malformed("a whole number")),
        ValueType::Float | ValueType::Double => {
            let number: f64 = text.parse().map_err(|_| malformed("a number"))?;
            if number.is_finite() { Ok(Value::Float(number)) } else { Err(malformed("a finite number")) }
        }
        ValueType::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Ok(Value::Bool(true)),
            "false" | "f" | "0" => Ok(Value::Bool(false)),
            _ => Err(malformed("true or false")),
        },
        ValueType::String => Ok(Value::Text(text.to_owned())),
        ValueType::Bytes => STANDARD.decode(text).map(Value::Bytes).map_err(|_| malformed("base64")),
        _ => Err(malformed("a value: streams are not read or written as values")),
    }
}

/// The one text that stands for all texts of the same value: `1.50` and `1.5` are both `1.5`.
///
/// # Errors
/// As for [`parse`].
pub fn canonical(text: &str, as_type: ValueType) -> Result<String, ConvertError> {
    to_text(&parse(text, as_type)?, as_type)
}

/// `value` in the shape that a property of type `as_type` has: see the table of the module.
///
/// # Errors
/// [`ConvertError`] if the value cannot be of that type.
pub fn coerce(value: Value, as_type: ValueType) -> Result<Value, ConvertError> {
    if let Value::Float(number) = value
        && !number.is_finite()
    {
        return Err(ConvertError::Mismatch { found: "a number that is not finite", wanted: "a value" });
    }
    let (found, wanted) = (kind(&value), wanted(as_type));
    let mismatch = Err(ConvertError::Mismatch { found, wanted });
    Ok(match (as_type, value) {
        (ValueType::Int, Value::Float(number)) => Value::Int(whole(number)?),
        (ValueType::Int, Value::Bool(flag)) => Value::Int(flag.into()),
        #[expect(clippy::cast_precision_loss, reason = "that is what a floating-point type means")]
        (ValueType::Float | ValueType::Double, Value::Int(number)) => Value::Float(number as f64),
        (ValueType::Float | ValueType::Double, Value::Bool(flag)) => Value::Float(f64::from(u8::from(flag))),
        (ValueType::Boolean, Value::Int(number)) => Value::Bool(number != 0),
        (ValueType::Boolean, Value::Float(number)) => Value::Bool(number != 0.0),
        (ValueType::String, Value::Int(number)) => Value::Text(number.to_string()),
        (ValueType::String, Value::Float(number)) => Value::Text(double_text(number)),
        (ValueType::String, Value::Bool(flag)) => Value::Text(flag.to_string()),
        (ValueType::Bytes, Value::Text(text)) => Value::Bytes(text.into_bytes()),
        (ValueType::Int, value @ Value::Int(_))
        | (ValueType::Float | ValueType::Double, value @ Value::Float(_))
        | (ValueType::Boolean, value @ Value::Bool(_))
        | (ValueType::String, value @ Value::Text(_))
        | (ValueType::Bytes, value @ Value::Bytes(_)) => value,
        // Drivers of text protocols have numbers as text.
        (ValueType::Int | ValueType::Float | ValueType::Double | ValueType::Boolean, Value::Text(text)) => {
            return parse(text.trim(), as_type);
        }
        _ => return mismatch,
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Int(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Bool(_) => "a truth value",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
        _ => "a value of an unknown kind",
    }
}

fn wanted(as_type: ValueType) -> &'static str {
    match as_type {
        ValueType::Int => "INT",
        ValueType::Float => "FLOAT",
        ValueType::Double => "DOUBLE",
        ValueType::String => "STRING",
        ValueType::Boolean => "BOOLEAN",
        ValueType::Bytes => "BYTES",
        _ => "a value: streams are not read or written as values",
    }
}

/// The whole part of a finite number.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the range is checked")]
fn whole(number: f64) -> Result<i64, ConvertError> {
    let cut = number.trunc();
    // 2^63 itself is a float, 2^63 - 1 is not.
    if cut >= i64::MIN as f64 && cut < -(i64::MIN as f64) {
        Ok(cut as i64)
    } else {
        Err(ConvertError::NoRoom { value: double_text(number), room: "64 bits".to_owned() })
    }
}

/// Rust prints floats as the shortest decimal that reads back as the same float, and never with an exponent.
fn double_text(number: f64) -> String {
    if number == 0.0 { "0".to_owned() } else { number.to_string() }
}

#[expect(clippy::cast_possible_truncation, reason = "single precision is what the type says")]
fn single_text(number: f64) -> String {
    let single = number as f32;
    // What single precision cannot hold keeps its digits rather than becoming zero or infinity.
    if single.is_finite() && single != 0.0 { single.to_string() } else { double_text(number) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_no_exponent_and_no_negative_zero() {
        assert_eq!(to_text(&Value::Float(1e-5), ValueType::Double).unwrap(), "0.00001");
        assert_eq!(to_text(&Value::Float(1e20), ValueType::Double).unwrap(), "100000000000000000000");
        assert_eq!(to_text(&Value::Float(-0.0), ValueType::Float).unwrap(), "0");
        assert_eq!(to_text(&Value::Float(f64::from(21.3_f32)), ValueType::Float).unwrap(), "21.3");
        assert_eq!(to_text(&Value::Float(21.3), ValueType::Double).unwrap(), "21.3");
        assert_eq!(to_text(&Value::Float(1e-60), ValueType::Float).unwrap(), format!("0.{}1", "0".repeat(59)));
    }

    #[test]
    fn values_take_the_type_of_the_model() {
        assert_eq!(to_text(&Value::Float(-2.9), ValueType::Int).unwrap(), "-2");
        assert_eq!(to_text(&Value::Bool(true), ValueType::Int).unwrap(), "1");
        assert_eq!(to_text(&Value::Int(7), ValueType::Boolean).unwrap(), "true");
        assert_eq!(to_text(&Value::Int(7), ValueType::Double).unwrap(), "7");
        assert_eq!(to_text(&Value::Text(" 4.50 ".into()), ValueType::Double).unwrap(), "4.5");
        assert_eq!(to_text(&Value::Bytes(vec![0, 255]), ValueType::Bytes).unwrap(), "AP8=");
        let err = to_text(&Value::Bytes(vec![1]), ValueType::Int).unwrap_err();
        assert_eq!(err.to_string(), "bytes cannot be INT");
        assert!(to_text(&Value::Float(f64::NAN), ValueType::String).is_err());
        assert!(to_text(&Value::Float(9.3e18), ValueType::Int).is_err());
    }

    #[test]
    fn a_bad_text_is_named() {
        assert_eq!(parse("warm", ValueType::Float).unwrap_err().to_string(), "\"warm\" is not a number");
        assert_eq!(parse("1.5", ValueType::Int).unwrap_err().to_string(), "\"1.5\" is not a whole number");
        assert_eq!(parse("", ValueType::Boolean).unwrap_err().to_string(), "\"\" is not true or false");
        assert!(parse("inf", ValueType::Double).is_err());
        assert!(parse("NaN", ValueType::Double).is_err());
        assert!(parse("%%", ValueType::Bytes).is_err());
        assert!(parse("x", ValueType::Stream).is_err());
        assert_eq!(parse(&"9".repeat(1 << 20), ValueType::Int).unwrap_err().to_string().len(), 128 + 24);
    }

    #[test]
    fn texts_of_the_same_value_are_the_same() {
        assert_eq!(canonical("1.50", ValueType::Float).unwrap(), "1.5");
        assert_eq!(canonical("+7", ValueType::Int).unwrap(), "7");
        assert_eq!(canonical("T", ValueType::Boolean).unwrap(), "true");
        assert_eq!(canonical("1e3", ValueType::Double).unwrap(), "1000");
    }

    proptest! {
        #[test]
        fn double_texts_come_back(number in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL) {
            let text = to_text(&Value::Float(number), ValueType::Double).unwrap();
            prop_assert!(!text.contains(['e', 'E']));
            prop_assert_eq!(parse(&text, ValueType::Double).unwrap(), Value::Float(number));
        }

        #[test]
        fn single_texts_come_back(number in prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL) {
            let text = to_text(&Value::Float(number.into()), ValueType::Float).unwrap();
            prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), number.to_bits());
            prop_assert_eq!(canonical(&text, ValueType::Float).unwrap(), text);
        }

        #[test]
        fn other_texts_come_back(number: i64, flag: bool, text: String, bytes: Vec<u8>) {
            for (value, as_type) in [
                (Value::Int(number), ValueType::Int),
                (Value::Bool(flag), ValueType::Boolean),
                (Value::Text(text), ValueType::String),
                (Value::Bytes(bytes), ValueType::Bytes),
            ] {
                prop_assert_eq!(parse(&to_text(&value, as_type).unwrap(), as_type).unwrap(), value);
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            for as_type in [ValueType::Int, ValueType::Float, ValueType::Double, ValueType::Boolean, ValueType::Bytes] {
                if let Ok(once) = canonical(&text, as_type) {
                    prop_assert_eq!(canonical(&once, as_type).unwrap(), once);
                }
            }
        }
    }
}
