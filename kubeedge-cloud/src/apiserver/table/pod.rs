//! The row of a pod.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, columns::or_none, human};

pub(super) const COLUMNS: &[(&str, &str, bool)] = &[
    ("Name", "string", false),
    ("Ready", "string", false),
    ("Status", "string", false),
    ("Restarts", "string", false),
    ("Age", "string", false),
    ("IP", "string", true),
    ("Node", "string", true),
    ("Nominated Node", "string", true),
    ("Readiness Gates", "string", true),
];

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let statuses = list(pod, "/status/containerStatuses");
    let ready = statuses.iter().filter(|s| s["ready"] == true).count();
    let total = list(pod, "/spec/containers").len();
    let gates = list(pod, "/spec/readinessGates").len();
    vec![
        pod["metadata"]["name"].clone(),
        format!("{ready}/{total}").into(),
        status(pod, statuses).into(),
        restarts(pod, statuses, now).into(),
        age(&pod["metadata"]["creationTimestamp"], now),
        or_none(pod.pointer("/status/podIP")),
        or_none(pod.pointer("/spec/nodeName")),
        or_none(pod.pointer("/status/nominatedNodeName")),
        if gates == 0 { "<none>".into() } else { format!("0/{gates}").into() },
    ]
}

fn list<'a>(pod: &'a Value, pointer: &str) -> &'a [Value] {
    pod.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// One word for the state of a pod: its phase, or what keeps it from running.
fn status(pod: &Value, statuses: &[Value]) -> String {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    if text("/metadata/deletionTimestamp").is_some() {
        return if text("/status/reason") == Some("NodeLost") { "Unknown" } else { "Terminating" }.to_owned();
    }
    let mut word = text("/status/reason").or_else(|| text("/status/phase")).unwrap_or("Unknown").to_owned();
    let starting = list(pod, "/status/initContainerStatuses");
    let count = list(pod, "/spec/initContainers").len();
    for (i, status) in starting.iter().enumerate() {
        if status.pointer("/state/terminated/exitCode") == Some(&0.into()) {
            continue;
        }
        let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str);
        return match (terminated(status), waiting) {
            (Some(reason), _) => format!("Init:{reason}"),
            (None, Some(reason)) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{i}/{count}"),
        };
    }
    let mut running = false;
    for status in statuses.iter().rev() {
        let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str).filter(|r| !r.is_empty());
        if let Some(reason) = waiting {
            reason.clone_into(&mut word);
        } else if let Some(reason) = terminated(status) {
            word = reason;
        } else if status["ready"] == true && status.pointer("/state/running").is_some() {
            running = true;
        }
    }
    if word == "Completed" && running {
        let ready = list(pod, "/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        return if ready { "Running" } else { "NotReady" }.to_owned();
    }
    word
}

fn terminated(status: &Value) -> Option<String> {
    let ended = status.pointer("/state/terminated")?;
    if let Some(reason) = ended["reason"].as_str().filter(|reason| !reason.is_empty()) {
        return Some(reason.to_owned());
    }
    match ended["signal"].as_i64() {
        Some(signal) if signal != 0 => Some(format!("Signal:{signal}")),
        _ => Some(format!("ExitCode:{}", ended["exitCode"].as_i64().unwrap_or(0))),
    }
}

fn restarts(pod: &Value, statuses: &[Value], now: Timestamp) -> String {
    let all = statuses.iter().chain(list(pod, "/status/initContainerStatuses"));
    let count: i64 = all.filter_map(|s| s["restartCount"].as_i64()).sum();
    let last = statuses
        .iter()
        .filter_map(|s| s.pointer("/lastState/terminated/finishedAt")?.as_str()?.parse::<Timestamp>().ok())
        .max();
    match last {
        Some(last) if count > 0 => format!("{count} ({} ago)", human(now.as_second() - last.as_second())),
        _ => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_says_what_keeps_it_from_running() {
        let word = |pod: Value| status(&pod, list(&pod, "/status/containerStatuses"));
        assert_eq!(word(json!({"status": {"phase": "Pending"}})), "Pending");
        let waiting = json!({"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}});
        assert_eq!(word(waiting), "ErrImagePull");
        let ended =
            json!({"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}});
        assert_eq!(word(ended), "ExitCode:3");
        let init = json!({"spec": {"initContainers": [{}, {}]}, "status": {"phase": "Pending",
            "initContainerStatuses": [{"state": {"terminated": {"exitCode": 0}}}, {"state": {"running": {}}}]}});
        assert_eq!(word(init), "Init:1/2");
        assert_eq!(
            word(json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}})),
            "Terminating"
        );
    }
}
