//! When to poll what. Pure: fed with the time, no timers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Polls of several things, each at its own cycle.
///
/// A poll that is late does not move the ones after it, and polls that were missed are skipped, not made up for: after
/// a stall of an hour there is one poll, and then the old beat.
#[derive(Clone, Debug)]
pub struct Schedule<K>(BTreeMap<K, Beat>);

#[derive(Clone, Copy, Debug)]
struct Beat {
    cycle: Duration,
    next: Instant,
}

impl<K: Ord + Clone> Schedule<K> {
    /// A schedule of nothing.
    pub fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Polls `key` every `cycle`, for the first time at `now`; an entry with the same cycle keeps its beat.
    pub fn insert(&mut self, key: K, cycle: Duration, now: Instant) {
        // A cycle of nothing would never let the caller sleep.
        let cycle = cycle.max(Duration::from_millis(1));
        match self.0.get(&key) {
            Some(beat) if beat.cycle == cycle => {}
            _ => {
                self.0.insert(key, Beat { cycle, next: now });
            }
        }
    }

    /// Keeps only what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.0.retain(|key, _| keep(key));
    }

    /// Makes everything due at `now`.
    pub fn restart(&mut self, now: Instant) {
        for beat in self.0.values_mut() {
            beat.next = now;
        }
    }

    /// Takes what is due at `now`; each is due again at the first beat after `now`.
    pub fn take_due(&mut self, now: Instant) -> Vec<K> {
        let mut due = Vec::new();
        for (key, beat) in &mut self.0 {
            if beat.next <= now {
                due.push(key.clone());
                beat.next = beat.after(now);
            }
        }
        due
    }

    /// When the next poll is due; `None` if there is nothing to poll.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().map(|beat| beat.next).min()
    }
}

impl<K: Ord + Clone> Default for Schedule<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl Beat {
    fn after(&self, now: Instant) -> Instant {
        let late = now.saturating_duration_since(self.next);
        let into = late.as_nanos() % self.cycle.as_nanos();
        let into = Duration::from_nanos(u64::try_from(into).unwrap_or(0));
        now + self.cycle.saturating_sub(into)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_has_its_own_beat() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        assert_eq!(schedule.next(), None);
        schedule.insert("fast", SECOND, start);
        schedule.insert("slow", 3 * SECOND, start);
        assert_eq!(schedule.take_due(start), ["fast", "slow"]);
        assert_eq!(schedule.take_due(start), Vec::<&str>::new());
        assert_eq!(schedule.next(), Some(start + SECOND));
        assert_eq!(schedule.take_due(start + SECOND), ["fast"]);
        assert_eq!(schedule.take_due(start + 3 * SECOND), ["fast", "slow"]);
    }

    #[test]
    fn missed_polls_are_skipped_and_the_beat_is_kept() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.insert("p", SECOND, start);
        let late = start + Duration::from_millis(5300);
        assert_eq!(schedule.take_due(late), ["p"]);
        assert_eq!(schedule.next(), Some(start + 6 * SECOND));
    }

    #[test]
    fn the_same_cycle_keeps_the_beat_another_starts_anew() {
        let start = Instant::now();
        let mut schedule = Schedule::new();
        schedule.insert("p", SECOND, start);
        schedule.take_due(start);
        schedule.insert("p", SECOND, start + SECOND / 2);
        assert_eq!(schedule.next(), Some(start + SECOND));
        schedule.insert("p", 2 * SECOND, start + SECOND / 2);
        assert_eq!(schedule.next(), Some(start + SECOND / 2));
        schedule.retain(|_| false);
        assert_eq!(schedule.next(), None);
    }

    proptest! {
        #[test]
        fn what_was_taken_is_due_later_and_on_the_beat(cycle in 1_u64..100_000, late in 0_u64..10_000_000) {
            let (cycle, start) = (Duration::from_millis(cycle), Instant::now());
            let mut schedule = Schedule::new();
            schedule.insert(0, cycle, start);
            let now = start + Duration::from_millis(late);
            prop_assert_eq!(schedule.take_due(now), [0]);
            let next = schedule.next().unwrap_or(start);
            prop_assert!(next > now && next <= now + cycle);
            prop_assert_eq!((next - start).as_nanos() % cycle.as_nanos(), 0);
        }
    }
}
