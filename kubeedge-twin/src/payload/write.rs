use std::collections::BTreeMap;

use bytes::Bytes;
use kubeedge_core::{
    device::DeviceState,
    names::{DeviceId, PropertyName, UnixMillis},
    twin::{Delta, TwinProperty, TwinValue, TwinVersion},
};
use serde::Serialize;

use crate::{
    reduce::{Transition, Written},
    state::{Tombstone, TwinState},
    value::DELETED_TYPE,
};

/// An error result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) event_id: String,
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(event_id: &str, code: u16, reason: impl Into<String>) -> Self {
        Self { event_id: event_id.to_owned(), code, reason: reason.into() }
    }

    pub(crate) fn bad_request(event_id: &str, reason: impl Into<String>) -> Self {
        Self::new(event_id, 400, reason)
    }
}

#[derive(Serialize)]
struct Body<'a, T> {
    event_id: &'a str,
    timestamp: UnixMillis,
    #[serde(flatten)]
    rest: T,
}

/// Texts, numbers and maps with text for keys always have a JSON form.
fn body<T: Serialize>(event_id: &str, timestamp: UnixMillis, rest: T) -> Bytes {
    serde_json::to_vec(&Body { event_id, timestamp, rest }).unwrap_or_default().into()
}

#[derive(Serialize)]
struct MsgTwin<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<MsgValue<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<MsgValue<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    optional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<TypeMetadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_version: Option<TwinVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual_version: Option<TwinVersion>,
}

#[derive(Serialize)]
struct MsgValue<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<ValueMetadata>,
}

#[derive(Serialize)]
struct ValueMetadata {
    timestamp: UnixMillis,
}

#[derive(Serialize)]
struct TypeMetadata<'a> {
    r#type: &'a str,
}

impl<'a> MsgValue<'a> {
    const EMPTY: Self = Self { value: None, metadata: None };

    fn of(value: &'a TwinValue) -> Self {
        Self { value: Some(&value.value), metadata: Some(ValueMetadata { timestamp: value.at }) }
    }
}

