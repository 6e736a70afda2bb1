use kubeedge_core::mapper::{Value, ValueType};

use super::ConvertError;

/// Least and greatest number that may be written. Values that are no numbers have no limits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// The least, if there is one.
    pub minimum: Option<f64>,
    /// The greatest, if there is one.
    pub maximum: Option<f64>,
}

impl Limits {
    /// Reads the limits of a device model; an empty text is no limit, and types that are no numbers have none.
    ///
    /// # Errors
    /// [`ConvertError::Malformed`] names the text.
    pub fn parse(minimum: &str, maximum: &str, value_type: ValueType) -> Result<Self, ConvertError> {
        if !matches!(value_type, ValueType::Int | ValueType::Float | ValueType::Double) {
            return Ok(Self::default());
        }
        Ok(Self { minimum: bound(minimum)?, maximum: bound(maximum)? })
    }

    /// Checks `value`.
    ///
    /// # Errors
    /// [`ConvertError::Below`] or [`ConvertError::Above`] names the value and the limit.
    pub fn check(&self, value: &Value) -> Result<(), ConvertError> {
        let value = match value {
            #[expect(clippy::cast_precision_loss, reason = "limits are written by people, far below 2^53")]
            Value::Int(number) => *number as f64,
            Value::Float(number) => *number,
            _ => return Ok(()),
        };
        match *self {
            Self { minimum: Some(minimum), .. } if value < minimum => Err(ConvertError::Below { value, minimum }),
            Self { maximum: Some(maximum), .. } if value > maximum => Err(ConvertError::Above { value, maximum }),
            _ => Ok(()),
        }
    }
}

fn bound(text: &str) -> Result<Option<f64>, ConvertError> {
    match text.trim() {
        "" => Ok(None),
        text => match text.parse::<f64>() {
            Ok(number) if !number.is_nan() => Ok(Some(number)),
            _ => Err(ConvertError::malformed(text, "a number, as a limit has to be")),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn limits_are_inclusive_and_named() {
        let limits = Limits::parse("5", " 80.5 ", ValueType::Float).unwrap();
        assert_eq!(limits.check(&Value::Float(80.5)), Ok(()));
        assert_eq!(limits.check(&Value::Int(5)), Ok(()));
        assert_eq!(limits.check(&Value::Float(95.0)).unwrap_err().to_string(), "95 is above the maximum 80.5");
        assert_eq!(limits.check(&Value::Int(-1)).unwrap_err().to_string(), "-1 is below the minimum 5");
        assert_eq!(limits.check(&Value::Text("x".into())), Ok(()));
    }

    #[test]
    fn only_numbers_have_limits() {
        assert_eq!(Limits::parse("off", "on", ValueType::Boolean), Ok(Limits::default()));
        assert_eq!(Limits::parse("", "", ValueType::Int), Ok(Limits::default()));
        assert!(Limits::parse("low", "", ValueType::Int).unwrap_err().to_string().starts_with("\"low\" is not"));
    }
}
