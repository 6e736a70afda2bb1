//! The agent dies and comes back, without a cloud.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kubeedge_core::{
    meta::{Collection, MetaHandle, MetaKey, Record, Selector},
    resource::ResourceType,
};
use kubeedge_edge::{edged::PodSnapshot, meta::SqliteStore};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::stage::{Agent, Cloud, SOON, Stage, eventually, is_alive, is_running, pid_in, script};

fn sleeper(file: &Path) -> Value {
    script("web", &format!("echo $$$$ > {}; exec sleep 1000", file.display()))
}

/// An agent with a pod that sleeps.
struct Sleeping {
    stage: Stage,
    /// Where it writes its process id.
    file: PathBuf,
    agent: Agent,
    before: PodSnapshot,
    pid: i32,
}

impl Sleeping {
    async fn begin() -> Self {
        let stage = Stage::new(Cloud::absent());
        let file = stage.dir.path().join("pid");
        stage.put(&ResourceType::Pod, &sleeper(&file)).await;
        let agent = stage.agent().await;
        let before = agent.sees("web", "running", is_running).await;
        let pid = pid_in(&file).await;
        Self { stage, file, agent, before, pid }
    }
}

#[tokio::test]
async fn running_processes_are_adopted_and_not_doubled() {
    let Sleeping { stage, file, agent, before, pid } = Sleeping::begin().await;
    let told = stage.left("podstatus/shop/web", |_| true).await;
    agent.kill().await;
    fs::remove_file(&file).unwrap();

    let agent = stage.agent().await;
    let after = agent.sees("web", "running", is_running).await;
    assert_eq!(before, after, "same container, no restart");
    assert!(is_alive(pid));
    assert!(!file.exists(), "nothing was started");
    assert_eq!(stage.left("podstatus/shop/web", |_| true).await.id, told.id, "nothing new is told");

    // It is watched like one's own child: its end is seen and it is started again.
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let again = agent.sees("web", "restarted", |pod| is_running(pod) && pod.containers[0].restart_count == 1).await;
    assert_ne!(again.containers[0].id, before.containers[0].id);
    assert_ne!(pid_in(&file).await, pid);
    stage.remove(&ResourceType::Pod, "web").await;
    agent.misses("web").await;
}

