//! What a report of the edge makes of the status of a device. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kubeedge_core::device::{DeviceStatusStatus, StatusTwin, TwinField};
use serde::Deserialize;

/// Content of `device/<ns>/<name>/twin/edge_updated`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TwinReport {
    #[serde(default)]
    twin: BTreeMap<String, Option<PropertyReport>>,
}

#[derive(Debug, Default, Deserialize)]
struct PropertyReport {
    #[serde(default)]
    actual: Option<ValueReport>,
    #[serde(default)]
    expected: Option<ValueReport>,
    #[serde(default)]
    metadata: Option<TypeReport>,
}

#[derive(Debug, Default, Deserialize)]
struct ValueReport {
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    metadata: Option<TimeReport>,
}

#[derive(Debug, Default, Deserialize)]
struct TimeReport {
    #[serde(default)]
    timestamp: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
struct TypeReport {
    #[serde(rename = "type", default)]
    value_type: Option<String>,
}

/// Content of `device/<ns>/<name>/state/update`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StateReport {
    #[serde(default)]
    device: Option<DeviceReport>,
}

#[derive(Debug, Default, Deserialize)]
struct DeviceReport {
    #[serde(default)]
    state: String,
    #[serde(rename = "lastOnlineTime", default)]
    last_online_time: Option<String>,
}

/// What reports make of the status of a device: of each property and of the state, the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    twins: BTreeMap<String, Sides>,
    state: Option<String>,
    last_online_time: Option<String>,
}

/// What is known of a property. A side that was not reported stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sides {
    reported: Option<TwinField>,
    desired: Option<TwinField>,
}

impl TwinReport {
    /// What this report changes. Only properties that the device has count; a value that was deleted at the edge stays.
    ///
    /// Upstream: `cloud/pkg/devicecontroller/controller/upstream.go`, which loses the first report of each property.
    pub(super) fn changes(self, properties: &BTreeSet<String>) -> Changes {
        let mut changes = Changes::default();
        for (name, report) in self.twin {
            let Some(report) = report.filter(|_| properties.contains(&name)) else { continue };
            let value_type = report.metadata.and_then(|metadata| metadata.value_type).filter(|word| !word.is_empty());
            let reported = field(report.actual, value_type.as_deref());
            let desired = field(report.expected, value_type.as_deref());
            if reported.is_some() || desired.is_some() {
                changes.twins.insert(name, Sides { reported, desired });
            }
        }
        changes
    }
}

fn field(report: Option<ValueReport>, value_type: Option<&str>) -> Option<TwinField> {
    let report = report?;
    let value = report.value?;
    let timestamp = report.metadata.and_then(|metadata| metadata.timestamp);
    let timestamp = timestamp.map(|timestamp| ("timestamp".to_owned(), timestamp.to_string()));
    let value_type = value_type.map(|word| ("type".to_owned(), word.to_owned()));
    Some(TwinField { value, metadata: timestamp.into_iter().chain(value_type).collect() })
}

impl StateReport {
    /// What this report changes. What it leaves empty stays as it was: a device that is offline keeps the time at which
    /// it was last online.
    pub(super) fn changes(self) -> Changes {
        let report = self.device.unwrap_or_default();
        let state = Some(report.state).filter(|state| !state.is_empty());
        let last_online_time = report.last_online_time.filter(|time| !time.is_empty());
        Changes { state, last_online_time, ..Changes::default() }
    }
}

impl Changes {
    /// These changes, and then `later` ones.
    pub(super) fn merge(&mut self, later: Self) {
        for (name, sides) in later.twins {
            let known = self.twins.entry(name).or_default();
            known.reported = sides.reported.or(known.reported.take());
            known.desired = sides.desired.or(known.desired.take());
        }
        self.state = later.state.or(self.state.take());
        self.last_online_time = later.last_online_time.or(self.last_online_time.take());
    }

