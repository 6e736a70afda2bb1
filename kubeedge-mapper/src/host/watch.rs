use std::time::Duration;

use kubeedge_core::{
    service::{Causes, Subscription},
    twin::{DeviceSelector, Twin, TwinEvent, TwinHandle},
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backoff::{Backoff, Retry};

/// What the watch has to tell.
pub(super) enum Change {
    /// Of a twin.
    Twin(Twin),
    /// Something was missed: every twin may have changed.
    All,
}

/// A watch on all twins that is opened again whenever it ends.
pub(super) struct TwinWatch {
    twins: TwinHandle,
    limit: Duration,
    backoff: Backoff,
    retry: Retry,
    open: Option<Subscription<TwinEvent>>,
}

impl TwinWatch {
    pub(super) fn new(twins: TwinHandle, limit: Duration, backoff: Backoff) -> Self {
        Self { twins, limit, backoff, retry: Retry::default(), open: None }
    }

    /// The next change. Cancel safe: a watch that was being opened is opened by the next call.
    pub(super) async fn next(&mut self) -> Change {
        loop {
            if let Some(open) = &mut self.open {
                match open.next().await {
                    Some(TwinEvent::Changed { twin, .. }) => return Change::Twin(twin),
                    Some(TwinEvent::Lagged(missed)) => {
                        tracing::debug!(missed, "watch of the twins lagged");
                        return Change::All;
                    }
                    // The owner of the host removes devices; other events are not about values.
                    Some(_) => continue,
                    None => {
                        self.open = None;
                        self.retry.failed(self.backoff, Instant::now().into_std());
                    }
                }
            }
            sleep_until(self.retry.at(Instant::now().into_std()).into()).await;
            match timeout(self.limit, self.twins.watch(DeviceSelector::All)).await {
                Ok(Ok(open)) => {
                    self.open = Some(open);
                    self.retry.clear();
                    return Change::All;
                }
                Ok(Err(error)) => tracing::warn!(error = %Causes(&error), "twins cannot be watched"),
                Err(_) => tracing::warn!("no answer in time to the watch of the twins"),
            }
            self.retry.failed(self.backoff, Instant::now().into_std());
        }
    }
}
