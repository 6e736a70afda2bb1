use std::collections::BTreeMap;

use kubeedge_core::{device::DeviceState, names::PropertyName, twin::TwinVersion};
use serde_json::{Map, Value};

use super::Refusal;
use crate::{
    reduce::{PropertySync, PropertyUpdate, Rejected, SyncedValue},
    value::{DELETED_TYPE, check_key},
};

/// Largest body that is read.
const MAX_BODY_LEN: usize = 1024 * 1024;

const NOT_READ: &str = "Unmarshal update request body failed, please check the request";
const NO_TWIN: &str = "Update twin error, key:twin does not exist";

/// Why a body cannot be read, in the words of the parser.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(String);

/// The members of an object whose names count in any case, as Go reads them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(crate) fn of(value: &'a Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    /// The member called `name`; the exact name wins, and `null` is as good as nothing.
    pub(crate) fn member(self, name: &str) -> Option<&'a Value> {
        let found = self
            .0
            .get(name)
            .or_else(|| self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value));
        found.filter(|value| !value.is_null())
    }

    pub(crate) fn text(self, name: &str) -> Result<Option<&'a str>, Unreadable> {
        self.typed(name, "text", Value::as_str)
    }

    fn flag(self, name: &str) -> Result<Option<bool>, Unreadable> {
        self.typed(name, "true or false", Value::as_bool)
    }

    fn number(self, name: &str) -> Result<Option<i64>, Unreadable> {
        self.typed(name, "a whole number", Value::as_i64)
    }

    fn object(self, name: &str) -> Result<Option<Fields<'a>>, Unreadable> {
        self.typed(name, "an object", Fields::of)
    }

    fn typed<T>(self, name: &str, what: &str, read: fn(&'a Value) -> Option<T>) -> Result<Option<T>, Unreadable> {
        let read = |value| read(value).ok_or_else(|| Unreadable(format!("{name} is not {what}")));
        self.member(name).map(read).transpose()
    }
}

fn parse(body: &[u8]) -> Result<Value, Unreadable> {
    if body.len() > MAX_BODY_LEN {
        return Err(Unreadable(format!("the body has {} bytes, more than {MAX_BODY_LEN}", body.len())));
    }
    serde_json::from_slice(body).map_err(|error| Unreadable(error.to_string()))
}

/// The event id of a request that says nothing else.
pub(crate) fn event_id(body: &[u8]) -> Result<String, Unreadable> {
    let body = parse(body)?;
    let fields = Fields::of(&body).ok_or_else(|| Unreadable("the body is not an object".into()))?;
    Ok(fields.text("event_id")?.unwrap_or_default().to_owned())
}

/// A body that has the member `twin`.
struct Request<T> {
    event_id: String,
    properties: BTreeMap<PropertyName, T>,
}

/// Reads a `twin/update`: event id and properties, of which `None` is to be deleted.
pub(crate) fn twin_update(body: &[u8]) -> Result<(String, BTreeMap<PropertyName, Option<PropertyUpdate>>), Refusal> {
    let request = request(body, |property| property.map(property_update).transpose())?;
    Ok((request.event_id, request.properties))
}

/// Reads a `twin/cloud_updated`. A property that is `null` says nothing.
pub(crate) fn twin_sync(body: &[u8]) -> Result<(String, BTreeMap<PropertyName, PropertySync>), Refusal> {
    let request = request(body, |property| property.map(property_sync).transpose().map(Option::unwrap_or_default))?;
    Ok((request.event_id, request.properties))
}

