//! What nodes report of tasks, read from JSON as Go reads it: keys in any case, unknown ones left out, missing ones empty.

use kubeedge_core::names::{InvalidName, NodeName, ObjectName};
use serde::Serialize;
use serde_json::{Map, Value};

/// Longest part of a value that an error shows, in characters.
const SHOWN: usize = 128;

/// A report of a task, as `POST /task/{taskType}/name/{taskID}/node/{nodeID}/status` brings it and as it is passed on.
///
/// Upstream: `common/types` (`NodeTaskResponse`). State, event and action are those of the task's state machine, which
/// is for the part that takes the report to judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TaskReport {
    pub(super) node_name: NodeName,
    state: String,
    event: String,
    action: String,
    time: String,
    reason: String,
    external_message: String,
}

/// A report of an upgrade by an old edge, as `POST /nodeupgrade` brings it.
///
/// Upstream: `common/types` (`NodeUpgradeJobResponse`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct UpgradeReport {
    #[serde(rename = "UpgradeID")]
    pub(super) upgrade_id: ObjectName,
    #[serde(rename = "HistoryID")]
    history_id: String,
    #[serde(rename = "NodeName")]
    pub(super) node_name: NodeName,
    #[serde(rename = "FromVersion")]
    from_version: String,
    #[serde(rename = "ToVersion")]
    to_version: String,
    #[serde(rename = "Status")]
    status: UpgradeStatus,
    #[serde(rename = "Reason")]
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum UpgradeStatus {
    #[serde(rename = "upgrade_success")]
    Upgraded,
    #[serde(rename = "upgrade_failed_rollback_success")]
    RolledBack,
    #[serde(rename = "upgrade_failed_rollback_failed")]
    Failed,
}

/// Kinds of tasks of the first generation.
const TASK_TYPES: [&str; 4] = ["upgrade", "rollback", "backup", "prepull"];

/// A report that cannot be read, or a path that names no task.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadReport {
    #[error("{0}")]
    Json(serde_json::Error),
    #[error("report is {0}: it must be an object")]
    NotAnObject(String),
    #[error("{field} is {value}: {why}")]
    Field { field: &'static str, value: String, why: String },
}

impl BadReport {
    fn field(field: &'static str, value: impl Into<Value>, why: impl Into<String>) -> Self {
        Self::Field { field, value: shown(&value.into()), why: why.into() }
    }
}

/// One of the task types that there are.
pub(super) fn task_type(text: &str) -> Result<&'static str, BadReport> {
    let known = TASK_TYPES.into_iter().find(|known| *known == text);
    known.ok_or_else(|| BadReport::field("taskType", text, format!("it must be one of {}", TASK_TYPES.join(", "))))
}

/// The name of a task, which is that of an object in the API.
pub(super) fn task_name(field: &'static str, text: &str) -> Result<ObjectName, BadReport> {
    // Kubernetes names its objects and its nodes by the same rule.
    let checked = NodeName::new(text).and_then(ObjectName::new);
    checked.map_err(|_| BadReport::field(field, text, "it must be a lower-case DNS subdomain"))
}

pub(super) fn node_name(field: &'static str, text: &str) -> Result<NodeName, BadReport> {
    let why = |_: InvalidName| BadReport::field(field, text, "it must be a lower-case DNS subdomain");
    NodeName::new(text).map_err(why)
}

impl TaskReport {
    pub(super) fn parse(body: &[u8]) -> Result<Self, BadReport> {
        let mut fields = Fields::parse(body)?;
        Ok(Self {
            node_name: node_name("NodeName", &fields.text("NodeName")?)?,
            state: fields.text("State")?,
            event: fields.text("Event")?,
            action: fields.text("Action")?,
            time: fields.text("Time")?,
            reason: fields.text("Reason")?,
            external_message: fields.text("ExternalMessage")?,
        })
    }
}

impl UpgradeReport {
    pub(super) fn parse(body: &[u8]) -> Result<Self, BadReport> {
        let mut fields = Fields::parse(body)?;
        Ok(Self {
            upgrade_id: task_name("UpgradeID", &fields.text("UpgradeID")?)?,
            history_id: fields.text("HistoryID")?,
            node_name: node_name("NodeName", &fields.text("NodeName")?)?,
            from_version: fields.text("FromVersion")?,
            to_version: fields.text("ToVersion")?,
            status: UpgradeStatus::parse(&fields.text("Status")?)?,
            reason: fields.text("Reason")?,
        })
    }
}

