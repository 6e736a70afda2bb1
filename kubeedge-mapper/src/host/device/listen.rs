//! What devices say by themselves.

use futures_util::FutureExt as _;
use kubeedge_core::{
    mapper::{DriverError, DriverHandle, Reading},
    names::PropertyName,
    service::{Causes, Subscription},
};

use super::{DeviceTask, now};
use crate::host::meter::Operation;

/// Where news of a device come from.
pub(super) enum News {
    /// The driver was not asked yet, or has ended its stream.
    Untried,
    /// They come by themselves.
    Open(Subscription<Reading>),
    /// The driver has none: the device is polled.
    Unsupported,
}

impl News {
    /// The next news; for ever pending where there are none. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Reading> {
        match self {
            Self::Open(readings) => readings.next().await,
            _ => std::future::pending().await,
        }
    }
}

impl DeviceTask {
    /// Readings that go into one report at most.
    const BATCH: usize = 256;

    pub(super) fn is_listening(&self) -> bool {
        matches!(self.news, News::Open(_))
    }

    /// Asks for news where the driver may have some; as long as it has none the device is polled.
    pub(super) async fn subscribe(&mut self, driver: &DriverHandle) {
        if !matches!(self.news, News::Untried) || !self.news_retry.is_ready(now()) {
            return;
        }
        let visitors = self.properties.values().map(|property| property.spec.visitor.clone()).collect();
        match self.call(driver.subscribe(visitors)).await {
            Ok(readings) => {
                tracing::debug!(device = %self.instance.id, "device speaks by itself");
                self.news = News::Open(readings);
            }
            Err(DriverError::Unsupported) => self.news = News::Unsupported,
            Err(error) => {
                if !self.news_retry.is_running() {
                    tracing::warn!(device = %self.instance.id, error = %Causes(&error), "no news of the device, it is polled");
                }
                self.news_retry.failed(self.shared.config.backoff, now());
            }
        }
    }

    /// Takes what has come in; `None` is the end of the stream.
    pub(super) fn heard(&mut self, first: Option<Reading>) {
        let mut next = first;
        for _ in 0..Self::BATCH {
            let Some(reading) = next else {
                tracing::info!(device = %self.instance.id, "news of the device have ended, it is polled");
                self.news = News::Untried;
                self.news_retry.failed(self.shared.config.backoff, now());
                return self.schedule.restart(now());
            };
            self.take(reading);
            match self.news.next().now_or_never() {
                Some(more) => next = more,
                None => return,
            }
        }
    }

    fn take(&mut self, Reading { property, outcome }: Reading) {
        match outcome {
            Ok(sample) => {
                self.news_retry.clear();
                self.answered();
                self.note(&property, &sample);
            }
            Err(error) => {
                self.judge(&error);
                self.complain(&property, "news of the property cannot be used", &error);
                if !error.is_transient()
                    && let Some(property) = self.properties.get_mut(&property)
                {
                    property.wish.unreadable();
                }
            }
        }
    }

    /// The beat of a device that speaks by itself. A property that has said nothing by the third one while the device is
    /// there may never do so, and what is desired of it does not wait any longer.
    pub(super) async fn wait_for_news(&mut self, driver: &DriverHandle, due: &[PropertyName]) {
        let refresh = std::mem::take(&mut self.refresh);
        for name in due {
            let Some(property) = self.properties.get_mut(name) else { continue };
            if !property.wish.is_unknown() {
                continue;
            }
            if refresh {
                let visitor = property.spec.visitor.clone();
                if let Ok(sample) = self.exchange(Operation::Read, driver.read(visitor)).await {
                    self.note(name, &sample);
                }
            } else if !self.health.is_offline() && self.health.state().is_some() {
                property.failures = property.failures.saturating_add(1);
                if property.failures >= 3 {
                    property.wish.unreadable();
                }
            }
        }
    }
}