#[tokio::test]
async fn a_process_that_died_meanwhile_is_restarted() {
    let Sleeping { stage, agent, pid, .. } = Sleeping::begin().await;
    agent.kill().await;
    // As after a reboot: the process id is of no meaning any more.
    rewrite_state(&stage, |state| state["bootId"] = json!("another boot"));

    let agent = stage.agent().await;
    agent.sees("web", "restarted", |pod| is_running(pod) && pod.containers[0].restart_count == 1).await;
    let status = stage.told("web", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    let last = &status["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(137), &json!("ContainerStatusUnknown")));
    stage.remove(&ResourceType::Pod, "web").await;
    agent.misses("web").await;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn an_agent_killed_while_it_started_a_process_finds_it_again() {
    let Sleeping { stage, agent, before, pid, .. } = Sleeping::begin().await;
    agent.kill().await;
    // What would be on the disk if it had died between the start and its note of the process id.
    rewrite_state(&stage, |state| *state = json!({"phase": "starting", "startedAt": state["startedAt"]}));

    let agent = stage.agent().await;
    let after = agent.sees("web", "running", is_running).await;
    assert_eq!(before, after);
    stage.remove(&ResourceType::Pod, "web").await;
    agent.misses("web").await;
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_pod_that_was_removed_meanwhile_is_cleaned_up() {
    let Sleeping { stage, agent, pid, .. } = Sleeping::begin().await;
    agent.kill().await;
    stage.remove(&ResourceType::Pod, "web").await;

    let _agent = stage.agent().await;
    eventually("the end of the process", || !is_alive(pid)).await;
    let native = stage.native_dir();
    eventually("the end of the sandbox", || fs::read_dir(&native).unwrap().count() == 0).await;
    eventually("the end of the logs", || !stage.dir.path().join("logs/shop_web_uid-web").exists()).await;
}

#[tokio::test]
async fn a_pod_of_the_same_name_starts_when_the_former_is_gone() {
    let Sleeping { stage, agent, pid, .. } = Sleeping::begin().await;
    let mut second = script("web", "sleep 1000");
    second["metadata"]["uid"] = json!("uid-second");
    stage.put(&ResourceType::Pod, &second).await;
    agent.sees("web", "replaced", |pod| pod.uid.as_str() == "uid-second" && is_running(pod)).await;
    assert!(!is_alive(pid));
    assert!(!stage.dir.path().join("logs/shop_web_uid-web").exists());
    stage.remove(&ResourceType::Pod, "web").await;
    agent.misses("web").await;
}

/// After a real death of the agent its processes are children of init.
#[tokio::test]
async fn an_adopted_process_that_is_no_child_of_ours_ends_with_an_unknown_status() {
    let Sleeping { stage, agent, pid: first, .. } = Sleeping::begin().await;
    agent.kill().await;
    let foreign = stage.dir.path().join("foreign");
    let orphan = format!("sleep 1000 & echo $! > {}", foreign.display());
    let root = stage.native_dir().display().to_string();
    let parent = Command::new("/bin/sh").args(["-c", &orphan]).env("KUBEEDGE_POD_ROOT", root).status();
    assert!(parent.unwrap().success());
    let pid = pid_in(&foreign).await;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    rewrite_state(&stage, |state| {
        state["pid"] = json!(pid);
        state["startTicks"] = json!(ticks);
    });

    let agent = stage.agent().await;
    let adopted = agent.sees("web", "running", is_running).await;
    assert_eq!(adopted.containers[0].restart_count, 0);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    agent.sees("web", "restarted", |pod| is_running(pod) && pod.containers[0].restart_count == 1).await;
    let status = stage.told("web", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    let last = &status["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(137), &json!("ContainerStatusUnknown")));
    assert!(last["finishedAt"].is_string());
    assert!(is_alive(first), "a process that is not ours any more is left alone");
}

#[tokio::test]
async fn what_was_remembered_of_pods_that_are_gone_is_forgotten() {
    let stage = Stage::new(Cloud::absent());
    let key = |kind, name: &str| MetaKey::new(Collection::from(&kind), "shop", name);
    let told = json!({"uid": "uid-x", "status": {"phase": "Running"}}).to_string();
    for name in ["gone-1", "gone-2"] {
        stage.store.put(Record::new(key(ResourceType::PodStatus, name), told.clone())).await.unwrap();
        let token = key(ResourceType::ServiceAccountToken, &format!("uid-{name}/default/3600/"));
        stage.store.put(Record::new(token, "{}")).await.unwrap();
    }
    let kept = key(ResourceType::ServiceAccountToken, "uid-web/default/3600/");
    stage.store.put(Record::new(kept.clone(), "{}")).await.unwrap();
    stage.put(&ResourceType::Pod, &script("web", "sleep 1000")).await;
    let agent = stage.agent().await;
    agent.sees("web", "running", is_running).await;
    let names = async |kind| {
        let records = stage.store.list(Selector::all(Collection::from(&kind))).await.unwrap();
        records.into_iter().map(|record| record.key).collect::<Vec<_>>()
    };
    let forgotten = async {
        while names(ResourceType::PodStatus).await.len() > 1 || names(ResourceType::ServiceAccountToken).await.len() > 1
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, forgotten).await.expect("it stays for ever");
    assert_eq!(names(ResourceType::PodStatus).await, [key(ResourceType::PodStatus, "web")]);
    assert_eq!(names(ResourceType::ServiceAccountToken).await, [kept]);
    agent.stop().await;
}

#[tokio::test]
async fn a_closed_store_ends_the_driver_and_no_process() {
    let mut stage = Stage::new(Cloud::absent());
    stage.config.stop_pods_on_shutdown = Some(Duration::from_secs(1));
    let sqlite = SqliteStore::open(stage.dir.path().join("edge.db")).unwrap();
    stage.store = MetaHandle::of(sqlite.clone());
    let file = stage.dir.path().join("pid");
    stage.put(&ResourceType::Pod, &sleeper(&file)).await;
    let agent = stage.agent().await;
    agent.sees("web", "running", is_running).await;
    sqlite.close().await;
    let ended = tokio::time::timeout(SOON, agent.edged.wait_for(|_| false)).await.expect("it goes on without a store");
    assert_eq!(ended, None);
    assert!(is_alive(pid_in(&file).await));
}

/// Changes the only state of a container that is on the disk.
fn rewrite_state(stage: &Stage, change: impl FnOnce(&mut Value)) {
    let sandbox = fs::read_dir(stage.native_dir()).unwrap().next().unwrap().unwrap().path();
    let file = sandbox.join("main/0.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut record["state"]);
    fs::write(file, record.to_string()).unwrap();
}