impl<'a> MsgTwin<'a> {
    /// A property as applications see it: without versions.
    fn local(property: &'a TwinProperty) -> Self {
        Self {
            expected: property.desired.as_ref().map(MsgValue::of),
            actual: property.reported.as_ref().map(MsgValue::of),
            optional: Some(property.optional),
            metadata: Some(TypeMetadata { r#type: &property.value_type }),
            expected_version: None,
            actual_version: None,
        }
    }

    /// Only what a change wrote.
    fn written(property: &'a TwinProperty, written: Written) -> Self {
        let mut twin = Self::local(property);
        if !written.desired {
            twin.expected = None;
        }
        if !written.reported {
            twin.actual = None;
        }
        if !written.desired && !written.reported {
            (twin.optional, twin.metadata) = (None, None);
        }
        twin
    }

    /// A property as the cloud gets it: with versions. A side that lost its value is there, but empty.
    fn versioned(property: &'a TwinProperty) -> Self {
        let ever = |version: TwinVersion| (version != TwinVersion::default()).then_some(version);
        let side = |value: Option<&'a TwinValue>, version| match (value, ever(version)) {
            (Some(value), _) => (Some(MsgValue::of(value)), Some(version)),
            (None, Some(version)) => (Some(MsgValue::EMPTY), Some(version)),
            (None, None) => (None, None),
        };
        let (expected, expected_version) = side(property.desired.as_ref(), property.desired_version);
        let (actual, actual_version) = side(property.reported.as_ref(), property.reported_version);
        Self { expected, actual, expected_version, actual_version, ..Self::local(property) }
    }

    fn deleted(tombstone: &Tombstone) -> Self {
        Self {
            expected: Some(MsgValue::EMPTY),
            actual: Some(MsgValue::EMPTY),
            optional: Some(true),
            metadata: Some(TypeMetadata { r#type: DELETED_TYPE }),
            expected_version: Some(tombstone.desired_version),
            actual_version: Some(tombstone.reported_version),
        }
    }
}

#[derive(Serialize)]
struct WithTwin<T> {
    twin: T,
}

/// `twin/get/result`.
pub(crate) fn twin_result(event_id: &str, now: UnixMillis, twin: &TwinState) -> Bytes {
    let twin: BTreeMap<_, _> = twin.properties.iter().map(|(name, one)| (name, MsgTwin::local(one))).collect();
    body(event_id, now, WithTwin { twin })
}

/// `twin/update/result`: what the change wrote, `null` for what it deleted.
pub(crate) fn twin_written(
    event_id: &str,
    now: UnixMillis,
    twin: &TwinState,
    written: &BTreeMap<PropertyName, Written>,
) -> Bytes {
    let result = |(name, written): (&'_ PropertyName, &Written)| match twin.properties.get(name) {
        Some(property) => Some((name.clone(), Some(MsgTwin::written(property, *written)))),
        None => written.deleted.then(|| (name.clone(), None)),
    };
    let twin: BTreeMap<_, _> = written.iter().filter_map(result).collect();
    body(event_id, now, WithTwin { twin })
}

/// `twin/update/document`.
pub(crate) fn twin_document(event_id: &str, now: UnixMillis, document: &BTreeMap<PropertyName, Transition>) -> Bytes {
    #[derive(Serialize)]
    struct TwinDoc<'a> {
        last: Option<MsgTwin<'a>>,
        current: Option<MsgTwin<'a>>,
    }
    impl<'a> From<&'a Transition> for TwinDoc<'a> {
        fn from(change: &'a Transition) -> Self {
            let [last, current] = [&change.last, &change.current].map(|side| side.as_ref().map(MsgTwin::local));
            Self { last, current }
        }
    }
    let twin: BTreeMap<_, _> = document.iter().map(|(name, change)| (name, TwinDoc::from(change))).collect();
    body(event_id, now, WithTwin { twin })
}

/// `twin/update/delta`: everything that is desired, and what of it is not reached.
pub(crate) fn twin_delta(event_id: &str, now: UnixMillis, twin: &TwinState, delta: &Delta) -> Bytes {
    #[derive(Serialize)]
    struct WithDelta<'a> {
        twin: BTreeMap<&'a PropertyName, MsgTwin<'a>>,
        delta: &'a Delta,
    }
    let desired = |property: &TwinProperty| property.desired.as_ref().is_some_and(|desired| !desired.value.is_empty());
    let properties = twin.properties.iter().filter(|(_, property)| desired(property));
    let twin = properties.map(|(name, property)| (name, MsgTwin::local(property))).collect();
    body(event_id, now, WithDelta { twin, delta })
}

/// Content of `twin/edge_updated`: the whole twin with versions, deleted properties included.
pub(crate) fn twin_full(event_id: &str, now: UnixMillis, twin: &TwinState) -> Bytes {
    let living = twin.properties.iter().map(|(name, property)| (name, MsgTwin::versioned(property)));
    let deleted = twin.deleted.iter().map(|(name, tombstone)| (name, MsgTwin::deleted(tombstone)));
    let twin: BTreeMap<_, _> = deleted.chain(living).collect();
    body(event_id, now, WithTwin { twin })
}

/// `state/update/result`, and the text in the message to the cloud.
pub(crate) fn device_state(event_id: &str, now: UnixMillis, id: &DeviceId, twin: &TwinState) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Named<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        last_online_time: Option<String>,
    }
    #[derive(Serialize)]
    struct WithDevice<'a> {
        device: Named<'a>,
    }
    let state = twin.state.as_ref().map(DeviceState::as_str);
    let last_online_time = twin.last_online.and_then(rfc3339);
    body(event_id, now, WithDevice { device: Named { name: id.name().as_str(), state, last_online_time } })
}

