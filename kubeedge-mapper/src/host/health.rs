use std::time::{Duration, Instant};

use kubeedge_core::{device::DeviceState, mapper::DriverError};

use crate::backoff::{Backoff, Retry};

/// Whether a device is there, and what the twins know of it. Pure.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    state: Option<DeviceState>,
    /// What the driver says of a device that answers.
    detail: Option<DeviceState>,
    told: Option<(DeviceState, Instant)>,
    pause: Retry,
}

impl Health {
    /// An exchange worked, or the device refused it and so is there. Tells whether the device was away.
    pub(super) fn answered(&mut self) -> bool {
        self.failures = 0;
        self.pause.clear();
        self.state.replace(DeviceState::Online) == Some(DeviceState::Offline)
    }

    /// An exchange failed: after `enough` in a row the device is away, and then it is asked less and less often.
    pub(super) fn failed(&mut self, enough: u32, backoff: Backoff, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= enough {
            self.state = Some(DeviceState::Offline);
            self.pause.failed(backoff, now);
        }
    }

    /// The driver judges by itself. Tells whether the device was away and is back.
    pub(super) fn driver_says(&mut self, state: DeviceState) -> bool {
        match state {
            DeviceState::Unknown => {
                self.detail = None;
                false
            }
            DeviceState::Offline | DeviceState::Disconnected => {
                self.failures = self.failures.max(1);
                self.state = Some(DeviceState::Offline);
                false
            }
            reachable => {
                self.detail = Some(reachable);
                self.answered()
            }
        }
    }

    /// The device cannot even be opened.
    pub(super) fn unusable(&mut self) {
        self.state = Some(DeviceState::Offline);
    }

    /// Something about the device was changed: the count starts anew, its state stays until it is known.
    pub(super) fn restart(&mut self) {
        self.failures = 0;
        self.detail = None;
        self.pause.clear();
    }

    pub(super) fn is_offline(&self) -> bool {
        self.state == Some(DeviceState::Offline)
    }

    /// Whether nothing failed since the last answer.
    pub(super) fn is_well(&self) -> bool {
        self.failures == 0
    }

    /// Before that the device is left alone.
    pub(super) fn paused_until(&self, now: Instant) -> Instant {
        self.pause.at(now)
    }

    /// The state to tell: one that is new, or one whose `cycle` is over.
    pub(super) fn to_tell(&self, cycle: Option<Duration>, now: Instant) -> Option<DeviceState> {
        let state = self.state()?;
        (self.next_tell(cycle, now)? <= now).then(|| state.clone())
    }

    /// What the driver says counts only of a device that answers.
    pub(super) fn state(&self) -> Option<&DeviceState> {
        match &self.state {
            Some(DeviceState::Online) => self.detail.as_ref().or(self.state.as_ref()),
            state => state.as_ref(),
        }
    }

    pub(super) fn next_tell(&self, cycle: Option<Duration>, now: Instant) -> Option<Instant> {
        match (self.state(), &self.told) {
            (Some(state), Some((told, at))) if state == told => cycle.map(|cycle| *at + cycle),
            (Some(_), _) => Some(now),
            (None, _) => None,
        }
    }

    pub(super) fn told(&mut self, state: DeviceState, now: Instant) {
        self.told = Some((state, now));
    }
}

/// What an error of a driver says about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is there, it only does not do this.
    There,
    /// It does not answer: asking for more in the same breath is no use.
    Silent,
    /// Something went wrong with this one thing.
    Broken,
    /// It was not asked at all.
    NotAsked,
}

impl Verdict {
    pub(super) fn of(error: &DriverError) -> Self {
        match error {
            DriverError::Refused(_) => Self::There,
            DriverError::Config { .. } | DriverError::Unsupported => Self::NotAsked,
            error if error.is_transient() => Self::Silent,
            _ => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_are_offline_and_one_answer_is_online() {
        let now = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.to_tell(None, now), None, "nobody knows yet");
        for _ in 0..2 {
            health.failed(3, Backoff::default(), now);
        }
        assert!(!health.answered());
        for _ in 0..2 {
            health.failed(3, Backoff::default(), now);
        }
        assert_eq!(health.to_tell(None, now), Some(DeviceState::Online));
        assert_eq!(health.paused_until(now), now);
        health.failed(3, Backoff::default(), now);
        assert_eq!(health.to_tell(None, now), Some(DeviceState::Offline));
        assert!(health.paused_until(now) > now);
        assert!(health.answered(), "it was away");
    }

    #[test]
    fn a_state_is_told_once_or_at_its_cycle() {
        let (now, cycle) = (Instant::now(), Duration::from_secs(60));
        let mut health = Health::default();
        health.answered();
        health.told(DeviceState::Online, now);
        assert_eq!(health.to_tell(None, now + cycle), None);
        assert_eq!(health.to_tell(Some(cycle), now + cycle / 2), None);
        assert_eq!(health.to_tell(Some(cycle), now + cycle), Some(DeviceState::Online));
        health.unusable();
        assert_eq!(health.to_tell(None, now), Some(DeviceState::Offline));
    }

    #[test]
    fn what_the_driver_says_counts_while_the_device_answers() {
        let now = Instant::now();
        let mut health = Health::default();
        assert!(!health.driver_says(DeviceState::Unknown));
        assert_eq!(health.to_tell(None, now), None);
        assert!(!health.driver_says(DeviceState::Unhealthy));
        assert_eq!(health.to_tell(None, now), Some(DeviceState::Unhealthy));
        health.failed(1, Backoff::default(), now);
        assert_eq!(health.to_tell(None, now), Some(DeviceState::Offline));
        assert!(health.driver_says(DeviceState::Online), "it was away");
        assert!(!health.driver_says(DeviceState::Disconnected));
        assert_eq!(health.to_tell(None, now), Some(DeviceState::Offline));
        assert!(!health.is_well());
    }
}
