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

impl TwinReport {
    /// The status after this report. Only properties that the device has count, and those that it had are dropped; a
    /// value that was deleted at the edge stays.
    ///
    /// Upstream: `cloud/pkg/devicecontroller/controller/upstream.go`, which loses the first report of each property.
    pub(super) fn apply(self, mut status: DeviceStatusStatus, properties: &BTreeSet<String>) -> DeviceStatusStatus {
        status.twins.retain(|twin| properties.contains(&twin.property_name));
        for (name, report) in self.twin {
            let Some(report) = report.filter(|_| properties.contains(&name)) else { continue };
            let value_type = report.metadata.and_then(|metadata| metadata.value_type).filter(|word| !word.is_empty());
            let reported = field(report.actual, value_type.as_deref());
            let desired = field(report.expected, value_type.as_deref());
            if reported.is_none() && desired.is_none() {
                continue;
            }
            let at = status.twins.iter().position(|twin| twin.property_name == name).unwrap_or_else(|| {
                status.twins.push(StatusTwin { property_name: name, ..StatusTwin::default() });
                status.twins.len() - 1
            });
            let twin = &mut status.twins[at];
            if let Some(reported) = reported {
                twin.reported = reported;
            }
            if let Some(desired) = desired {
                twin.observed_desired = desired;
            }
        }
        status
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
    /// The status after this report; what it leaves empty stays as it was.
    pub(super) fn apply(self, mut status: DeviceStatusStatus) -> DeviceStatusStatus {
        let report = self.device.unwrap_or_default();
        if !report.state.is_empty() {
            status.state = Some(report.state);
        }
        if let Some(time) = report.last_online_time.filter(|time| !time.is_empty()) {
            status.last_online_time = Some(time);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn properties(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn twins(report: serde_json::Value, status: DeviceStatusStatus, names: &[&str]) -> serde_json::Value {
        let report: TwinReport = serde_json::from_value(report).unwrap();
        serde_json::to_value(report.apply(status, &properties(names))).unwrap()["twins"].take()
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
        let report = |json| serde_json::from_value::<StateReport>(json).unwrap();
        let online = json!({ "device": { "name": "d", "state": "online", "lastOnlineTime": "2026-11-21T03:42:39Z" } });
        let status = report(online).apply(DeviceStatusStatus::default());
        let status = report(json!({ "device": { "name": "d", "state": "offline" } })).apply(status);
        assert_eq!(status.state.as_deref(), Some("offline"));
        assert_eq!(status.last_online_time.as_deref(), Some("2026-11-21T03:42:39Z"));
    }
}
