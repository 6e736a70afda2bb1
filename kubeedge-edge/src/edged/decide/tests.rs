#![allow(clippy::unwrap_used)]
use kubeedge_core::names::Uid;
use serde_json::{Value, json};

use super::*;
use crate::edged::runtime::{Exit, ImageRef};

const NOW: UnixMillis = UnixMillis(1_000_000_000);

/// A pod, what is there of it, and what is decided.
struct Case {
    pod: Pod,
    goal: Goal,
    told: Option<PodStatus>,
    observed: Observed,
    memory: Memory,
}

fn pod(spec: &Value) -> Case {
    let mut full = json!({"restartPolicy": "Always", "containers": [{"name": "main", "image": "i"}]});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let pod = json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u1"}, "spec": full});
    Case {
        pod: serde_json::from_value(pod).unwrap(),
        goal: Goal::Run,
        told: None,
        observed: Observed::default(),
        memory: Memory {
            back_off: BackOffs::new(Duration::from_secs(10), Duration::from_mins(5)),
            waiting: BTreeMap::new(),
            stopping: BTreeMap::new(),
        },
    }
}

fn seconds_ago(seconds: i64) -> UnixMillis {
    UnixMillis(NOW.0 - seconds * 1000)
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: seconds_ago(60) }
}

fn exited(code: i32, ago: i64) -> ContainerState {
    let exit =
        Exit { code, signal: None, finished_at: Some(seconds_ago(ago)), reason: String::new(), message: String::new() };
    ContainerState::Exited { started_at: Some(seconds_ago(ago + 1)), exit }
}

impl Case {
    fn sandbox(mut self, attempt: u32, ready: bool) -> Self {
        self.observed.sandboxes.push(SandboxStatus {
            id: SandboxId::new(format!("s{attempt}")),
            uid: Uid::new("u1").unwrap(),
            attempt,
            ready,
            created_at: seconds_ago(100),
            ip: None,
        });
        self
    }

    fn has(mut self, name: &str, attempt: u32, state: ContainerState) -> Self {
        let spec = self.pod.spec.as_ref().unwrap();
        let container = spec.init_containers.iter().flatten().chain(&spec.containers).find(|c| c.name == name);
        self.observed.containers.push(ContainerStatus {
            id: ContainerId::new(format!("{name}-{attempt}")),
            sandbox: self.observed.sandboxes.last().unwrap().id.clone(),
            name: name.to_owned(),
            attempt,
            image: ImageRef::default(),
            spec_hash: spec_hash(container.unwrap()),
            state,
            log_path: "/log".into(),
        });
        self
    }

    fn told(mut self, status: Value) -> Self {
        self.told = serde_json::from_value(status).unwrap();
        self
    }

    fn ending(mut self, grace: u64) -> Self {
        self.goal = Goal::End(Duration::from_secs(grace));
        self
    }

    fn plan(&self) -> Plan {
        decide(&Input {
            pod: &self.pod,
            goal: self.goal,
            told: self.told.as_ref(),
            observed: &self.observed,
            memory: &self.memory,
            now: NOW,
        })
    }

    /// The actions in short.
    fn does(&self) -> Vec<String> {
        let name = |action: &Action| match action {
            Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
            Action::Start { container, attempt, .. } => format!("start {container} {attempt}"),
            Action::Stop { id, grace } => format!("stop {id} {}s", grace.as_secs()),
            Action::Remove { id } => format!("remove {id}"),
            Action::StopSandbox { id } => format!("stop {id}"),
            Action::RemoveSandbox { id } => format!("remove {id}"),
        };
        self.plan().actions.iter().map(name).collect()
    }
}

#[test]
fn a_new_pod_gets_a_sandbox_and_then_its_containers() {
    let two = json!({"containers": [{"name": "main"}, {"name": "side"}]});
    assert_eq!(pod(&two).does(), ["sandbox 0"]);
    assert_eq!(pod(&two).sandbox(0, true).does(), ["start main 0", "start side 0"]);
    assert_eq!(pod(&two).sandbox(0, true).has("main", 0, running()).does(), ["start side 0"]);
    let all = pod(&two).sandbox(0, true).has("main", 0, running()).has("side", 0, running());
    assert_eq!(all.plan(), Plan::default());
    let created = pod(&json!({})).sandbox(0, true).has("main", 0, ContainerState::Created);
    assert_eq!(created.does(), ["remove main-0"], "what was not started is made again");
}

