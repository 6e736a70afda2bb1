//! The keepalive of a client: pings, and the notice that nothing comes back.

use std::time::Duration;

use tokio::time::Instant;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Send a PINGREQ.
    Ping,
    /// The broker has not answered the last one.
    Dead,
}

/// A ping each period; the answer has to come before the next.
#[derive(Debug)]
pub(super) struct Keepalive {
    period: Duration,
    next: Instant,
    unanswered: bool,
}

impl Keepalive {
    /// Pings a little earlier than the `period` that the broker was told, so that it never has to wait.
    pub(super) fn new(period: Duration, now: Instant) -> Self {
        let period = period * 3 / 4;
        Self { period, next: now + period, unanswered: false }
    }

    /// When to call [`tick`](Self::tick).
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Something has come from the broker, or nothing could since we do not read.
    pub(super) fn heard(&mut self) {
        self.unanswered = false;
    }

    pub(super) fn tick(&mut self, now: Instant) -> Due {
        self.next = now + self.period;
        if std::mem::replace(&mut self.unanswered, true) { Due::Dead } else { Due::Ping }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_broker_is_dead_after_two_periods() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Duration::from_secs(4), start);
        assert_eq!(keepalive.next(), start + Duration::from_secs(3));
        assert_eq!(keepalive.tick(keepalive.next()), Due::Ping);
        keepalive.heard();
        assert_eq!(keepalive.tick(keepalive.next()), Due::Ping);
        assert_eq!(keepalive.tick(keepalive.next()), Due::Dead);
    }
}
