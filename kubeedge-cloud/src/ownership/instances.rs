//! Which instances live. Pure but for the instants that it is given.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::instance::InstanceName;

/// What is known of the other instances. A Lease counts as renewed when it changes, by our own clock: those of different
/// machines need not agree.
#[derive(Debug, Default)]
pub(super) struct Instances(HashMap<InstanceName, Renewed>);

#[derive(Clone, Copy, Debug)]
struct Renewed {
    revision: u64,
    at: Instant,
}

impl Instances {
    /// The Lease of `instance` was seen at `revision`. One that is seen for the first time counts as just renewed.
    pub(super) fn seen(&mut self, instance: InstanceName, revision: u64, now: Instant) {
        let renewed = self.0.entry(instance).or_insert(Renewed { revision, at: now });
        if revision > renewed.revision {
            *renewed = Renewed { revision, at: now };
        }
    }

    pub(super) fn gone(&mut self, instance: &InstanceName) {
        self.0.remove(instance);
    }

    pub(super) fn retain(&mut self, there: &HashSet<InstanceName>) {
        self.0.retain(|instance, _| there.contains(instance));
    }

    pub(super) fn lives(&self, instance: &InstanceName, within: Duration, now: Instant) -> bool {
        self.0.get(instance).is_some_and(|renewed| now.duration_since(renewed.at) < within)
    }

    /// Those that have renewed `within` that time.
    pub(super) fn living(&self, within: Duration, now: Instant) -> impl Iterator<Item = &InstanceName> {
        self.0.keys().filter(move |instance| self.lives(instance, within, now))
    }

    /// Those that have not renewed `within` that time, and the last version of their Leases.
    pub(super) fn vanished(&self, within: Duration, now: Instant) -> Vec<(InstanceName, u64)> {
        let vanished = self.0.iter().filter(|(_, renewed)| now.duration_since(renewed.at) >= within);
        vanished.map(|(instance, renewed)| (instance.clone(), renewed.revision)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_renew_is_gone_after_a_while() {
        let (a, b) = (InstanceName::new("a").unwrap(), InstanceName::new("b").unwrap());
        let within = Duration::from_secs(40);
        let mut instances = Instances::default();
        let start = Instant::now();
        instances.seen(a.clone(), 1, start);
        instances.seen(b.clone(), 2, start);
        let later = start + Duration::from_secs(30);
        instances.seen(a.clone(), 3, later);
        // A list tells again what is known.
        instances.seen(b.clone(), 2, later);
        let end = start + within;
        assert_eq!(instances.living(within, end).collect::<Vec<_>>(), [&a]);
        assert_eq!(instances.vanished(within, end), [(b.clone(), 2)]);
        instances.gone(&b);
        assert_eq!(instances.vanished(within, end), []);
        assert!(!instances.lives(&b, within, start));
    }
}
