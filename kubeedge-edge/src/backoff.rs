//! Pauses between attempts that may fail for long.

use std::time::Duration;

/// Pauses that double, each cut to a random part of itself, so that a fleet that lost its cloud does not come back at
/// one moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    ceiling: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, ceiling: first.min(longest) }
    }

    /// The next pause: anything from nothing to the ceiling, which then doubles.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.longest);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.ceiling = self.first.min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_under_a_doubling_ceiling() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(30));
        for attempt in 0..8u32 {
            let ceiling = first.saturating_mul(1 << attempt).min(longest);
            let pauses: Vec<_> = (0..200)
                .map(|_| {
                    let mut backoff = Backoff::new(first, longest);
                    (0..attempt).for_each(|_| _ = backoff.pause());
                    backoff.pause()
                })
                .collect();
            assert!(pauses.iter().all(|pause| *pause <= ceiling), "attempt {attempt} waits longer than its ceiling");
            let low = pauses.iter().filter(|pause| **pause < ceiling / 2).count();
            assert!(
                (40..160).contains(&low),
                "attempt {attempt} is not spread over its range: {low} of 200 in the half"
            );
        }
        let mut backoff = Backoff::new(first, longest);
        (0..10).for_each(|_| _ = backoff.pause());
        backoff.reset();
        assert!(backoff.pause() <= first, "a healthy session starts over");
    }
}
