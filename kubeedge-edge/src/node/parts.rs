//! The running parts of a node, in stages.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Why a node does not run any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("part {part} ended")]
pub struct Stopped {
    /// The part that ended first: `hub`, `outbox`, `devices`, `mapper`, `dmi`, `pods` or `twins`.
    pub part: &'static str,
}

/// Parts that did not end within the grace period of a shutdown and were aborted. Nothing that was acknowledged is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("aborted after the grace period: {}", parts.join(", "))]
pub struct Unfinished {
    /// Their names.
    pub parts: Vec<&'static str>,
}

/// When a part is told to stop. Within a stage all stop side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// What comes from the cloud and goes there.
    Link,
    /// What changes twins and pods.
    Work,
    /// What tells others of it.
    Tell,
}

#[derive(Debug, Default)]
struct Running {
    stop: CancellationToken,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

/// Tasks of a node; dropped, they are aborted.
#[derive(Debug)]
pub(super) struct Parts {
    stages: BTreeMap<Stage, Running>,
    ended: watch::Sender<Option<Stopped>>,
}

/// Tells that a part has ended, in whatever way.
struct Ends {
    part: &'static str,
    ended: watch::Sender<Option<Stopped>>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.ended.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(Stopped { part: self.part });
            is_first
        });
    }
}

impl Parts {
    pub(super) fn new() -> Self {
        Self { stages: BTreeMap::new(), ended: watch::Sender::new(None) }
    }

    /// Starts `part` on the present runtime; it gets the token that tells it to stop.
    pub(super) fn start<F>(&mut self, stage: Stage, part: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = self.stages.entry(stage).or_default();
        let (work, ends) = (run(running.stop.clone()), Ends { part, ended: self.ended.clone() });
        let task = tokio::spawn(async move {
            let _ends = ends;
            work.await;
        });
        running.tasks.push((part, task));
    }

    pub(super) fn ended(&self) -> watch::Receiver<Option<Stopped>> {
        self.ended.subscribe()
    }

    /// Stops stage after stage; what is not done in time is aborted. Each stage has an equal share of what is left of
    /// `grace`, so that a cloud that does not listen takes no time from the pods and twins.
    pub(super) async fn stop(mut self, grace: Duration) -> Result<(), Unfinished> {
        let end = Instant::now() + grace;
        let mut aborted = Vec::new();
        let mut left = u32::try_from(self.stages.len()).unwrap_or(u32::MAX);
        for running in self.stages.values_mut() {
            let now = Instant::now();
            let deadline = now + end.saturating_duration_since(now) / left;
            left -= 1;
            running.stop.cancel();
            for (part, task) in &mut running.tasks {
                match timeout_at(deadline, &mut *task).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(part, %error, "part of the node failed"),
                    Err(_) => {
                        task.abort();
                        // Until it is gone it may still use what the caller wants to close.
                        let _ = task.await;
                        aborted.push(*part);
                    }
                }
            }
            running.tasks.clear();
        }
        if aborted.is_empty() { Ok(()) } else { Err(Unfinished { parts: aborted }) }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (_, task) in self.stages.values().flat_map(|running| &running.tasks) {
            task.abort();
        }
    }
}