    /// The status after these changes. Properties that the device has no longer are dropped.
    pub(super) fn apply(&self, mut status: DeviceStatusStatus, properties: &BTreeSet<String>) -> DeviceStatusStatus {
        status.twins.retain(|twin| properties.contains(&twin.property_name));
        for (name, sides) in self.twins.iter().filter(|(name, _)| properties.contains(*name)) {
            let at = status.twins.iter().position(|twin| twin.property_name == *name).unwrap_or_else(|| {
                status.twins.push(StatusTwin { property_name: name.clone(), ..StatusTwin::default() });
                status.twins.len() - 1
            });
            let twin = &mut status.twins[at];
            if let Some(reported) = &sides.reported {
                twin.reported = reported.clone();
            }
            if let Some(desired) = &sides.desired {
                twin.observed_desired = desired.clone();
            }
        }
        if let Some(state) = &self.state {
            status.state = Some(state.clone());
        }
        if let Some(time) = &self.last_online_time {
            status.last_online_time = Some(time.clone());
        }
        status
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn properties(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn twins(report: serde_json::Value, status: DeviceStatusStatus, names: &[&str]) -> serde_json::Value {
        let (report, properties): (TwinReport, _) = (serde_json::from_value(report).unwrap(), properties(names));
        let status = report.changes(&properties).apply(status, &properties);
        serde_json::to_value(status).unwrap()["twins"].take()
    }

    #[test]
    fn the_first_report_counts() {
        let report = json!({ "event_id": "e", "timestamp": 1, "twin": {
            "temperature": { "actual": { "value": "18.2", "metadata": { "timestamp": 1795 } }, "optional": true,
                "metadata": { "type": "float" }, "expected_version": { "cloud": 0, "edge": 1 } },
            "humidity": { "actual": { "value": "55" } },
            "gone": null,
        } });
        let expected = json!([{
            "propertyName": "temperature",
            "reported": { "value": "18.2", "metadata": { "timestamp": "1795", "type": "float" } },
            "observedDesired": { "value": "" },
        }]);
        assert_eq!(twins(report, DeviceStatusStatus::default(), &["temperature", "gone"]), expected);
    }

    #[test]
    fn each_side_changes_by_itself_and_deletions_change_nothing() {
        let known: DeviceStatusStatus = serde_json::from_value(json!({ "twins": [
            { "propertyName": "mode", "reported": { "value": "1" }, "observedDesired": { "value": "2" } },
            { "propertyName": "old", "reported": { "value": "1" }, "observedDesired": { "value": "" } },
        ] }))
        .unwrap();
        let report = json!({ "twin": { "mode": { "actual": {}, "expected": { "value": "3" } } } });
        let expected = json!([
            { "propertyName": "mode", "reported": { "value": "1" }, "observedDesired": { "value": "3" } },
        ]);
        assert_eq!(twins(report, known, &["mode"]), expected);
    }

    #[test]
    fn a_state_keeps_what_it_does_not_tell() {
        let report = |json| serde_json::from_value::<StateReport>(json).unwrap().changes();
        let online = json!({ "device": { "name": "d", "state": "online", "lastOnlineTime": "2026-11-21T03:42:39Z" } });
        let mut changes = report(online);
        let offline = report(json!({ "device": { "name": "d", "state": "offline" } }));
        let none = BTreeSet::new();
        let one_by_one = offline.apply(changes.apply(DeviceStatusStatus::default(), &none), &none);
        assert_eq!(one_by_one.state.as_deref(), Some("offline"));
        assert_eq!(one_by_one.last_online_time.as_deref(), Some("2026-11-21T03:42:39Z"));
        changes.merge(offline);
        assert_eq!(changes.apply(DeviceStatusStatus::default(), &none), one_by_one);
    }

    fn any_report() -> impl Strategy<Value = Changes> {
        let value = || proptest::option::of("[a-c]").prop_map(|value| value.map(|value| json!({ "value": value })));
        let twins = proptest::collection::btree_map("[a-d]", (value(), value()), 0..4);
        let state = (proptest::option::of("on|off"), proptest::option::of("[1-3]"));
        (twins, state).prop_map(|(twins, (state, time))| {
            let twin = |(actual, expected)| json!({ "actual": actual, "expected": expected });
            let twins: BTreeMap<_, _> = twins.into_iter().map(|(name, sides)| (name, twin(sides))).collect();
            let report: TwinReport = serde_json::from_value(json!({ "twin": twins })).unwrap();
            let mut changes = report.changes(&properties(&["a", "b", "c"]));
            let device = json!({ "device": { "state": state.unwrap_or_default(), "lastOnlineTime": time } });
            changes.merge(serde_json::from_value::<StateReport>(device).unwrap().changes());
            changes
        })
    }

    proptest! {
        #[test]
        fn reports_together_come_to_the_same_as_one_by_one(reports in proptest::collection::vec(any_report(), 0..6)) {
            // One of the properties may be gone when they are written.
            let properties = properties(&["a", "b"]);
            let (mut merged, mut status) = (Changes::default(), DeviceStatusStatus::default());
            for report in reports {
                status = report.apply(status, &properties);
                merged.merge(report);
            }
            let mut together = merged.apply(DeviceStatusStatus::default(), &properties);
            // New properties are in the order of their first report, or of their names.
            together.twins.sort_by(|one, other| one.property_name.cmp(&other.property_name));
            status.twins.sort_by(|one, other| one.property_name.cmp(&other.property_name));
            prop_assert_eq!(together, status);
        }
    }
}
