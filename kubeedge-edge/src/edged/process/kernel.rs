//! What the kernel tells about processes.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::{Interest, unix::AsyncFd};

/// How often a process is looked at on kernels without process descriptors (before Linux 5.3).
const POLL: Duration = Duration::from_millis(500);

/// Id of this boot of the machine: process ids mean nothing after another one.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// When a process was started, in clock ticks since the boot; with its id this names a process for good.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses and may have any character: what counts is behind the last one.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The process with `name=value` in the environment that it was started with, and its start.
pub(super) fn find_by_env(name: &str, value: &str) -> Option<(i32, u64)> {
    let wanted = format!("{name}={value}");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let environ = fs::read(entry.path().join("environ")).ok()?;
        let marked = environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
        // Children have the same environment: the leader of the group is meant.
        let leads = rustix::process::getpgid(Pid::from_raw(pid)).ok()? == Pid::from_raw(pid)?;
        if marked && leads { Some((pid, start_ticks(pid)?)) } else { None }
    })
}

/// Resolves when the process of that descriptor has ended: it is readable from then on.
async fn readable(descriptor: &OwnedFd) -> io::Result<()> {
    let descriptor = descriptor.try_clone()?;
    #[expect(deprecated, reason = "the other constructor is unsafe; an OwnedFd keeps its descriptor, as both demand")]
    let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
    descriptor.readable().await.map(drop)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(i32),
    Signal(i32),
    /// It was not our child.
    Unknown,
}

/// A process whose end is waited for.
pub(super) struct Watched {
    pid: Pid,
    start_ticks: u64,
    descriptor: Option<OwnedFd>,
}

impl Watched {
    /// The process `pid`, if it is still the one that was started at `start_ticks`.
    pub(super) fn open(pid: i32, ticks: u64) -> Option<Self> {
        let pid = Pid::from_raw(pid)?;
        // Descriptor first, start time second: then the descriptor is of that process.
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok();
        (start_ticks(pid.as_raw_pid()) == Some(ticks)).then_some(Self { pid, start_ticks: ticks, descriptor })
    }

    /// A child of ours that was not reaped yet.
    pub(super) fn of_child(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            pid,
            start_ticks: start_ticks(pid.as_raw_pid()).unwrap_or(0),
            descriptor: pidfd_open(pid, PidfdFlags::empty()).ok(),
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    pub(super) fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// The group that it leads.
    pub(super) fn group(&self) -> Pid {
        self.pid
    }

    /// Resolves when the process has ended. It is not reaped yet.
    pub(super) async fn ended(&mut self) {
        if let Some(descriptor) = &self.descriptor
            && readable(descriptor).await.is_ok()
        {
            return;
        }
        while self.is_running() {
            tokio::time::sleep(POLL).await;
        }
    }

    fn is_running(&self) -> bool {
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.pid), peek) {
            Ok(status) => status.is_none(),
            Err(_) => start_ticks(self.pid.as_raw_pid()) == Some(self.start_ticks),
        }
    }

    /// Takes the exit status of the ended process from the kernel.
    pub(super) fn reap(&self) -> Ended {
        let id = self.descriptor.as_ref().map_or(WaitId::Pid(self.pid), |fd| WaitId::PidFd(fd.as_fd()));
        match waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ended::Code(code),
                (None, Some(signal)) => Ended::Signal(signal),
                (None, None) => Ended::Unknown,
            },
            _ => Ended::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_not_by_its_id_alone() {
        let own = i32::try_from(std::process::id()).unwrap();
        let ticks = start_ticks(own).unwrap();
        assert!(Watched::open(own, ticks).is_some());
        assert!(Watched::open(own, ticks + 1).is_none());
        assert!(find_by_env("KUBEEDGE_CONTAINER_ID", "nobody").is_none());
    }
}
