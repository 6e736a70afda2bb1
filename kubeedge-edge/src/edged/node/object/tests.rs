#![allow(clippy::unwrap_used)]
use kubeedge_core::names::NodeName;

use super::*;

const NOW: UnixMillis = UnixMillis(1_795_231_721_000);

fn config() -> EdgedConfig {
    let mut config = EdgedConfig::new(NodeName::new("edge-go").unwrap(), "/r", "/l").node_ip([192, 0, 2, 2].into());
    config.labels.insert("site".into(), "north".into());
    config
}

fn facts() -> HostFacts {
    HostFacts { cpus: 2, memory_kib: 24_684_096, boot_id: "b".into(), kernel: "6.18".into(), ..HostFacts::default() }
}

const LOAD: HostLoad = HostLoad { memory_left: Some(20_000_000), disk: 264_212_084, disk_left: 200_000_000 };

fn view(load: HostLoad, known: Option<&Value>, seen: &mut Seen, now: UnixMillis) -> NodeView {
    let runtime = Ok(RuntimeVersion { name: "native".into(), version: "1".into() });
    NodeView::new(&config(), &facts(), load, runtime, known, seen, now)
}

fn recorded() -> Value {
    let frame = include_str!("../../../../tests/golden/node-insert.json");
    serde_json::from_str::<Value>(frame).unwrap()["content"].clone()
}

/// Every key that a Go edge registers is there, with a value of the same type; only what we do not have is left out.
#[test]
fn a_registration_has_the_shape_of_the_recorded_one() {
    fn compare(path: &str, want: &Value, have: &Value) {
        match (want, have) {
            (Value::Object(want), Value::Object(have)) => {
                for (key, value) in want.iter().filter(|(key, _)| !key.starts_with("hugepages")) {
                    let path = format!("{path}.{key}");
                    compare(&path, value, have.get(key).unwrap_or_else(|| panic!("{path} is missing")));
                }
            }
            (Value::Array(want), Value::Array(have)) => {
                assert_eq!(want.len(), have.len(), "{path}");
                want.iter().zip(have).for_each(|(want, have)| compare(path, want, have));
            }
            (want, have) => {
                assert_eq!(std::mem::discriminant(want), std::mem::discriminant(have), "{path}");
                let same = [
                    "type",
                    "address",
                    "Port",
                    "memory",
                    "pods",
                    "cpu",
                    "capacity.ephemeral-storage",
                    "lastHeartbeatTime",
                ];
                if same.iter().any(|key| path.ends_with(key)) {
                    assert_eq!(want, have, "{path}");
                }
            }
        }
    }
    let object = view(LOAD, None, &mut Seen::default(), NOW).object();
    compare("node", &recorded(), &object);
    assert_eq!(object["metadata"]["labels"]["site"], "north");
    assert_eq!(object["status"]["conditions"][3]["status"], "True", "ready with the first message");
    assert!(object["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap().contains("-kubeedge-"));
}

#[test]
fn conditions_keep_the_time_of_their_last_change() {
    let mut seen = Seen::default();
    let known = recorded();
    let first = view(LOAD, Some(&known), &mut seen, UnixMillis(NOW.0 + 60_000));
    let conditions = &first.patch()["status"]["conditions"];
    assert_eq!(conditions[0]["lastTransitionTime"], known["status"]["conditions"][0]["lastTransitionTime"]);
    assert_eq!(conditions[3]["lastTransitionTime"], "2026-11-21T03:29:41Z", "it was not ready before");

    let full = HostLoad { memory_left: Some(1), disk_left: 1, ..LOAD };
    let second = view(full, Some(&known), &mut seen, UnixMillis(NOW.0 + 120_000));
    let conditions = &second.patch()["status"]["conditions"];
    assert_eq!((&conditions[0]["status"], &conditions[1]["status"]), (&json!("True"), &json!("True")));
    assert_eq!(conditions[0]["reason"], "KubeletHasInsufficientMemory");
    assert_eq!(conditions[1]["lastTransitionTime"], "2026-11-21T03:30:41Z");
    assert_eq!(conditions[3]["lastTransitionTime"], "2026-11-21T03:29:41Z");
    assert_ne!(first.essence(), second.essence());

    let later = view(LOAD, Some(&known), &mut Seen::default(), UnixMillis(NOW.0 + 900_000));
    assert_eq!(first.essence(), later.essence(), "heartbeats are no news");
}

#[test]
fn changed_addresses_replace_the_old_ones() {
    let mut known = recorded();
    assert_eq!(
        view(LOAD, Some(&known), &mut Seen::default(), NOW).patch()["status"]["addresses"].as_array().unwrap().len(),
        2
    );
    known["status"]["addresses"][0]["address"] = json!("192.0.2.99");
    let patch = view(LOAD, Some(&known), &mut Seen::default(), NOW).patch();
    assert_eq!(patch["status"]["addresses"][2], json!({"$patch": "replace"}));
    assert!(patch["status"].get("daemonEndpoints").is_none(), "the port of the tunnel stays");
}

#[test]
fn a_runtime_that_is_down_makes_the_node_not_ready() {
    let down = Err("pod runtime cannot be reached".to_owned());
    let view = NodeView::new(&config(), &facts(), LOAD, down, None, &mut Seen::default(), NOW);
    let ready = &view.object()["status"]["conditions"][3];
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("KubeletNotReady")));
}

#[test]
fn labels_are_missed_only_where_something_is_known() {
    let bare = |known: Option<&Value>| view(LOAD, known, &mut Seen::default(), NOW).has_labels();
    assert!(bare(None));
    let mut known = recorded();
    assert!(!bare(Some(&known)), "the label site is missing");
    known["metadata"]["labels"]["site"] = json!("north");
    assert!(bare(Some(&known)));
}
