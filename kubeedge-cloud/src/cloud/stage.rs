//! Tasks that start and end together.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Tells of a part that has ended too early.
#[derive(Clone, Debug)]
pub(super) struct Alarm(Arc<watch::Sender<Option<&'static str>>>);

impl Alarm {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// The first part that ended too early; waits for it.
    pub(super) async fn raised(&self) -> &'static str {
        let mut parts = self.0.subscribe();
        // The sender lives as long as `self`.
        parts.wait_for(Option::is_some).await.ok().and_then(|part| *part).unwrap_or("cloudcore")
    }
}

/// Tasks of one stage of the shutdown. `abort` ends them wherever they are.
#[derive(Debug)]
pub(super) struct Stage {
    cancel: CancellationToken,
    tasks: TaskTracker,
    abort: CancellationToken,
    alarm: Alarm,
}

impl Stage {
    pub(super) fn new(abort: CancellationToken, alarm: Alarm) -> Self {
        Self { cancel: CancellationToken::new(), tasks: TaskTracker::new(), abort, alarm }
    }

    /// Ask for the end of the stage is this token.
    pub(super) fn token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Runs `part`, which ends after the token is cancelled and not before.
    pub(super) fn spawn(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let watchdog =
            Watchdog { part: name, cancel: self.cancel.clone(), abort: self.abort.clone(), alarm: self.alarm.clone() };
        let abort = self.abort.clone();
        self.tasks.spawn(async move {
            let watchdog = watchdog;
            let _aborted = abort.run_until_cancelled(part).await;
            drop(watchdog);
        });
    }

    /// Ends the stage; whether it did within `grace`.
    pub(super) async fn end(&self, grace: Duration) -> bool {
        self.cancel.cancel();
        self.tasks.close();
        timeout(grace, self.tasks.wait()).await.is_ok()
    }
}

/// Raises the alarm when it is dropped early, by a panic too.
struct Watchdog {
    part: &'static str,
    cancel: CancellationToken,
    abort: CancellationToken,
    alarm: Alarm,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if !self.cancel.is_cancelled() && !self.abort.is_cancelled() {
            tracing::error!(part = self.part, "part has stopped");
            self.alarm.0.send_if_modified(|first| first.is_none().then(|| *first = Some(self.part)).is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_early_raises_the_alarm_and_one_that_hangs_is_given_up() {
        let (abort, alarm) = (CancellationToken::new(), Alarm::new());
        let stage = Stage::new(abort.clone(), alarm.clone());
        stage.spawn("polite", stage.token().cancelled_owned());
        stage.spawn("stubborn", std::future::pending());
        assert!(timeout(Duration::from_secs(1), alarm.raised()).await.is_err());
        stage.spawn("hasty", std::future::ready(()));
        assert_eq!(alarm.raised().await, "hasty");
        assert!(!stage.end(Duration::from_secs(1)).await);
        abort.cancel();
        assert!(stage.end(Duration::from_secs(1)).await);
    }
}
