//! Twins as an EdgeCore in Go has left them in its database.
//!
//! Upstream: `edge/pkg/metamanager/dao/models` (tables `device` and `device_twin`).

use kubeedge_core::{
    device::DeviceState,
    meta::{MetaError, MetaWrite},
    names::{DeviceId, PropertyName, UnixMillis},
    twin::{TwinProperty, TwinValue, TwinVersion},
};
use serde::Deserialize;

use crate::{
    persist::{self, Device},
    state::{Tombstone, TwinState},
    value::{DEFAULT_TYPE, DELETED_TYPE, MAX_PROPERTIES, check_key, check_value},
};

/// A row of the table `device`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRow {
    /// Column `id`: namespace and name with a slash between them.
    pub id: String,
    /// Column `description`.
    pub description: String,
    /// Column `state`; empty if it was never told.
    pub state: String,
}

/// A row of the table `device_twin`. Metadata and versions are JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TwinRow {
    /// Column `deviceid`.
    pub device: String,
    /// Column `name`: that of the property.
    pub name: String,
    /// Columns `expected`, `expected_meta` and `expected_version`.
    pub expected: SideRow,
    /// Columns `actual`, `actual_meta` and `actual_version`.
    pub actual: SideRow,
    /// Column `optional`.
    pub optional: bool,
    /// Column `attr_type`; `deleted` for a property that is gone.
    pub attr_type: String,
}

/// One side of a row of `device_twin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideRow {
    /// The value, if there is one.
    pub value: Option<String>,
    /// `{"timestamp":<ms>}`, or empty.
    pub metadata: String,
    /// `{"cloud":<n>,"edge":<n>}`, or empty.
    pub version: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    timestamp: i64,
}

impl SideRow {
    fn version(&self) -> TwinVersion {
        serde_json::from_str(&self.version).unwrap_or_default()
    }

    fn value(&self, property: &str, value_type: &str) -> Option<TwinValue> {
        let value = self.value.clone()?;
        if !value.is_empty()
            && let Err(rejected) = check_value(property, value_type, &value)
        {
            tracing::warn!(property, reason = %rejected, "value in the database of EdgeCore is left out");
            return None;
        }
        let Metadata { timestamp } = serde_json::from_str(&self.metadata).unwrap_or_default();
        Some(TwinValue { value, at: UnixMillis(timestamp) })
    }
}

/// The writes that take a device and its twin over, and tell the cloud of them: what changed while EdgeCore was offline was
/// never told. `None` if the id is not that of a device.
///
/// Versions and times stay as they are. Properties that no twin may have are left out, with a warning.
///
/// # Errors
/// When the twin cannot be written as a record.
pub fn take_over<'a>(
    device: &DeviceRow,
    twins: impl IntoIterator<Item = &'a TwinRow>,
    now: UnixMillis,
) -> Result<Option<Vec<MetaWrite>>, MetaError> {
    let Ok(id) = device.id.parse::<DeviceId>() else { return Ok(None) };
    let state = (!device.state.is_empty()).then(|| DeviceState::from(device.state.clone()));
    let mut twin = TwinState { state, ..TwinState::default() };
    for row in twins {
        let (Ok(()), Ok(name)) = (check_key(&row.name), PropertyName::new(&row.name)) else {
            tracing::warn!(device = %id, property = row.name, "property in the database of EdgeCore is left out");
            continue;
        };
        let (desired_version, reported_version) = (row.expected.version(), row.actual.version());
        if row.attr_type == DELETED_TYPE {
            twin.deleted.insert(name, Tombstone { desired_version, reported_version, at: now });
            continue;
        }
        if twin.properties.len() >= MAX_PROPERTIES {
            tracing::warn!(device = %id, most = MAX_PROPERTIES, "device has more properties than a twin may have");
            break;
        }
        let value_type = if row.attr_type.is_empty() { DEFAULT_TYPE } else { &row.attr_type };
        let property = TwinProperty {
            desired: row.expected.value(&row.name, value_type),
            reported: row.actual.value(&row.name, value_type),
            value_type: value_type.to_owned(),
            optional: row.optional,
            desired_version,
            reported_version,
        };
        twin.properties.insert(name, property);
    }
    let mut writes = vec![];
    if !twin.properties.is_empty() || !twin.deleted.is_empty() {
        writes.push(persist::tell_twin(&id, &twin, now)?);
    }
    // Whether it has a Device object shows when the objects are looked at.
    let device = Device { description: device.description.clone(), has_object: false, twin };
    writes.push(persist::store(&id, &device)?);
    Ok(Some(writes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::meta::Record;

    use super::*;

    fn side(value: &str, edge: i64) -> SideRow {
        SideRow {
            value: Some(value.into()),
            metadata: r#"{"timestamp":1795231754221}"#.into(),
            version: format!(r#"{{"cloud":0,"edge":{edge}}}"#),
        }
    }

    fn row(name: &str, attr_type: &str) -> TwinRow {
        let (expected, actual) = (side("30", 1), side("25", 7));
        TwinRow {
            device: "default/boiler".into(),
            name: name.into(),
            expected,
            actual,
            optional: true,
            attr_type: attr_type.into(),
        }
    }

    fn taken(twins: &[TwinRow]) -> (Device, usize) {
        let device = DeviceRow { id: "default/boiler".into(), description: "a boiler".into(), state: "Online".into() };
        let writes = take_over(&device, twins, UnixMillis(5)).unwrap().unwrap();
        let MetaWrite::Put(record, _) = writes.last().unwrap() else { panic!("{writes:?}") };
        (persist::load(&Record::clone(record)).unwrap(), writes.len())
    }

    #[test]
    fn values_versions_times_and_deletions_are_kept_and_told() {
        let (device, writes) = taken(&[row("threshold", "int"), row("old", "deleted"), row("not a key", "string")]);
        assert_eq!((device.description.as_str(), writes), ("a boiler", 2), "the twin, and what the cloud is told");
        assert_eq!(device.twin.state, Some(DeviceState::Online));
        let threshold = &device.twin.properties[&"threshold".parse().unwrap()];
        assert_eq!(threshold.reported, Some(TwinValue { value: "25".into(), at: UnixMillis(1_795_231_754_221) }));
        assert_eq!((threshold.desired_version.edge, threshold.reported_version.edge), (1, 7));
        assert_eq!(threshold.value_type, "int");
        assert_eq!(device.twin.properties.len(), 1);
        assert_eq!(device.twin.deleted[&"old".parse().unwrap()].reported_version.edge, 7);
    }

    #[test]
    fn values_that_their_type_refuses_are_left_out() {
        let mut bad = row("mode", "int");
        bad.actual.value = Some("warm".into());
        let (device, _) = taken(&[bad]);
        let mode = &device.twin.properties[&"mode".parse().unwrap()];
        assert_eq!((mode.reported.as_ref(), mode.desired.as_ref().unwrap().value.as_str()), (None, "30"));
    }

    #[test]
    fn what_is_no_device_is_nothing() {
        let device = DeviceRow { id: "boiler".into(), ..DeviceRow::default() };
        assert_eq!(take_over(&device, [], UnixMillis(5)).unwrap(), None);
    }
}
