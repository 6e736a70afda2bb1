//! What is said to the device.

use kubeedge_core::{
    mapper::{DriverError, DriverHandle, Sample, Value},
    names::PropertyName,
    service::Causes,
    twin::PropertyPatch,
};

use super::{DeviceTask, now};
use crate::{
    convert::{self, ConvertError, Limits},
    host::{health::Verdict, meter::Operation, property::Property},
};

impl DeviceTask {
    /// Reads what is due, what works first, until the device falls silent; then asks the driver how the device is.
    pub(super) async fn poll(&mut self, driver: &DriverHandle) {
        let start = now();
        if self.health.paused_until(start) > start {
            return;
        }
        let mut due = self.schedule.take_due(start);
        if due.is_empty() {
            return;
        }
        due.sort_by_key(|name| self.properties.get(name).map_or(0, |property| property.failures));
        if self.is_listening() {
            self.wait_for_news(driver, &due).await;
        } else {
            for name in due {
                if !self.read(driver, &name).await {
                    return;
                }
            }
        }
        match self.call(driver.health()).await {
            Ok(state) => self.driver_says(state),
            Err(error) => {
                self.judge(&error);
            }
        }
    }

    /// Tells whether the device is worth asking for more.
    async fn read(&mut self, driver: &DriverHandle, name: &PropertyName) -> bool {
        let Some(property) = self.properties.get(name) else { return true };
        match self.exchange(Operation::Read, driver.read(property.spec.visitor.clone())).await {
            Ok(sample) => {
                self.answered();
                self.note(name, &sample);
                true
            }
            Err(error) => {
                let verdict = self.judge(&error);
                self.complain(name, "property cannot be read", &error);
                let offline = self.health.is_offline();
                if let Some(property) = self.properties.get_mut(name) {
                    property.failures = property.failures.saturating_add(1);
                    if verdict != Verdict::Silent || (property.failures >= 3 && !offline) {
                        property.wish.unreadable();
                    }
                }
                verdict != Verdict::Silent
            }
        }
    }

    /// A wish follows a read that worked; one that failed before, or whose property never answers, need not wait for it.
    pub(super) fn may_write(&self, property: &Property) -> bool {
        let wish = &property.wish;
        let reachable =
            self.health.is_well() || wish.was_tried() || (wish.is_unreadable() && !self.health.is_offline());
        reachable && property.is_writable() && wish.open().is_some()
    }

    pub(super) async fn write(&mut self, driver: &DriverHandle) {
        let open: Vec<_> =
            self.properties.iter().filter(|(_, property)| self.may_write(property)).map(|(n, _)| n.clone()).collect();
        for name in open {
            let now = now();
            let Some(property) = self.properties.get_mut(&name) else { continue };
            if property.wish.retry_at(now).max(self.health.paused_until(now)) > now {
                continue;
            }
            let Some(desired) = property.wish.open().cloned() else { continue };
            let value = match wanted(property, &desired.value) {
                Ok(Some(value)) => value,
                Ok(None) => {
                    property.wish.finish();
                    continue;
                }
                Err(error) => {
                    property.wish.finish();
                    self.complain(&name, "desired value is not acceptable", &error);
                    continue;
                }
            };
            let visitor = property.spec.visitor.clone();
            match self.exchange(Operation::Write, driver.write(visitor.clone(), value)).await {
                Ok(()) => {
                    self.answered();
                    tracing::info!(device = %self.instance.id, property = %name, value = desired.value, "desired value written");
                    if let Some(property) = self.properties.get_mut(&name) {
                        property.wish.finish();
                    }
                    match self.exchange(Operation::Read, driver.read(visitor)).await {
                        Ok(sample) => self.note(&name, &sample),
                        // The next beat reads it again.
                        Err(error) => self.complain(&name, "written value cannot be read back", &error),
                    }
                }
                Err(error) => {
                    let verdict = self.judge(&error);
                    self.complain(&name, "desired value cannot be written", &error);
                    if let Some(property) = self.properties.get_mut(&name) {
                        if verdict == Verdict::NotAsked {
                            property.wish.finish();
                        } else {
                            property.wish.failed(self.shared.config.backoff, self::now());
                        }
                    }
                    if verdict == Verdict::Silent {
                        return;
                    }
                }
            }
        }
    }

    /// A property has been read.
    pub(super) fn note(&mut self, name: &PropertyName, sample: &Sample) {
        let default_cycle = self.shared.config.report_cycle;
        let Some(property) = self.properties.get_mut(name) else { return };
        let value_type = property.spec.visitor.value_type;
        match convert::to_text(&sample.value, value_type) {
            Ok(text) => {
                property.all_well();
                property.wish.read(text.clone());
                if property.spec.report_to_cloud {
                    let patch = PropertyPatch { value: text, value_type: Some(value_type.twin_type().to_owned()) };
                    let cycle = property.spec.report_cycle.unwrap_or(default_cycle);
                    let band = property.band;
                    self.reports.note(name, patch, band, cycle, now());
                }
                self.push(name, sample);
            }
            Err(error) => {
                property.wish.unreadable();
                self.complain(name, "value of the device is not of its type", &error);
            }
        }
    }

    pub(super) fn answered(&mut self) {
        if self.health.answered() {
            tracing::info!(device = %self.instance.id, "device is back");
            self.doubt_everything(now());
        }
    }

    pub(super) fn judge(&mut self, error: &DriverError) -> Verdict {
        let verdict = Verdict::of(error);
        match verdict {
            Verdict::There => self.answered(),
            Verdict::Silent | Verdict::Broken => self.failed(),
            Verdict::NotAsked => {}
        }
        verdict
    }

    pub(super) fn complain(&mut self, name: &PropertyName, what: &str, error: &dyn std::error::Error) {
        let error = Causes(error).to_string();
        let Some(property) = self.properties.get_mut(name) else { return };
        if property.complain(format!("{what}: {error}")) {
            tracing::warn!(device = %self.instance.id, property = %name, error, "{what}");
        }
    }
}

/// The value to write; `None` if the device has it.
fn wanted(property: &Property, desired: &str) -> Result<Option<Value>, ConvertError> {
    let spec = &property.spec;
    let value_type = spec.visitor.value_type;
    let value = convert::parse(desired, value_type)?;
    Limits::parse(&spec.minimum, &spec.maximum, value_type)?.check(&value)?;
    Ok(if property.wish.is_met(&convert::to_text(&value, value_type)?) { None } else { Some(value) })
}
