//! The status of custom resource definitions, which are served at once.

use serde_json::{Value, json};

use super::seconds;

/// Brings the status in line with the spec.
pub(super) fn settle(definition: &mut Value, now: jiff::Timestamp) {
    let names = definition["spec"]["names"].clone();
    let stored: Vec<Value> = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let deleting = definition.pointer("/metadata/deletionTimestamp").is_some();
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    let status = &mut definition["status"];
    status["acceptedNames"] = names;
    let mut versions = status["storedVersions"].as_array().cloned().unwrap_or_default();
    for version in stored {
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    status["storedVersions"] = Value::Array(versions);
    let mut conditions = vec![
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ];
    if deleting {
        conditions.push(("Terminating", "InstanceDeletionInProgress", "CustomResource deletion is in progress"));
    }
    let mut list = status["conditions"].as_array().cloned().unwrap_or_default();
    for (kind, reason, message) in conditions {
        if !list.iter().any(|c| c["type"] == kind && c["status"] == "True") {
            list.retain(|c| c["type"] != kind);
            list.push(json!({"type": kind, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": seconds(now)}));
        }
    }
    status["conditions"] = Value::Array(list);
}
