//! A runtime without processes: containers run until the test says that they have ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    names::{SharedClock, Uid, UnixMillis, WallClock},
    service::Subscription,
};
use kubeedge_edge::edged::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Exit, ImageRef, PodRuntime, PullPolicy,
    RuntimeError, RuntimeEvent, RuntimeVersion, SandboxConfig, SandboxId, SandboxStatus,
};
use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::CancellationToken;

/// A clock that goes with the paused time of a test.
pub(crate) struct PausedClock(pub(crate) Instant);

impl WallClock for PausedClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_795_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
}

pub(crate) struct FakeRuntime {
    clock: SharedClock,
    /// Whether containers end as soon as they are started.
    crashing: bool,
    state: Mutex<State>,
    events: broadcast::Sender<Uid>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, SandboxStatus>,
    containers: BTreeMap<ContainerId, ContainerStatus>,
    starts: Vec<UnixMillis>,
}

impl FakeRuntime {
    pub(crate) fn new(clock: SharedClock, crashing: bool) -> Arc<Self> {
        Arc::new(Self { clock, crashing, state: Mutex::default(), events: broadcast::channel(64).0 })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// When containers were started.
    pub(crate) fn starts(&self) -> Vec<UnixMillis> {
        self.lock().starts.clone()
    }

    /// Ends all containers.
    pub(crate) fn crash(&self) {
        let now = self.clock.now();
        for container in self.lock().containers.values_mut().filter(|container| container.is_running()) {
            end(container, now, 1);
        }
        self.changed();
    }

    fn changed(&self) {
        _ = self.events.send(Uid::new("uid-web").unwrap());
    }
}

fn end(container: &mut ContainerStatus, now: UnixMillis, code: i32) {
    let exit = Exit { code, signal: None, finished_at: Some(now), reason: "Error".into(), message: String::new() };
    container.state = ContainerState::Exited { started_at: Some(now), exit };
}

#[async_trait]
impl PodRuntime for FakeRuntime {
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError> {
        Ok(RuntimeVersion { name: "fake".into(), version: "1".into() })
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let id = SandboxId::new(format!("s{}", config.attempt));
        let created_at = self.clock.now();
        let status = SandboxStatus {
            id: id.clone(),
            uid: config.uid,
            attempt: config.attempt,
            ready: true,
            created_at,
            ip: None,
        };
        self.lock().sandboxes.insert(id.clone(), status);
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        if let Some(sandbox) = self.lock().sandboxes.get_mut(id) {
            sandbox.ready = false;
        }
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let mut state = self.lock();
        state.sandboxes.remove(id);
        state.containers.retain(|_, container| container.sandbox != *id);
        Ok(())
    }

    async fn list_sandboxes(&self, _: Option<&Uid>) -> Result<Vec<SandboxStatus>, RuntimeError> {
        Ok(self.lock().sandboxes.values().cloned().collect())
    }

    async fn ensure_image(&self, image: &str, _: PullPolicy) -> Result<ImageRef, RuntimeError> {
        Ok(ImageRef { name: image.into(), id: "sha256:0".into() })
    }

    fn provided_env(&self, _: &SandboxId, _: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let id = ContainerId::new(format!("{}-{}", config.name, config.attempt));
        let status = ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.clone(),
            name: config.name,
            attempt: config.attempt,
            image: config.image,
            spec_hash: config.spec_hash,
            state: ContainerState::Created,
            log_path: config.log_path,
        };
        self.lock().containers.insert(id.clone(), status);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let now = self.clock.now();
        let mut state = self.lock();
        state.starts.push(now);
        let container = state.containers.get_mut(id).unwrap();
        container.state = ContainerState::Running { started_at: now };
        if self.crashing {
            end(container, now, 3);
        }
        drop(state);
        self.changed();
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, _: Duration) -> Result<(), RuntimeError> {
        let now = self.clock.now();
        if let Some(container) = self.lock().containers.get_mut(id) {
            end(container, now, 143);
        }
        self.changed();
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.lock().containers.remove(id);
        Ok(())
    }

    async fn list_containers(&self, _: Option<&Uid>) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(self.lock().containers.values().cloned().collect())
    }

    async fn events(&self) -> Result<Subscription<RuntimeEvent>, RuntimeError> {
        let events = self.events.subscribe();
        let items = futures_util::stream::unfold(events, |mut events| async move {
            let uid = events.recv().await.ok()?;
            Some((RuntimeEvent::PodChanged(uid), events))
        });
        Ok(Subscription::new(items, CancellationToken::new()))
    }
}
