//! What the twin has still to be told. Pure: fed with samples and the time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kubeedge_core::{
    device::ConfigData,
    mapper::DriverError,
    names::PropertyName,
    twin::{PropertyPatch, TwinPatch},
};

use crate::settings::Settings;

/// How far a number may move without being reported before its cycle is over.
///
/// Settings of a visitor, ours, whatever the driver: `deadBand`, a difference, and `deadBandPercent`, a share of the
/// number that was reported last; with both the wider one counts. 0, the default, is none. Since the comparison is with
/// the number that was reported last, a slow drift is reported too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeadBand {
    /// The difference.
    pub absolute: f64,
    /// The share in percent.
    pub percent: f64,
}

impl DeadBand {
    /// Reads the settings of a visitor.
    ///
    /// # Errors
    /// [`DriverError::Config`] if one is no number, or below zero.
    pub fn read(config: &ConfigData) -> Result<Self, DriverError> {
        let settings = Settings::new(config);
        let width = |key| match settings.number(key)? {
            Some(width) if width < 0.0 => Err(settings.wrong(key, "must not be below zero")),
            width => Ok(width.unwrap_or(0.0)),
        };
        Ok(Self { absolute: width("deadBand")?, percent: width("deadBandPercent")? })
    }

    /// Whether `new` is no news after `told`. Texts that are no numbers are news if they differ.
    pub fn holds(&self, told: &str, new: &str) -> bool {
        if told == new {
            return true;
        }
        if self.absolute == 0.0 && self.percent == 0.0 {
            return false;
        }
        match (told.parse::<f64>(), new.parse::<f64>()) {
            (Ok(told), Ok(new)) => (new - told).abs() <= self.absolute.max(told.abs() * self.percent / 100.0),
            _ => false,
        }
    }
}

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
    pub fn note(
        &mut self,
        property: &PropertyName,
        value: PropertyPatch,
        band: DeadBand,
        cycle: Duration,
        now: Instant,
    ) {
        let known = match self.told.get(property) {
            // Whether a value that waits has arrived after all is not known: the latest one has to follow it.
            _ if self.pending.contains_key(property) => false,
            Some((told, at)) => {
                let same = told.value_type == value.value_type && band.holds(&told.value, &value.value);
                same && now.saturating_duration_since(*at) < cycle
            }
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
        reports.note(&p, value("1"), DeadBand::default(), MINUTE, start);
        assert_eq!(reports.pending().len(), 1);
        reports.settle(reports.pending().clone(), start);
        reports.note(&p, value("1"), DeadBand::default(), MINUTE, start + MINUTE / 2);
        assert!(reports.pending().is_empty(), "unchanged");
        reports.note(&p, value("1"), DeadBand::default(), MINUTE, start + MINUTE);
        assert_eq!(reports.pending().len(), 1, "the cycle is over");
        reports.settle(reports.pending().clone(), start + MINUTE);
        reports.note(&p, value("2"), DeadBand::default(), MINUTE, start + MINUTE);
        assert_eq!(reports.pending()[&p], Some(value("2")), "changed");
    }

    #[test]
    fn only_the_latest_value_waits_even_if_it_is_the_old_one() {
        let (now, p) = (Instant::now(), name("p"));
        let mut reports = Reports::new();
        reports.note(&p, value("1"), DeadBand::default(), MINUTE, now);
        reports.settle(reports.pending().clone(), now);
        reports.note(&p, value("2"), DeadBand::default(), MINUTE, now);
        let sent = reports.pending().clone();
        reports.note(&p, value("1"), DeadBand::default(), MINUTE, now);
        reports.settle(sent, now);
        assert_eq!(reports.pending()[&p], Some(value("1")), "2 has arrived, so 1 has to follow");
    }

    #[test]
    fn a_refused_value_waits_for_a_change() {
        let (now, p) = (Instant::now(), name("p"));
        let mut reports = Reports::new();
        reports.note(&p, value("a b"), DeadBand::default(), MINUTE, now);
        reports.refuse(&p, now);
        reports.note(&p, value("a b"), DeadBand::default(), MINUTE, now);
        assert!(reports.pending().is_empty());
        reports.retain(|_| false);
        reports.note(&p, value("a b"), DeadBand::default(), MINUTE, now);
        assert_eq!(reports.pending().len(), 1, "forgotten");
    }

    #[test]
    fn small_moves_wait_for_the_cycle_and_drifts_do_not() {
        let (start, p) = (Instant::now(), name("p"));
        let band = DeadBand { absolute: 1.0, percent: 0.0 };
        let mut reports = Reports::new();
        let mut told = Vec::new();
        for (second, text) in ["20", "20.9", "19", "21.5", "22.4", "21.5"].into_iter().enumerate() {
            let now = start + Duration::from_secs(second as u64);
            reports.note(&p, value(text), band, MINUTE, now);
            let pending = reports.pending().clone();
            told.extend(pending.values().flatten().map(|patch| patch.value.clone()));
            reports.settle(pending, now);
        }
        assert_eq!(told, ["20", "21.5"]);
        reports.note(&p, value("21.6"), band, MINUTE, start + 2 * MINUTE);
        assert_eq!(reports.pending()[&p], Some(value("21.6")), "the cycle is over");
    }

    #[test]
    fn bands_are_read_and_the_wider_one_counts() {
        let read = |config: serde_json::Value| DeadBand::read(config.as_object().unwrap());
        let band = read(serde_json::json!({"deadBand": "0.5", "deadbandpercent": 10})).unwrap();
        assert_eq!(band, DeadBand { absolute: 0.5, percent: 10.0 });
        assert!(band.holds("100", "110") && !band.holds("100", "110.1"));
        assert!(band.holds("1", "1.5") && !band.holds("1", "1.6"));
        assert!(band.holds("-100", "-91") && !band.holds("on", "off"));
        assert!(!DeadBand::default().holds("1", "1.0001"));
        let error = read(serde_json::json!({"deadBand": -1})).unwrap_err();
        assert_eq!(error.to_string(), "setting deadBand is -1: must not be below zero");
    }
}
