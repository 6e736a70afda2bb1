#![allow(clippy::unwrap_used)]
use std::time::Duration;

use kubeedge_core::names::{Namespace, ObjectName, Uid};
use serde_json::{Value, json};

use super::*;
use crate::edged::{
    decide::{Waiting, back_off::BackOffs},
    report::{PodKey, Told},
    runtime::{ContainerId, ImageRef, SandboxId, SandboxStatus},
};

/// 2026-11-21T03:37:16Z, when the recorded pod came.
const CREATED: UnixMillis = UnixMillis(1_795_232_236_561);

struct Scene {
    pod: Pod,
    goal: Goal,
    told: Option<PodStatus>,
    observed: Observed,
    memory: Memory,
    crash_loops: BTreeMap<String, String>,
    ended: bool,
    now: UnixMillis,
}

fn scene(pod: &Value) -> Scene {
    Scene {
        pod: serde_json::from_value(pod.clone()).unwrap(),
        goal: Goal::Run,
        told: None,
        observed: Observed::default(),
        memory: Memory {
            back_off: BackOffs::new(Duration::from_secs(10), Duration::from_mins(5)),
            waiting: BTreeMap::new(),
            stopping: BTreeMap::new(),
        },
        crash_loops: BTreeMap::new(),
        ended: false,
        now: CREATED,
    }
}

fn plain(policy: &str) -> Value {
    json!({"metadata": {"name": "plain", "namespace": "default", "uid": "u"}, "spec": {
        "restartPolicy": policy, "containers": [{"name": "main", "image": "registry.local/busybox:1", "volumeMounts": [
            {"name": "kube-api-access-2q7lc", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true},
        ]}],
    }})
}

impl Scene {
    fn sandbox(&mut self, ready: bool) {
        self.observed.sandboxes = vec![SandboxStatus {
            id: SandboxId::new("s"),
            uid: Uid::new("u").unwrap(),
            attempt: 0,
            ready,
            created_at: CREATED,
            ip: Some("10.88.0.9".into()),
        }];
    }

    fn has(&mut self, name: &str, attempt: u32, state: ContainerState) {
        self.observed.containers.push(ContainerStatus {
            id: ContainerId::new(format!("c{attempt}")),
            sandbox: SandboxId::new("s"),
            name: name.to_owned(),
            attempt,
            image: ImageRef { name: "registry.local/busybox:1".into(), id: "sha256:1".into() },
            spec_hash: String::new(),
            state,
            log_path: "/log".into(),
        });
    }

    fn status(&self) -> PodStatus {
        pod_status(&StatusInput {
            pod: &self.pod,
            goal: self.goal,
            told: self.told.as_ref(),
            observed: &self.observed,
            memory: &self.memory,
            crash_loops: &self.crash_loops,
            ended: self.ended,
            runtime: "containerd",
            host_ip: Some("192.0.2.2"),
            now: self.now,
        })
    }

    /// The content of the message that tells the status.
    fn patch(&self) -> Value {
        let key = PodKey { namespace: Namespace::new("default").unwrap(), name: ObjectName::new("plain").unwrap() };
        let told = Told { uid: Uid::new("u").unwrap(), status: self.status() };
        let writes = key.tell(&told, self.now).unwrap();
        let kubeedge_core::meta::MetaWrite::Put(entry, _) = &writes[1] else { panic!("not an entry of the outbox") };
        let message = kubeedge_core::outbox::message(entry).unwrap();
        assert_eq!(message.resource.to_string(), "default/podpatch/plain");
        serde_json::from_str(&message.content.as_text().expect("content is text")).unwrap()
    }
}

fn exited(code: i32, second: i64) -> ContainerState {
    ContainerState::Exited {
        started_at: Some(UnixMillis(CREATED.0 + second * 1000)),
        exit: Exit {
            code,
            signal: None,
            finished_at: Some(UnixMillis(CREATED.0 + second * 1000)),
            reason: if code == 0 { "Completed" } else { "Error" }.into(),
            message: String::new(),
        },
    }
}

fn recorded(frames: &str, n: usize) -> Value {
    let frames: Value = serde_json::from_str(frames).unwrap();
    serde_json::from_str(frames[n]["content"].as_str().unwrap()).unwrap()
}

/// All that the recorded patch says is said here too, with the same words; times and ids aside.
fn says(path: &str, want: &Value, have: &Value) {
    match (want, have) {
        (Value::Object(want), Value::Object(have)) => {
            for (key, value) in want.iter().filter(|(key, _)| !key.starts_with('$')) {
                let path = format!("{path}.{key}");
                says(&path, value, have.get(key).unwrap_or_else(|| panic!("{path} is missing")));
            }
        }
        (Value::Array(want), Value::Array(have)) => {
            for value in want {
                let same = |have: &&Value| ["type", "name", "ip"].iter().all(|key| value[key] == have[key]);
                let found = have.iter().find(same).unwrap_or_else(|| panic!("{path} lacks {value}"));
                says(path, value, found);
            }
        }
        _ if ["uid", "containerID", "imageID", "image"].iter().any(|key| path.ends_with(key)) => {}
        _ if path.ends_with("Time") || path.ends_with("At") => assert_eq!(want.is_null(), have.is_null(), "{path}"),
        _ => assert_eq!(want, have, "{path}"),
    }
}

