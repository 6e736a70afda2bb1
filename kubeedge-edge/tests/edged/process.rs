//! The runtime of native processes by itself.

use std::{sync::Arc, time::Duration};

use kubeedge_core::names::{Namespace, ObjectName, SystemClock, Uid};
use kubeedge_edge::edged::{
    ContainerConfig, ContainerState, ImageRef, PodRuntime as _, ProcessRuntime, SandboxConfig, SandboxId,
};

async fn sandbox(runtime: &ProcessRuntime, dir: &std::path::Path) -> SandboxId {
    let config = SandboxConfig {
        uid: Uid::new("uid-web").unwrap(),
        namespace: Namespace::new("shop").unwrap(),
        name: ObjectName::new("web").unwrap(),
        hostname: "web".into(),
        attempt: 0,
        log_directory: dir.join("logs"),
    };
    runtime.run_sandbox(config).await.unwrap()
}

/// A full disk between the start of a process and the note about it must not make it run twice.
#[tokio::test]
async fn a_started_process_whose_state_cannot_be_written_is_known_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("native");
    let runtime = ProcessRuntime::open(&root, Arc::new(SystemClock)).await.unwrap();
    let sandbox = sandbox(&runtime, dir.path()).await;
    let config = ContainerConfig {
        name: "main".into(),
        attempt: 0,
        image: ImageRef { name: "native://sleep".into(), id: String::new() },
        spec_hash: String::new(),
        command: vec!["sleep".into(), "1000".into()],
        args: Vec::new(),
        working_dir: String::new(),
        mounts: Vec::new(),
        env: Vec::new(),
        // The log is opened just before the start: its directory then stands where the next state is written.
        log_path: root.join(sandbox.as_str()).join("main/0.new/main.log"),
    };
    let id = runtime.create_container(&sandbox, config).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let containers = runtime.list_containers(None).await.unwrap();
    assert!(matches!(containers[0].state, ContainerState::Running { .. }), "{:?}", containers[0]);
    runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let containers = runtime.list_containers(None).await.unwrap();
    assert!(matches!(containers[0].state, ContainerState::Exited { .. }), "{:?}", containers[0]);
}
