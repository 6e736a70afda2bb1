//! Reading of [`ConfigData`] as people and Go programs write it.
//!
//! Keys match whatever their case (`slaveID`, `slaveId`), numbers and truth values may be texts (`"502"`, `"true"`),
//! and `null` and `""` mean that a setting is not there, because Go senders write out what was left empty. An error
//! names the setting and what it says: ``setting port is "abc": must be a whole number from 1 to 65535``.

use std::fmt::Display;

use kubeedge_core::{device::ConfigData, mapper::DriverError};
use serde_json::Value;

/// Settings of a device or of a visitor, for the driver of a protocol.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a>(&'a ConfigData);

impl<'a> Settings<'a> {
    /// Reads from `config`.
    pub fn new(config: &'a ConfigData) -> Self {
        Self(config)
    }

    fn find(self, key: &str) -> Option<&'a Value> {
        let found = self
            .0
            .get(key)
            .or_else(|| self.0.iter().find_map(|(other, value)| other.eq_ignore_ascii_case(key).then_some(value)));
        found.filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    /// Whether the setting is there.
    pub fn has(self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// The error of a setting: `reason` completes "setting KEY is VALUE: ...".
    pub fn wrong(self, key: &str, reason: impl Display) -> DriverError {
        let value = self.find(key).map_or_else(|| "missing".to_owned(), ToString::to_string);
        DriverError::Config {
            field: key.to_owned(),
            value: value.chars().take(128).collect(),
            reason: reason.to_string(),
        }
    }

    /// A text; a number or truth value counts as its text.
    ///
    /// # Errors
    /// [`DriverError::Config`] for a list or an object.
    pub fn text(self, key: &str) -> Result<Option<String>, DriverError> {
        match self.find(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Some(_) => Err(self.wrong(key, "must be a text")),
        }
    }

    /// A whole number from `least` to `most`.
    ///
    /// # Errors
    /// [`DriverError::Config`] if it is none, or outside of the range.
    pub fn whole<T>(self, key: &str, least: T, most: T) -> Result<Option<T>, DriverError>
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let Some(value) = self.find(key) else { return Ok(None) };
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            value => value.as_i64(),
        };
        match number.and_then(|number: i64| T::try_from(number).ok()) {
            Some(number) if number >= least && number <= most => Ok(Some(number)),
            _ => Err(self.wrong(key, format_args!("must be a whole number from {least} to {most}"))),
        }
    }

    /// A finite number.
    ///
    /// # Errors
    /// [`DriverError::Config`] if it is none.
    pub fn number(self, key: &str) -> Result<Option<f64>, DriverError> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            value => value.as_f64(),
        };
        match number.filter(|number: &f64| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, "must be a number")),
        }
    }

    /// A JSON pointer (RFC 6901).
    ///
    /// # Errors
    /// [`DriverError::Config`] if it is none.
    pub fn pointer(self, key: &str) -> Result<Option<String>, DriverError> {
        match self.text(key)? {
            Some(pointer) if !pointer.starts_with('/') => {
                Err(self.wrong(key, "must start with / as a JSON pointer does"))
            }
            pointer => Ok(pointer),
        }
    }

    /// Pairs in their order: an object of texts, or `left=right,left=right` for peers that carry only flat settings.
    ///
    /// # Errors
    /// [`DriverError::Config`] if it is neither.
    pub fn pairs(self, key: &str) -> Result<Vec<(String, String)>, DriverError> {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        let pairs: Option<Vec<_>> = match self.find(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(object)) => {
                object.iter().map(|(left, right)| Some((left.trim().to_owned(), text(right)?))).collect()
            }
            Some(Value::String(list)) => {
                let pair = |pair: &str| pair.split_once('=').map(|(l, r)| (l.trim().to_owned(), r.trim().to_owned()));
                list.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect()
            }
            Some(_) => None,
        };
        pairs.ok_or_else(|| self.wrong(key, "must be pairs as in 0=off,1=on, or an object"))
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`DriverError::Config`] if it is none.
    pub fn flag(self, key: &str) -> Result<Option<bool>, DriverError> {
        match self.text(key)?.map(|text| text.to_ascii_lowercase()).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(self.wrong(key, "must be true or false")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn config(value: &Value) -> ConfigData {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn keys_of_any_case_and_numbers_as_text() {
        let config =
            config(&json!({"SlaveId": "7", "PORT": 502, "isSwap": "True", "scale": "0.1", "ip": "", "x": null}));
        let settings = Settings::new(&config);
        assert_eq!(settings.whole("slaveID", 0_u8, 255).unwrap(), Some(7));
        assert_eq!(settings.whole("port", 1_u16, 65535).unwrap(), Some(502));
        assert_eq!(settings.text("port").unwrap().as_deref(), Some("502"));
        assert_eq!(settings.flag("isswap").unwrap(), Some(true));
        assert_eq!(settings.number("Scale").unwrap(), Some(0.1));
        assert_eq!(settings.text("ip").unwrap(), None);
        assert_eq!(settings.text("x").unwrap(), None);
        assert_eq!(settings.flag("absent").unwrap(), None);
    }

    #[test]
    fn errors_name_the_setting_and_the_value() {
        let config = config(&json!({"port": "abc", "slaveID": 300, "isSwap": "maybe", "scale": {}, "ip": [1]}));
        let settings = Settings::new(&config);
        assert_eq!(
            settings.whole("port", 1_u16, 65535).unwrap_err().to_string(),
            "setting port is \"abc\": must be a whole number from 1 to 65535"
        );
        assert!(settings.whole("slaveID", 0_u8, 255).unwrap_err().to_string().starts_with("setting slaveID is 300: "));
        assert!(settings.flag("isSwap").is_err());
        assert!(settings.number("scale").is_err());
        assert!(settings.text("ip").is_err());
        assert_eq!(settings.wrong("absent", "is needed").to_string(), "setting absent is missing: is needed");
    }

    #[test]
    fn pairs_are_an_object_or_a_list() {
        let config = config(&json!({"a": "X-Key=1, b = c=d ,", "b": {"x": 1, "y": true}, "c": "x", "d": {"x": []}}));
        let settings = Settings::new(&config);
        let own = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(l, r)| ((*l).to_owned(), (*r).to_owned())).collect()
        };
        assert_eq!(settings.pairs("a").unwrap(), own(&[("X-Key", "1"), ("b", "c=d")]));
        assert_eq!(settings.pairs("b").unwrap(), own(&[("x", "1"), ("y", "true")]));
        assert_eq!(settings.pairs("absent").unwrap(), own(&[]));
        assert!(settings.pairs("c").is_err() && settings.pairs("d").is_err());
    }
}