#[test]
fn restart_policies() {
    // policy, exit code, restarted, ended
    let table = [
        ("Always", 0, true, false),
        ("Always", 1, true, false),
        ("OnFailure", 0, false, true),
        ("OnFailure", 1, true, false),
        ("Never", 0, false, true),
        ("Never", 1, false, true),
    ];
    for (policy, code, restarted, ended) in table {
        let spec = json!({"restartPolicy": policy});
        let does = pod(&spec).sandbox(0, true).has("main", 0, exited(code, 1)).does();
        let want: &[&str] = if restarted { &["start main 1"] } else { &["stop s0"] };
        assert_eq!(does, want, "{policy} {code}");
        let plan = pod(&spec).sandbox(0, false).has("main", 0, exited(code, 1)).plan();
        assert_eq!(plan.ended, ended, "{policy} {code}");
        assert_eq!(plan.actions.is_empty(), ended, "{policy} {code}");
    }
}

#[test]
fn a_crashing_container_waits_for_its_back_off() {
    let mut case = pod(&json!({})).sandbox(0, true).has("main", 1, exited(3, 4));
    assert_eq!(case.does(), ["start main 2"]);
    case.memory.back_off.note("main", seconds_ago(30), seconds_ago(30));
    let plan = case.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.wake, Some(Duration::from_secs(6)));
    assert_eq!(plan.crash_loops["main"], "back-off 10s restarting failed container=main pod=web_shop(u1)");
    case.memory.back_off = BackOffs::new(Duration::from_secs(4), Duration::from_mins(5));
    case.memory.back_off.note("main", seconds_ago(30), seconds_ago(30));
    assert_eq!(case.does(), ["start main 2"], "the time is over");
}

