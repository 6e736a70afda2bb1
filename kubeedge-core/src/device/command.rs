//! Commands: what is asked of a device at once, and its answer. Ours; upstream's devices know only desired values.
//!
//! Over MQTT a command is published on [`DeviceTopic::Command`](crate::topic::DeviceTopic::Command), and answered on
//! [`DeviceTopic::CommandResult`](crate::topic::DeviceTopic::CommandResult); from the cloud it comes as a message about
//! [`Resource::DeviceCommand`](crate::resource::Resource::DeviceCommand), which only a node of ours answers.
//!
//! ```json
//! {"event_id": "1", "write": {"threshold": "46"}, "read": ["temperature"], "timeout": 5000}
//! {"event_id": "1", "timestamp": 1795231816393, "values": {"temperature": {"value": "25.5", "timestamp": 1795231816390}}}
//! {"event_id": "1", "timestamp": 1795231816393, "code": 504, "reason": "property temperature: no answer in time"}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{PropertyName, UnixMillis};

/// Most properties of one command.
pub const MAX_PROPERTIES: usize = 256;

/// A command. What is written is written first, one property after the other in the order of their names; then what is
/// asked for is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceCommand {
    /// Chosen by the sender, and repeated in the answer.
    pub event_id: String,
    /// Method of the Device whose properties are written; no others may be then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Values to write, as text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub write: BTreeMap<PropertyName, String>,
    /// Properties to read. What was written is part of the answer anyway.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<PropertyName>,
    /// Milliseconds after which the answer is an error; 0 for 10 seconds, and at most 50 seconds.
    pub timeout: u64,
    /// When it was sent; not looked at.
    #[serde(skip_serializing)]
    pub timestamp: i64,
}

/// The answer to a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandResult {
    /// That of the command.
    pub event_id: String,
    /// When it was answered.
    pub timestamp: UnixMillis,
    /// What the device has, as far as the command was carried out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<PropertyName, CommandValue>,
    /// As a status of HTTP, if something failed: 400 for what is not acceptable, 404 for what is not there, 429, 503 for a
    /// device that is offline, 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// What failed; empty if nothing did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A value in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandValue {
    /// The value, as text.
    pub value: String,
    /// When the device had it.
    pub timestamp: UnixMillis,
}

impl CommandResult {
    /// An answer that nothing was done.
    pub fn refused(event_id: &str, at: UnixMillis, code: u16, reason: impl Into<String>) -> Self {
        let (event_id, reason) = (event_id.to_owned(), reason.into());
        Self { event_id, timestamp: at, values: BTreeMap::new(), code: Some(code), reason }
    }

    /// Whether all was done.
    pub fn is_done(&self) -> bool {
        self.code.is_none()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn commands_are_read_and_unknown_members_are_named() {
        let command: DeviceCommand =
            serde_json::from_str(r#"{"event_id":"1","write":{"threshold":"46"},"read":["t"],"timestamp":5}"#).unwrap();
        assert_eq!(command.write.len() + command.read.len(), 2);
        let error = serde_json::from_str::<DeviceCommand>(r#"{"reed":["t"]}"#).unwrap_err().to_string();
        assert!(error.contains("reed"), "{error}");
    }

    #[test]
    fn an_answer_says_only_what_there_is() {
        let done = CommandResult { event_id: "1".into(), timestamp: UnixMillis(7), ..CommandResult::default() };
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"event_id":"1","timestamp":7}"#);
        let refused = CommandResult::refused("1", UnixMillis(7), 404, "no");
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"event_id":"1","timestamp":7,"code":404,"reason":"no"}"#
        );
    }
}