/// A device of the node, as membership topics have it.
#[derive(Serialize)]
pub(crate) struct Device<'a> {
    id: String,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_online: Option<String>,
}

impl<'a> Device<'a> {
    /// The device by name and description only, as announcements have it.
    pub(crate) fn announced(id: &'a DeviceId, description: &'a str) -> Self {
        Self { id: id.to_string(), name: id.name().as_str(), description, state: "", last_online: None }
    }

    /// The device with its state.
    pub(crate) fn with_state(
        id: &'a DeviceId,
        description: &'a str,
        state: Option<&'a DeviceState>,
        last_online: Option<UnixMillis>,
    ) -> Self {
        let state = state.map(DeviceState::as_str).unwrap_or_default();
        Self { state, last_online: last_online.and_then(rfc3339), ..Self::announced(id, description) }
    }
}

/// `membership/get/result`.
pub(crate) fn membership_result(event_id: &str, now: UnixMillis, devices: &[Device<'_>]) -> Bytes {
    #[derive(Serialize)]
    struct WithDevices<'a> {
        devices: &'a [Device<'a>],
    }
    body(event_id, now, WithDevices { devices })
}

/// `membership/updated`; the list that is not used is `null`.
pub(crate) fn membership_updated(
    event_id: &str,
    now: UnixMillis,
    added: Option<Device<'_>>,
    removed: Option<Device<'_>>,
) -> Bytes {
    #[derive(Serialize)]
    struct Lists<'a> {
        added_devices: Option<[Device<'a>; 1]>,
        removed_devices: Option<[Device<'a>; 1]>,
    }
    let (added_devices, removed_devices) = (added.map(|one| [one]), removed.map(|one| [one]));
    body(event_id, now, Lists { added_devices, removed_devices })
}

/// An error result.
pub(crate) fn refusal(now: UnixMillis, refusal: &Refusal) -> Bytes {
    #[derive(Serialize)]
    struct ErrorResult<'a> {
        code: u16,
        reason: &'a str,
    }
    body(&refusal.event_id, now, ErrorResult { code: refusal.code, reason: &refusal.reason })
}

/// UTC, whole seconds; `None` for times that no calendar has.
fn rfc3339(at: UnixMillis) -> Option<String> {
    jiff::Timestamp::from_second(at.0.div_euclid(1000)).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_cloud_gets_versions_and_deletions_as_upstream_spells_them() {
        let version = |edge| TwinVersion { cloud: 0, edge };
        let value = |value: &str| Some(TwinValue { value: value.into(), at: UnixMillis(7) });
        let property = TwinProperty {
            desired: value("1"),
            reported: None,
            value_type: "int".into(),
            optional: false,
            desired_version: version(1),
            reported_version: version(0),
        };
        let deleted = Tombstone { reported_version: version(2), ..Tombstone::default() };
        let twin = TwinState {
            properties: [("mode".parse().unwrap(), property)].into(),
            deleted: [("count".parse().unwrap(), deleted)].into(),
            ..TwinState::default()
        };
        assert_eq!(
            twin_full("e", UnixMillis(9), &twin),
            r#"{"event_id":"e","timestamp":9,"twin":{"count":{"expected":{},"actual":{},"optional":true,"metadata":{"type":"deleted"},"expected_version":{"cloud":0,"edge":0},"actual_version":{"cloud":0,"edge":2}},"mode":{"expected":{"value":"1","metadata":{"timestamp":7}},"optional":false,"metadata":{"type":"int"},"expected_version":{"cloud":0,"edge":1}}}}"#
        );
    }

    #[test]
    fn times_are_whole_seconds_in_utc() {
        assert_eq!(rfc3339(UnixMillis(1_795_232_685_274)).as_deref(), Some("2026-11-21T03:44:45Z"));
        assert_eq!(rfc3339(UnixMillis(i64::MAX)), None);
    }
}
