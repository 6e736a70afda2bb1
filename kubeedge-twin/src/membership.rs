//! Which devices the node has, as the cloud tells it.
//!
//! Upstream: `edge/pkg/devicetwin/dtmanager/membership.go`.

use std::collections::BTreeMap;

use kubeedge_core::{
    message::{Content, ContentError},
    names::{DeviceId, PropertyName},
    twin::TwinError,
};
use serde_json::Value;

use crate::{
    payload::{self, Fields, Unreadable},
    reduce::PropertySync,
};

/// Why a membership message was not carried out in full.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// The message cannot be understood: nothing was done, and nothing will be if it comes again.
    #[error("membership cannot be understood")]
    Invalid(#[from] InvalidMembership),
    /// The devices could not be stored. Those before are done; the same message may be tried again.
    #[error("membership cannot be applied")]
    Twins(#[from] TwinError),
}

/// What is wrong with a membership message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMembership {
    /// It is about something else.
    #[error("resource {0:?} is neither membership nor membership/detail")]
    Resource(String),
    /// Its content is not JSON.
    #[error("its content is not JSON")]
    Content(#[source] ContentError),
    /// A field is not what it should be.
    #[error("{field} {value:?} is not usable")]
    Field {
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
    },
}

/// A device in a membership message.
#[derive(Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) id: DeviceId,
    pub(crate) description: Option<String>,
    pub(crate) twin: BTreeMap<PropertyName, PropertySync>,
}

/// Reads the lists of `names`; one that is `null` or missing is empty.
pub(crate) fn members<const N: usize>(
    content: &Content,
    names: [&'static str; N],
) -> Result<[Vec<Member>; N], InvalidMembership> {
    let content: Value = content.parse().map_err(InvalidMembership::Content)?;
    let fields = Fields::of(&content).ok_or_else(|| invalid("content", &content))?;
    let mut lists = names.map(|_| Vec::new());
    for (list, name) in lists.iter_mut().zip(names) {
        let Some(found) = fields.member(name) else { continue };
        for device in found.as_array().ok_or_else(|| invalid(name, found))? {
            list.push(member(device)?);
        }
    }
    Ok(lists)
}

fn member(device: &Value) -> Result<Member, InvalidMembership> {
    let fields = Fields::of(device).ok_or_else(|| invalid("device", device))?;
    let text = |name| fields.text(name).map_err(|_| invalid(name, device));
    let id = text("id")?.and_then(|id| id.parse().ok()).ok_or_else(|| invalid("id", device))?;
    let description = text("description")?.map(str::to_owned);
    let sync = |property: Option<Fields<'_>>| -> Result<PropertySync, Unreadable> {
        property.map(payload::property_sync).transpose().map(Option::unwrap_or_default)
    };
    let twin = match fields.member("twin") {
        Some(twin) => payload::twin(twin, sync).map_err(|_| invalid("twin", twin))?,
        None => BTreeMap::new(),
    };
    Ok(Member { id, description, twin })
}

fn invalid(field: &'static str, value: &Value) -> InvalidMembership {
    // A line of it is enough to find it.
    InvalidMembership::Field { field, value: value.to_string().chars().take(128).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn content(json: &str) -> Content {
        Content::raw(serde_json::value::RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn lists_are_read_and_null_is_empty() {
        let json = r#"{"event_id":"e","timestamp":1,"removed_devices":null,
            "added_devices":[{"id":"default/temp-1","name":"temp-1","description":"TempSensor"}]}"#;
        let [added, removed] = members(&content(json), ["added_devices", "removed_devices"]).unwrap();
        let id = "default/temp-1".parse().unwrap();
        let description = Some("TempSensor".to_owned());
        assert_eq!(added, [Member { id, description, twin: BTreeMap::new() }]);
        assert!(removed.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |json| members(&content(json), ["devices"]).unwrap_err().to_string();
        assert_eq!(error(r#"{"devices":[{"id":"temp-1"}]}"#), r#"id "{\"id\":\"temp-1\"}" is not usable"#);
        assert_eq!(error(r#"{"devices":7}"#), r#"devices "7" is not usable"#);
        assert_eq!(error("[]"), r#"content "[]" is not usable"#);
    }
}
