//! Growing pauses between tries.

use std::time::{Duration, Instant};

/// How long to wait after a failure: `first`, and twice as long after each further one, up to `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
}

impl Default for Backoff {
    /// One second up to ten.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(10) }
    }
}

/// The pause of one thing that is tried again and again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retry(Option<(Duration, Instant)>);

impl Retry {
    /// It failed at `now`: the next try is after a longer pause.
    pub(crate) fn failed(&mut self, backoff: Backoff, now: Instant) {
        // No pause at all would be a busy loop.
        let first = backoff.first.max(Duration::from_millis(1));
        let pause = match self.0 {
            Some((pause, _)) => pause.saturating_mul(2).min(backoff.most.max(first)),
            None => first,
        };
        self.0 = Some((pause, now + pause));
    }

    /// It worked, or something new is tried.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.0.is_none_or(|(_, at)| at <= now)
    }

    /// Whether it has failed since it was cleared.
    pub(crate) fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// When to try again; `now` if there is nothing to wait for.
    pub(crate) fn at(&self, now: Instant) -> Instant {
        self.0.map_or(now, |(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let now = Instant::now();
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(3) };
        let mut retry = Retry::default();
        assert!(retry.is_ready(now));
        for seconds in [1, 2, 3, 3] {
            retry.failed(backoff, now);
            assert_eq!(retry.at(now), now + Duration::from_secs(seconds));
            assert!(!retry.is_ready(now));
        }
        retry.clear();
        assert_eq!(retry.at(now), now);
    }
}
