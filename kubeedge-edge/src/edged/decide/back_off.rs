//! How long a crashing container waits for its next start.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use kubeedge_core::names::UnixMillis;

use super::since;

/// Delays per container: the first crash is followed by a start at once, the next by the first delay, and so on,
/// doubling up to the longest. A container that ran twice the longest delay starts over.
///
/// Upstream: kubelet, `client-go/util/flowcontrol/backoff.go`.
#[derive(Clone, Debug)]
pub(crate) struct BackOffs {
    first: Duration,
    longest: Duration,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    started_at: UnixMillis,
}

impl BackOffs {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, entries: BTreeMap::new() }
    }

    /// How long is left to wait after a crash; `None` if it may start.
    pub(crate) fn left(&self, name: &str, crashed_at: UnixMillis, now: UnixMillis) -> Option<Duration> {
        let entry = self.entries.get(name).filter(|entry| !self.is_over(entry, crashed_at))?;
        // If the clock was set back, the wait starts now: it never gets longer than the delay.
        entry.delay.checked_sub(since(now, crashed_at)).filter(|left| !left.is_zero())
    }

    /// The delay that is in force.
    pub(crate) fn delay(&self, name: &str) -> Duration {
        self.entries.get(name).map_or(self.first, |entry| entry.delay)
    }

    /// Notes a start after a crash.
    pub(crate) fn note(&mut self, name: &str, crashed_at: UnixMillis, now: UnixMillis) {
        let delay = match self.entries.get(name) {
            Some(entry) if !self.is_over(entry, crashed_at) => (entry.delay * 2).min(self.longest),
            _ => self.first,
        };
        self.entries.insert(name.to_owned(), Entry { delay, started_at: now });
    }

    fn is_over(&self, entry: &Entry, crashed_at: UnixMillis) -> bool {
        since(crashed_at, entry.started_at) > self.longest * 2
    }
}

/// A duration as Go prints it, in whole seconds: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let mut text = String::new();
    if seconds >= 3600 {
        _ = write!(text, "{}h", seconds / 3600);
    }
    if seconds >= 60 {
        _ = write!(text, "{}m", seconds % 3600 / 60);
    }
    _ = write!(text, "{}s", seconds % 60);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1000;

    #[test]
    fn delays_double_to_the_longest_and_start_over_after_a_good_run() {
        let mut back_off = BackOffs::new(Duration::from_secs(10), Duration::from_mins(5));
        let mut now = UnixMillis(0);
        let mut delays = Vec::new();
        for _ in 0..8 {
            let crashed = now;
            if let Some(left) = back_off.left("main", crashed, now) {
                assert_eq!(back_off.left("main", crashed, UnixMillis(now.0 - 3600 * SECOND)), Some(left), "clock back");
                now.0 += i64::try_from(left.as_millis()).unwrap_or(0);
                delays.push(left.as_secs());
            }
            assert_eq!(back_off.left("main", crashed, now), None);
            back_off.note("main", crashed, now);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        let after_long_run = UnixMillis(now.0 + 601 * SECOND);
        assert_eq!(back_off.left("main", after_long_run, after_long_run), None);
        back_off.note("main", after_long_run, after_long_run);
        assert_eq!(go_duration(back_off.delay("main")), "10s");
    }

    #[test]
    fn durations_read_as_in_go() {
        let texts = [10, 80, 160, 300, 3661].map(|s| go_duration(Duration::from_secs(s)));
        assert_eq!(texts, ["10s", "1m20s", "2m40s", "5m0s", "1h1m1s"]);
    }
}