fn request<T>(body: &[u8], read: impl Fn(Option<Fields<'_>>) -> Result<T, Unreadable>) -> Result<Request<T>, Refusal> {
    let unreadable = |event_id: &str| Refusal::bad_request(event_id, NOT_READ);
    let body = parse(body).map_err(|_| unreadable(""))?;
    let fields = Fields::of(&body).ok_or_else(|| unreadable(""))?;
    let event_id = fields.text("event_id").map_err(|_| unreadable(""))?.unwrap_or_default();
    let map = fields.member("twin").ok_or_else(|| Refusal::bad_request(event_id, NO_TWIN))?;
    let properties = twin(map, read).map_err(|error| match error {
        TwinError::Unreadable => unreadable(event_id),
        TwinError::Rejected(rejected) => Refusal::bad_request(event_id, rejected.reason()),
    })?;
    Ok(Request { event_id: event_id.to_owned(), properties })
}

/// Why a map of properties cannot be read.
pub(crate) enum TwinError {
    Unreadable,
    Rejected(Rejected),
}

/// Reads a map of properties; their names are not members and count as they are written.
pub(crate) fn twin<T>(
    map: &Value,
    read: impl Fn(Option<Fields<'_>>) -> Result<T, Unreadable>,
) -> Result<BTreeMap<PropertyName, T>, TwinError> {
    let map = map.as_object().ok_or(TwinError::Unreadable)?;
    let mut properties = BTreeMap::new();
    for (name, property) in map {
        let fields = match property {
            Value::Null => None,
            property => Some(Fields::of(property).ok_or(TwinError::Unreadable)?),
        };
        check_key(name).map_err(TwinError::Rejected)?;
        let name = PropertyName::new(name).map_err(|_| TwinError::Unreadable)?;
        properties.insert(name, read(fields).map_err(|_| TwinError::Unreadable)?);
    }
    Ok(properties)
}

fn property_update(fields: Fields<'_>) -> Result<PropertyUpdate, Unreadable> {
    Ok(PropertyUpdate {
        desired: value(fields, "expected")?,
        reported: value(fields, "actual")?,
        value_type: value_type(fields)?,
        optional: fields.flag("optional")?,
    })
}

/// Reads what the cloud says of a property.
pub(crate) fn property_sync(fields: Fields<'_>) -> Result<PropertySync, Unreadable> {
    let value_type = value_type(fields)?;
    Ok(PropertySync {
        desired: SyncedValue { value: value(fields, "expected")?, version: version(fields, "expected_version")? },
        reported: SyncedValue { value: value(fields, "actual")?, version: version(fields, "actual_version")? },
        deleted: value_type.as_deref() == Some(DELETED_TYPE),
        value_type,
        optional: fields.flag("optional")?,
    })
}

fn value(fields: Fields<'_>, side: &str) -> Result<Option<String>, Unreadable> {
    let side = fields.object(side)?;
    Ok(side.map(|side| side.text("value")).transpose()?.flatten().map(str::to_owned))
}

fn value_type(fields: Fields<'_>) -> Result<Option<String>, Unreadable> {
    let metadata = fields.object("metadata")?;
    Ok(metadata.map(|metadata| metadata.text("type")).transpose()?.flatten().map(str::to_owned))
}

fn version(fields: Fields<'_>, side: &str) -> Result<Option<TwinVersion>, Unreadable> {
    let Some(version) = fields.object(side)? else { return Ok(None) };
    let (cloud, edge) = (version.number("cloud")?.unwrap_or_default(), version.number("edge")?.unwrap_or_default());
    Ok(Some(TwinVersion { cloud, edge }))
}

/// Reads a `state/update`: event id and state. Words that upstream drops are refused, except `disconnected`.
pub(crate) fn state_update(body: &[u8]) -> Result<(String, DeviceState), Refusal> {
    let unreadable =
        |error: Unreadable| Refusal::bad_request("", format!("Unmarshal state update failed, err: {error}"));
    let body = parse(body).map_err(unreadable)?;
    let fields = Fields::of(&body).ok_or_else(|| unreadable(Unreadable("the body is not an object".into())))?;
    let event_id = fields.text("event_id").map_err(unreadable)?.unwrap_or_default();
    let word = fields.text("state").map_err(unreadable)?.unwrap_or_default();
    match DeviceState::from(word.to_owned()) {
        DeviceState::Other(word) => {
            let word: String = word.chars().take(64).collect();
            let words = "online, offline, ok, unknown, unhealthy, disconnected";
            Err(Refusal::bad_request(event_id, format!("state {word:?} is none of {words}")))
        }
        state => Ok((event_id.to_owned(), state)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_of_members_count_in_any_case_and_names_of_properties_do_not() {
        let body =
            br#"{"Event_ID":"e","TWIN":{"Mode":{"ACTUAL":{"Value":"1"},"metaData":{"Type":"int"}},"mode":null}}"#;
        let (event_id, twin) = twin_update(body).unwrap();
        assert_eq!(event_id, "e");
        let update = twin[&"Mode".parse().unwrap()].clone().unwrap();
        assert_eq!((update.reported.as_deref(), update.value_type.as_deref()), (Some("1"), Some("int")));
        assert_eq!(twin[&"mode".parse().unwrap()], None);
        // An injected state is spelled `State` (T25).
        assert_eq!(state_update(br#"{"State":"Online"}"#).unwrap().1, DeviceState::Online);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_event_id_where_there_is_one() {
        let reason = |body: &[u8]| twin_update(body).unwrap_err();
        for body in [&b""[..], b"nope", b"[]", b"{\"event_id\":", b"\xff", br#"{"event_id":7,"twin":{}}"#] {
            assert_eq!(reason(body), Refusal::bad_request("", NOT_READ), "{body:?}");
        }
        for body in [
            &br#"{"event_id":"e","twin":{"t":{"actual":{"value":23}}}}"#[..],
            br#"{"event_id":"e","twin":[]}"#,
            br#"{"event_id":"e","twin":{"t":"23"}}"#,
        ] {
            assert_eq!(reason(body), Refusal::bad_request("e", NOT_READ));
        }
        assert_eq!(reason(br#"{"event_id":"e"}"#), Refusal::bad_request("e", NO_TWIN));
        assert!(reason(br#"{"event_id":"e","twin":{"a b":null}}"#).reason.starts_with("The key of twin must"));
        let long = format!(r#"{{"twin":{{"t":{{"actual":{{"value":"{}"}}}}}}}}"#, "x".repeat(MAX_BODY_LEN));
        assert_eq!(reason(long.as_bytes()).code, 400);
    }

    #[test]
    fn a_sync_has_versions_per_side() {
        let body = br#"{"twin":{"a":{"expected":{"value":"1"},"expected_version":{"cloud":2,"edge":1},"metadata":{}},
            "b":{"metadata":{"type":"deleted"},"actual_version":{"cloud":3}},"c":null}}"#;
        let (_, twin) = twin_sync(body).unwrap();
        let a = &twin[&"a".parse().unwrap()];
        assert_eq!(
            a.desired,
            SyncedValue { value: Some("1".into()), version: Some(TwinVersion { cloud: 2, edge: 1 }) }
        );
        assert_eq!(a.reported, SyncedValue::default());
        let b = &twin[&"b".parse().unwrap()];
        assert!(b.deleted && b.reported.version == Some(TwinVersion { cloud: 3, edge: 0 }));
        assert_eq!(twin[&"c".parse().unwrap()], PropertySync::default());
    }

    proptest::proptest! {
        #[test]
        fn no_body_is_too_strange(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64), text in "[{}\\[\\]\",:a-z0-9 ]{0,48}") {
            for body in [&bytes[..], text.as_bytes(), format!(r#"{{"twin":{{"a":{text}}}}}"#).as_bytes()] {
                let _ = (event_id(body).is_ok(), twin_update(body).is_ok(), twin_sync(body).is_ok(), state_update(body).is_ok());
            }
        }
    }
}
