//! Calls on their way to the driver.

use std::{
    future::ready,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use kubeedge_core::{
    session::{Outbound, Receipt},
    uplink::{LinkState, UplinkError},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::PollSender;
use tower::Service;

use super::config::RateLimit;

/// A message that somebody wants settled.
pub(super) struct Call {
    pub(super) outbound: Outbound,
    pub(super) reply: oneshot::Sender<Result<Receipt, UplinkError>>,
}

/// Hands calls to the driver; fails at once while there is no link.
#[derive(Clone)]
pub(super) struct Calls {
    queue: PollSender<Call>,
    state: watch::Receiver<LinkState>,
}

impl Calls {
    pub(super) fn new(queue: mpsc::Sender<Call>, state: watch::Receiver<LinkState>) -> Self {
        Self { queue: PollSender::new(queue), state }
    }
}

impl Service<Outbound> for Calls {
    type Response = Receipt;
    type Error = UplinkError;
    type Future = BoxFuture<'static, Result<Receipt, UplinkError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UplinkError>> {
        // Without a link the driver refuses what is in the queue, so there is always room soon.
        self.queue.poll_reserve(cx).map_err(|_| UplinkError::Disconnected)
    }

    fn call(&mut self, outbound: Outbound) -> Self::Future {
        if !self.state.borrow().is_connected() {
            self.queue.abort_send();
            return Box::pin(ready(Err(UplinkError::Disconnected)));
        }
        let (reply, settled) = oneshot::channel();
        if self.queue.send_item(Call { outbound, reply }).is_err() {
            return Box::pin(ready(Err(UplinkError::Disconnected)));
        }
        Box::pin(async move { settled.await.unwrap_or(Err(UplinkError::Disconnected)) })
    }
}

/// A token bucket, kept as the time at which it would be empty.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    interval: Duration,
    slack: Duration,
    empty_at: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(limit: RateLimit) -> Self {
        let interval = Duration::from_secs(1) / limit.per_second.max(1);
        Self { interval, slack: interval * (limit.burst.max(1) - 1), empty_at: None }
    }

    /// When the next message may go.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        self.empty_at.map_or(now, |empty_at| empty_at.checked_sub(self.slack).unwrap_or(now).max(now))
    }

    pub(super) fn take(&mut self, now: Instant) {
        self.empty_at = Some(self.empty_at.unwrap_or(now).max(now) + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut now = Instant::now();
        let start = now;
        let mut bucket = Bucket::new(RateLimit { per_second: 30, burst: 60 });
        let mut sent = Vec::new();
        for _ in 0..120 {
            now = bucket.ready_at(now);
            bucket.take(now);
            sent.push(now - start);
        }
        assert_eq!(sent[59], Duration::ZERO, "a burst goes at once");
        assert!(sent[60] > Duration::ZERO, "and no more than that");
        let after = sent[119];
        assert!(
            after > Duration::from_millis(1900) && after < Duration::from_millis(2100),
            "60 more take 2 s: {after:?}"
        );
        // After a silence the burst is there again, and no more than the burst.
        now += Duration::from_secs(3600);
        let quiet = now;
        for _ in 0..61 {
            now = bucket.ready_at(now);
            bucket.take(now);
        }
        assert!(now > quiet && now < quiet + Duration::from_millis(40));
    }
}