#[test]
fn a_container_that_waits_is_not_tried_before_its_time() {
    let mut case = pod(&json!({})).sandbox(0, true);
    let waiting = Waiting { reason: "r".into(), message: "m".into(), until: UnixMillis(NOW.0 + 3000) };
    case.memory.waiting.insert("main".into(), waiting);
    assert_eq!(case.plan(), Plan { wake: Some(Duration::from_secs(3)), ..Plan::default() });
    case.memory.waiting.get_mut("main").unwrap().until = NOW;
    assert_eq!(case.does(), ["start main 0"]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let spec = json!({"initContainers": [{"name": "a"}, {"name": "b"}]});
    let case = || pod(&spec).sandbox(0, true);
    assert_eq!(case().does(), ["start a 0"]);
    assert_eq!(case().has("a", 0, running()).does(), [""; 0]);
    assert_eq!(case().has("a", 0, exited(0, 1)).does(), ["start b 0"]);
    assert_eq!(case().has("a", 0, exited(0, 1)).has("b", 0, exited(1, 1)).does(), ["start b 1"]);
    assert_eq!(case().has("a", 0, exited(0, 1)).has("b", 0, exited(0, 1)).does(), ["start main 0"]);
    // Once the pod is up, they are history.
    assert_eq!(case().has("main", 0, running()).does(), [""; 0]);

    let never = json!({"restartPolicy": "Never", "initContainers": [{"name": "a"}]});
    assert_eq!(pod(&never).sandbox(0, true).has("a", 0, exited(1, 1)).does(), ["stop s0"]);
    let failed = pod(&never).sandbox(0, false).has("a", 0, exited(1, 1));
    assert!(failed.plan().ended, "it is not tried again in a new sandbox");
}

#[test]
fn sidecars_start_before_the_others_and_end_after_them() {
    let spec = json!({
        "restartPolicy": "Never", "initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "a"}],
    });
    let case = || pod(&spec).sandbox(0, true);
    assert_eq!(case().does(), ["start proxy 0"]);
    assert_eq!(case().has("proxy", 0, running()).does(), ["start a 0"]);
    let up = || case().has("proxy", 0, running()).has("a", 0, exited(0, 9));
    assert_eq!(up().does(), ["start main 0"]);
    assert_eq!(up().has("main", 0, exited(0, 1)).does(), ["stop proxy-0 30s"]);
    let crashed = case().has("proxy", 0, exited(1, 1)).has("a", 0, exited(0, 9)).has("main", 0, running());
    assert_eq!(crashed.does(), ["start proxy 1"]);
}

#[test]
fn deletion_stops_within_the_grace_and_never_starts_anything() {
    assert!(pod(&json!({})).ending(30).plan().ended, "nothing was there");
    let mut case = pod(&json!({})).ending(30).sandbox(0, true).has("main", 0, running());
    assert_eq!(case.does(), ["stop main-0 30s"]);
    case.memory.stopping.insert(ContainerId::new("main-0"), later(NOW, Duration::from_secs(29)));
    assert_eq!(case.does(), [""; 0], "it is being stopped");
    case.goal = Goal::End(Duration::ZERO);
    assert_eq!(case.does(), ["stop main-0 2s"], "a forced deletion shortens the grace");
    assert!(!case.plan().ended);
    assert_eq!(pod(&json!({})).ending(30).sandbox(0, true).has("main", 0, exited(1, 1)).does(), ["stop s0"]);
    assert!(pod(&json!({})).ending(30).sandbox(0, false).has("main", 0, exited(1, 1)).plan().ended);
}

#[test]
fn a_pod_that_has_ended_stays_ended() {
    let finished = json!({"phase": "Failed"});
    assert!(pod(&json!({})).told(finished.clone()).plan().ended);
    assert_eq!(pod(&json!({})).told(finished).sandbox(0, true).has("main", 0, running()).does(), ["stop main-0 30s"]);
}

#[test]
fn a_lost_container_counts_as_a_restart() {
    let status = json!({"phase": "Running", "containerStatuses": [
        {"name": "main", "image": "i", "imageID": "", "ready": true, "restartCount": 4, "containerID": "native://x"},
    ]});
    assert_eq!(pod(&json!({})).told(status.clone()).sandbox(0, true).does(), ["start main 5"]);
    assert!(pod(&json!({"restartPolicy": "Never"})).told(status).plan().ended, "nobody knows how it ended");
}

#[test]
fn a_lost_sandbox_is_replaced_when_its_containers_have_ended() {
    let case = pod(&json!({})).sandbox(3, false).has("main", 2, running());
    assert_eq!(case.does(), ["stop main-2 30s"]);
    let case = pod(&json!({})).sandbox(3, false).has("main", 2, exited(137, 1));
    assert_eq!(case.does(), ["sandbox 4"]);
    let case = pod(&json!({})).sandbox(3, false).has("main", 2, exited(137, 1)).sandbox(4, true);
    assert_eq!(case.does(), ["start main 3"], "the old sandbox is kept for its exit status until then");
    let case = case.has("main", 3, running());
    assert_eq!(case.does(), ["remove s3"]);
}

#[test]
fn a_changed_image_replaces_the_container_at_once() {
    let mut case = pod(&json!({"restartPolicy": "Never"})).sandbox(0, true).has("main", 0, running());
    case.pod.spec.as_mut().unwrap().containers[0].image = Some("other".into());
    assert_eq!(case.does(), ["stop main-0 30s"]);
    case.observed.containers[0].state = exited(143, 0);
    case.memory.back_off.note("main", NOW, NOW);
    assert_eq!(case.does(), ["start main 1"]);
}

#[test]
fn only_the_last_two_starts_are_kept() {
    let case = pod(&json!({})).sandbox(0, true).has("main", 0, exited(1, 30)).has("main", 1, exited(1, 20)).has(
        "main",
        2,
        running(),
    );
    assert_eq!(case.does(), ["remove main-0"]);
}
