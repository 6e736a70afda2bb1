//! What the twin has still to be told. Pure: fed with samples and the time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kubeedge_core::{
    names::PropertyName,
    twin::{PropertyPatch, TwinPatch},
};

/// Values of a device that are to be reported: when they change, and again when their cycle is over.
///
/// Of each property only the latest value waits, so nothing grows while the twins do not take reports, and what they
/// get in the end is the truth.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    told: BTreeMap<PropertyName, (PropertyPatch, Instant)>,
    pending: TwinPatch,
}

impl Reports {
    /// Nothing told, nothing to tell.
    pub fn new() -> Self {
        Self::default()
    }

    /// A property has been read.
    pub fn note(&mut self, property: &PropertyName, value: PropertyPatch, cycle: Duration, now: Instant) {
        let known = match self.told.get(property) {
            // Whether a value that waits has arrived after all is not known: the latest one has to follow it.
            _ if self.pending.contains_key(property) => false,
            Some((told, at)) => *told == value && now.saturating_duration_since(*at) < cycle,
            None => false,
        };
        if !known {
            self.pending.insert(property.clone(), Some(value));
        }
    }

    /// What to report now; empty for nothing.
    pub fn pending(&self) -> &TwinPatch {
        &self.pending
    }

    /// The twins have taken `sent`.
    pub fn settle(&mut self, sent: TwinPatch, now: Instant) {
        for (property, value) in sent {
            if self.pending.get(&property) == Some(&value) {
                self.pending.remove(&property);
            }
            if let Some(value) = value {
                self.told.insert(property, (value, now));
            }
        }
    }

    /// The twins will not take the value of `property`: it counts as told, so that it is not sent again and again.
    pub fn refuse(&mut self, property: &PropertyName, now: Instant) {
        if let Some(Some(value)) = self.pending.remove(property) {
            self.told.insert(property.clone(), (value, now));
        }
    }

    /// Keeps only what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&PropertyName) -> bool) {
        self.told.retain(|property, _| keep(property));
        self.pending.retain(|property, _| keep(property));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn name(name: &str) -> PropertyName {
        name.parse().unwrap()
    }

    fn value(value: &str) -> PropertyPatch {
        PropertyPatch { value: value.to_owned(), value_type: Some("int".to_owned()) }
    }

    #[test]
    fn a_value_is_told_when_it_changes_or_its_cycle_is_over() {
        let (start, p) = (Instant::now(), name("p"));
        let mut reports = Reports::new();
        reports.note(&p, value("1"), MINUTE, start);
        assert_eq!(reports.pending().len(), 1);
        reports.settle(reports.pending().clone(), start);
        reports.note(&p, value("1"), MINUTE, start + MINUTE / 2);
        assert!(reports.pending().is_empty(), "unchanged");
        reports.note(&p, value("1"), MINUTE, start + MINUTE);
        assert_eq!(reports.pending().len(), 1, "the cycle is over");
        reports.settle(reports.pending().clone(), start + MINUTE);
        reports.note(&p, value("2"), MINUTE, start + MINUTE);
        assert_eq!(reports.pending()[&p], Some(value("2")), "changed");
    }

    #[test]
    fn only_the_latest_value_waits_even_if_it_is_the_old_one() {
        let (now, p) = (Instant::now(), name("p"));
        let mut reports = Reports::new();
        reports.note(&p, value("1"), MINUTE, now);
        reports.settle(reports.pending().clone(), now);
        reports.note(&p, value("2"), MINUTE, now);
        let sent = reports.pending().clone();
        reports.note(&p, value("1"), MINUTE, now);
        reports.settle(sent, now);
        assert_eq!(reports.pending()[&p], Some(value("1")), "2 has arrived, so 1 has to follow");
    }

    #[test]
    fn a_refused_value_waits_for_a_change() {
        let (now, p) = (Instant::now(), name("p"));
        let mut reports = Reports::new();
        reports.note(&p, value("a b"), MINUTE, now);
        reports.refuse(&p, now);
        reports.note(&p, value("a b"), MINUTE, now);
        assert!(reports.pending().is_empty());
        reports.retain(|_| false);
        reports.note(&p, value("a b"), MINUTE, now);
        assert_eq!(reports.pending().len(), 1, "forgotten");
    }
}
