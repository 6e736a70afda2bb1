//! Memory and CPU time of the cloud, as Linux tells them.

use std::{fs, io, time::Duration};

use serde::Serialize;

/// Ticks of `/proc/<pid>/stat`; Linux has 100 of them everywhere that it runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A process at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Snapshot {
    /// Resident memory, KiB.
    pub(crate) rss: u64,
    /// The most that it ever was, KiB.
    pub(crate) peak: u64,
    /// What it shares with nobody, KiB.
    pub(crate) private: u64,
    /// CPU time that it has taken, user and system, milliseconds.
    pub(crate) cpu: u64,
}

impl Snapshot {
    /// The process `pid` now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(Self {
            rss: kib(&status, "VmRSS:"),
            peak: kib(&status, "VmHWM:"),
            private: kib(&smaps, "Private_Clean:") + kib(&smaps, "Private_Dirty:"),
            cpu: cpu(&stat),
        })
    }

    /// KiB of resident memory per session, of `sessions` that came since `before`.
    pub(crate) fn per_session(&self, before: &Self, sessions: usize) -> f64 {
        let [now, then] = [self.rss, before.rss].map(|kib| u32::try_from(kib).unwrap_or(u32::MAX));
        (f64::from(now) - f64::from(then)) / f64::from(u32::try_from(sessions.max(1)).unwrap_or(u32::MAX))
    }

    /// CPU time since `before`.
    pub(crate) fn cpu_since(&self, before: &Self) -> Duration {
        Duration::from_millis(self.cpu.saturating_sub(before.cpu))
    }
}

fn kib(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Fields 14 and 15; the name in front of them may hold spaces and brackets.
fn cpu(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks * 1000 / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_linux_are_understood() {
        assert_eq!(kib("VmPeak:\t  9 kB\nVmRSS:\t   1234 kB\n", "VmRSS:"), 1234);
        assert_eq!(cpu("1 (a ) b) S 1 1 1 0 -1 4194560 5 0 0 0 250 50 0 0 20 0 1 0"), 3000);
        let own = Snapshot::of(std::process::id()).expect("Linux shows a process to itself");
        assert!(own.rss > 0 && own.private > 0);
    }
}
