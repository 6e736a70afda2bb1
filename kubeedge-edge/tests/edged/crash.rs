//! Crash loops, in paused time.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    meta::{Collection, Selector},
    resource::ResourceType,
};
use kubeedge_edge::edged::PodRuntime as _;
use tokio::time::Instant;

use crate::{
    fake::{FakeRuntime, PausedClock},
    stage::{Cloud, Stage, script},
};

async fn starts(runtime: &FakeRuntime, count: usize) -> Vec<i64> {
    while runtime.starts().len() < count {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let starts = runtime.starts();
    starts.windows(2).map(|pair| (pair[1].0 - pair[0].0) / 1000).collect()
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off_and_says_so() {
    let mut stage = Stage::new(Cloud::absent());
    stage.clock = Arc::new(PausedClock(Instant::now()));
    let runtime = FakeRuntime::new(Arc::clone(&stage.clock), true);
    stage.put(&ResourceType::Pod, &script("web", "exit 3")).await;
    let agent = stage.agent_on(runtime.clone());
    let gaps = starts(&runtime, 9).await;
    assert_eq!(gaps, [0, 10, 20, 40, 80, 160, 300, 300]);
    let status = stage
        .told("web", |status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff")
        .await;
    let container = &status["containerStatuses"][0];
    assert_eq!(status["phase"], "Running");
    assert_eq!(container["restartCount"], 8);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    let message = container["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "back-off 5m0s restarting failed container=main pod=web_shop(uid-web)");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_run_makes_a_crash_forgotten() {
    let mut stage = Stage::new(Cloud::absent());
    stage.clock = Arc::new(PausedClock(Instant::now()));
    let runtime = FakeRuntime::new(Arc::clone(&stage.clock), false);
    stage.put(&ResourceType::Pod, &script("web", "")).await;
    let agent = stage.agent_on(runtime.clone());
    starts(&runtime, 1).await;
    for count in 2..5 {
        runtime.crash();
        starts(&runtime, count).await;
    }
    tokio::time::sleep(Duration::from_secs(601)).await;
    runtime.crash();
    starts(&runtime, 5).await;
    runtime.crash();
    let gaps = starts(&runtime, 6).await;
    assert_eq!(gaps[..3], [0, 10, 20]);
    assert_eq!(gaps[4], 10, "the delays begin anew: {gaps:?}");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_cannot_be_stored_is_told_later() {
    let mut stage = Stage::new(Cloud::absent());
    stage.clock = Arc::new(PausedClock(Instant::now()));
    let runtime = FakeRuntime::new(Arc::clone(&stage.clock), false);
    stage.put(&ResourceType::Pod, &script("web", "")).await;
    stage.disk.fail_commits(true);
    let agent = stage.agent_on(runtime.clone());
    starts(&runtime, 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let entries = stage.store.list(kubeedge_core::outbox::selector()).await.unwrap();
    assert_eq!((entries.len(), agent.edged.pods().len()), (0, 0));
    stage.disk.fail_commits(false);
    stage.told("web", |status| status["phase"] == "Running").await;
    assert_eq!(runtime.starts().len(), 1, "the pod ran all the time");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_week_without_a_cloud_leaves_no_more_behind_than_a_day() {
    let mut stage = Stage::new(Cloud::absent());
    stage.clock = Arc::new(PausedClock(Instant::now()));
    let runtime = FakeRuntime::new(Arc::clone(&stage.clock), true);
    stage.put(&ResourceType::Pod, &script("web", "exit 3")).await;
    let agent = stage.agent_on(runtime.clone());
    let mut left = Vec::new();
    for day in 1..=7 {
        tokio::time::sleep(Duration::from_hours(24)).await;
        assert!(runtime.starts().len() > day * 250, "it is started again all the time");
        let outbox = stage.store.list(kubeedge_core::outbox::selector()).await.unwrap();
        let remembered = Selector::all(Collection::from(&ResourceType::PodStatus));
        let containers = runtime.list_containers(None).await.unwrap();
        left.push((outbox.len(), stage.store.list(remembered).await.unwrap().len(), containers.len()));
    }
    assert!(left.iter().all(|day| *day == (1, 1, left[0].2)) && left[0].2 <= 3, "{left:?}");
    agent.stop().await;
}