#[test]
fn a_pod_that_starts_is_told_as_recorded() {
    let golden = include_str!("../../../tests/golden/podpatch-plain.json");
    let mut scene = scene(&plain("Always"));
    says("pending", &recorded(golden, 0), &scene.patch());
    assert_eq!(scene.patch()["status"]["phase"], "Pending");

    scene.told = Some(scene.status());
    scene.now = UnixMillis(CREATED.0 + 2000);
    scene.sandbox(true);
    scene.has("main", 0, ContainerState::Running { started_at: scene.now });
    let patch = scene.patch();
    says("running", &recorded(golden, 1), &patch);
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    let changed: Vec<_> = conditions
        .iter()
        .filter(|condition| condition["lastTransitionTime"] == "2026-11-21T03:37:18Z")
        .map(|condition| condition["type"].as_str().unwrap())
        .collect();
    assert_eq!(changed, ["PodReadyToStartContainers", "Ready", "ContainersReady"]);
    assert_eq!(patch["status"]["startTime"], "2026-11-21T03:37:16Z");
    assert_eq!(patch["status"]["containerStatuses"][0]["containerID"], "containerd://c0");
}

#[test]
fn a_crash_loop_is_told_as_recorded() {
    let golden = include_str!("../../../tests/golden/podpatch-crash.json");
    let mut crash = plain("Always");
    crash["metadata"]["name"] = json!("crash");
    crash["spec"]["containers"][0]["volumeMounts"] = Value::Null;
    let mut scene = scene(&crash);
    scene.sandbox(true);
    scene.has("main", 0, exited(3, 0));
    says("crashed", &recorded(golden, 2), &scene.patch());
    assert_eq!(scene.status().phase.unwrap(), "Running");
    scene.has("main", 1, exited(3, 1));
    says("crashed again", &recorded(golden, 3), &scene.patch());
    let message =
        "back-off 10s restarting failed container=main pod=crash_default(e2469797-0752-46e3-93f2-9275638a6531)";
    scene.crash_loops.insert("main".into(), message.into());
    says("waits", &recorded(golden, 4), &scene.patch());
    assert_eq!(scene.status().phase.unwrap(), "Running");

    scene.goal = Goal::End(Duration::ZERO);
    scene.ended = true;
    scene.sandbox(false);
    says("ended", &recorded(golden, 8), &scene.patch());
}

#[test]
fn a_finished_pod_says_how_it_went() {
    // policy, exit code, phase before and after nothing is left to do
    for (policy, code, before, after) in [
        ("Never", 0, "Succeeded", "Succeeded"),
        ("Never", 2, "Failed", "Failed"),
        ("OnFailure", 0, "Succeeded", "Succeeded"),
        ("OnFailure", 2, "Running", "Failed"),
        ("Always", 0, "Running", "Succeeded"),
    ] {
        let mut scene = scene(&plain(policy));
        scene.sandbox(true);
        scene.has("main", 0, exited(code, 1));
        assert_eq!(scene.status().phase.unwrap(), before, "{policy} {code}");
        scene.ended = true;
        assert_eq!(scene.status().phase.as_deref(), Some(after), "{policy} {code}");
        scene.told = Some(scene.status());
        scene.observed = Observed::default();
        assert_eq!(scene.status().phase.as_deref(), Some(after), "it stays so");
    }
}

#[test]
fn what_a_container_waits_for_is_told() {
    let mut scene = scene(&plain("Always"));
    scene.sandbox(true);
    let waiting = Waiting {
        reason: "CreateContainerConfigError".into(),
        message: "configmap \"web\" not found".into(),
        until: CREATED,
    };
    scene.memory.waiting.insert("main".into(), waiting);
    let patch = scene.patch();
    let state = &patch["status"]["containerStatuses"][0]["state"];
    assert_eq!(
        state,
        &json!({"waiting": {"reason": "CreateContainerConfigError", "message": "configmap \"web\" not found"}})
    );
    assert_eq!(patch["status"]["phase"], "Pending");
}

#[test]
fn a_pod_deleted_before_it_ran_has_failed_with_an_unknown_status() {
    let mut scene = scene(&plain("Always"));
    scene.goal = Goal::End(Duration::ZERO);
    scene.ended = true;
    let status = scene.patch()["status"].clone();
    let terminated = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(137), &json!("ContainerStatusUnknown")));
    assert_eq!(status["phase"], "Failed");
}

#[test]
fn init_containers_hold_the_pod_back() {
    let mut with_init = plain("Always");
    with_init["spec"]["initContainers"] = json!([{"name": "prepare", "image": "i"}]);
    let mut scene = scene(&with_init);
    scene.sandbox(true);
    scene.has("prepare", 0, ContainerState::Running { started_at: CREATED });
    let status = scene.patch()["status"].clone();
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(status["conditions"][1]["message"], "containers with incomplete status: [prepare]");
    scene.observed.containers.clear();
    scene.has("prepare", 0, exited(0, 1));
    scene.has("main", 0, ContainerState::Running { started_at: CREATED });
    let status = scene.patch()["status"].clone();
    assert_eq!((&status["phase"], &status["conditions"][1]["status"]), (&json!("Running"), &json!("True")));
    assert_eq!(status["conditions"][2]["status"], "True");
}

#[test]
fn quality_of_service_follows_from_requests_and_limits() {
    let class = |resources: Value| {
        let mut pod = plain("Always");
        pod["spec"]["containers"][0]["resources"] = resources;
        scene(&pod).status().qos_class.unwrap()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "64Mi"}})), "Guaranteed");
    assert_eq!(class(json!({"requests": {"cpu": "100m"}})), "Burstable");
    assert_eq!(class(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "64Mi"}})), "Burstable");
}
