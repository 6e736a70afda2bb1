use kubeedge_core::mapper::DriverError;

use crate::settings::Settings;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Offline,
    Silent,
    Busy,
    Refuse,
}

/// What goes wrong when, in milliseconds since the device was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    spans: Vec<(i64, i64, Fault)>,
    period: i64,
}

impl Faults {
    pub(super) fn read(settings: Settings<'_>) -> Result<Self, DriverError> {
        let period = settings.whole("faultPeriod", 0, i64::from(u32::MAX))?.unwrap_or(0);
        let text = settings.text("faults")?.unwrap_or_default();
        let spans = text.split(',').map(str::trim).filter(|span| !span.is_empty()).map(span);
        let spans: Option<Vec<_>> = spans.collect();
        let reason = "must be as in 10000-15000 silent, with offline, silent, busy or refuse";
        Ok(Self { spans: spans.ok_or_else(|| settings.wrong("faults", reason))?, period })
    }

    pub(super) fn at(&self, age: i64) -> Option<Fault> {
        let age = if self.period > 0 { age.rem_euclid(self.period) } else { age };
        self.spans.iter().find(|(from, to, _)| (*from..*to).contains(&age)).map(|(.., fault)| *fault)
    }
}

fn span(text: &str) -> Option<(i64, i64, Fault)> {
    let (times, word) = text.split_once([' ', '='])?;
    let (from, to) = times.split_once('-')?;
    let (from, to): (i64, i64) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    let fault = match word.trim().to_ascii_lowercase().as_str() {
        "offline" => Fault::Offline,
        "silent" => Fault::Silent,
        "busy" => Fault::Busy,
        "refuse" => Fault::Refuse,
        _ => return None,
    };
    (from < to).then_some((from, to, fault))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn wrong_schedules_are_named() {
        let read = |text: &str| {
            let config = json!({"faults": text});
            Faults::read(Settings::new(config.as_object().unwrap())).map_err(|error| error.to_string())
        };
        assert_eq!(read("5-9 busy, ").unwrap().at(5), Some(Fault::Busy));
        assert_eq!(read("5-9 busy").unwrap().at(9), None);
        for wrong in ["5 busy", "9-5 busy", "5-9", "5-9 sleepy", "a-b busy"] {
            assert!(read(wrong).unwrap_err().starts_with("setting faults is "), "{wrong}");
        }
    }
}
