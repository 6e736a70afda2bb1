//! Pauses between attempts that may fail for long.

use std::time::Duration;

/// Pauses that grow with the time already waited, each cut to a random part of itself, so that a fleet that lost its
/// cloud does not come back at one moment.
///
/// No pause is longer than all pauses before it together and the first one: whoever was away for a short time is back
/// after a short time, however the dice fell.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    waited: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, waited: Duration::ZERO }
    }

    /// The next pause: anything from nothing to the first pause and the time waited so far, or to the longest.
    pub(crate) fn pause(&mut self) -> Duration {
        let ceiling = self.first.saturating_add(self.waited).min(self.longest);
        let pause = ceiling.mul_f64(fastrand::f64());
        self.waited = self.waited.saturating_add(pause);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.waited = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn a_pause_is_never_longer_than_the_outage_before_it() {
        for _ in 0..200 {
            let (mut backoff, mut waited) = (Backoff::new(FIRST, LONGEST), Duration::ZERO);
            for _ in 0..50 {
                let pause = backoff.pause();
                assert!(pause <= (FIRST + waited).min(LONGEST), "{pause:?} after {waited:?}");
                waited += pause;
            }
            assert!(waited > LONGEST * 3, "pauses grow: {waited:?} in 50 attempts");
            backoff.reset();
            assert!(backoff.pause() <= FIRST, "a healthy session starts over");
        }
    }

    #[test]
    fn a_fleet_does_not_come_back_at_one_moment() {
        let first: Vec<_> = (0..200).map(|_| Backoff::new(FIRST, LONGEST).pause()).collect();
        let low = first.iter().filter(|pause| **pause < FIRST / 2).count();
        assert!((40..160).contains(&low), "{low} of 200 in the lower half");
    }
}