impl UpgradeStatus {
    fn parse(text: &str) -> Result<Self, BadReport> {
        match text {
            "upgrade_success" => Ok(Self::Upgraded),
            "upgrade_failed_rollback_success" => Ok(Self::RolledBack),
            "upgrade_failed_rollback_failed" => Ok(Self::Failed),
            other => {
                let why =
                    "it must be upgrade_success, upgrade_failed_rollback_success or upgrade_failed_rollback_failed";
                Err(BadReport::field("Status", other, why))
            }
        }
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn parse(body: &[u8]) -> Result<Self, BadReport> {
        match serde_json::from_slice(body).map_err(BadReport::Json)? {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(BadReport::NotAnObject(shown(&other))),
        }
    }

    fn text(&mut self, field: &'static str) -> Result<String, BadReport> {
        let key = self.0.keys().find(|key| key.eq_ignore_ascii_case(field)).cloned();
        match key.and_then(|key| self.0.remove(&key)) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(BadReport::field(field, other, "it must be text")),
        }
    }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_read_as_go_reads_it_and_written_as_go_writes_it() {
        let body = br#"{"nodename":"edge-1","Event":"Upgrade","ACTION":"Success","Reason":null,"More":[1]}"#;
        let report = TaskReport::parse(body).unwrap();
        let expected = json!({
            "NodeName": "edge-1", "State": "", "Event": "Upgrade", "Action": "Success", "Time": "", "Reason": "",
            "ExternalMessage": "",
        });
        assert_eq!(serde_json::to_value(report).unwrap(), expected);
        let body = br#"{"upgradeID":"u1","nodeName":"edge-1","status":"upgrade_failed_rollback_success"}"#;
        let report = serde_json::to_value(UpgradeReport::parse(body).unwrap()).unwrap();
        assert_eq!(
            (&report["UpgradeID"], &report["Status"]),
            (&json!("u1"), &json!("upgrade_failed_rollback_success"))
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        let wrong = |body: &str| TaskReport::parse(body.as_bytes()).unwrap_err().to_string();
        assert_eq!(wrong(r#"{"NodeName":"Edge_1"}"#), r#"NodeName is "Edge_1": it must be a lower-case DNS subdomain"#);
        assert_eq!(wrong("{}"), r#"NodeName is "": it must be a lower-case DNS subdomain"#);
        assert_eq!(wrong(r#"{"NodeName":"e","Reason":7}"#), "Reason is 7: it must be text");
        assert_eq!(wrong("null"), "report is null: it must be an object");
        assert_eq!(wrong("[1]"), "report is [1]: it must be an object");
        assert!(wrong("nope").starts_with("expected ident"), "{}", wrong("nope"));
        let long = format!(r#"{{"NodeName":["{}"]}}"#, "x".repeat(5000));
        assert!(wrong(&long).len() < 200);
        let deep = "[".repeat(100_000);
        assert!(wrong(&deep).starts_with("recursion limit exceeded"), "{}", wrong(&deep));
        let upgrade = |body: &str| UpgradeReport::parse(body.as_bytes()).unwrap_err().to_string();
        let text = upgrade(r#"{"UpgradeID":"u","NodeName":"e","Status":"done"}"#);
        assert!(text.starts_with(r#"Status is "done": it must be upgrade_success, "#), "{text}");
        assert_eq!(upgrade(r#"{"NodeName":"e"}"#), r#"UpgradeID is "": it must be a lower-case DNS subdomain"#);
        assert_eq!(
            task_type("rm").unwrap_err().to_string(),
            r#"taskType is "rm": it must be one of upgrade, rollback, backup, prepull"#
        );
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..256), text in r#"[{}\[\]",:a-zNS0-9]{0,64}"#) {
            for body in [&bytes[..], text.as_bytes()] {
                let _ = (TaskReport::parse(body), UpgradeReport::parse(body));
            }
        }
    }
}
