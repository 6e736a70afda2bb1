use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kubeedge_core::{
    device::DeviceInstance,
    mapper::{DriverError, DriverHandle, Sample, Value},
    names::PropertyName,
    twin::{PropertyPatch, TwinError},
};
use tokio::{sync::watch as newest, time::timeout};
use tower::ServiceExt as _;

use super::{
    directive::Directive,
    health::{Health, Verdict},
    property::Property,
    run::Shared,
};
use crate::{
    backoff::Retry,
    convert::{self, ConvertError, Limits},
    poll::Schedule,
    report::Reports,
};

/// Polls one device, one exchange at a time.
pub(super) struct DeviceTask {
    shared: Arc<Shared>,
    directive: newest::Receiver<Directive>,
    instance: Arc<DeviceInstance>,
    connection: Connection,
    properties: BTreeMap<PropertyName, Property>,
    schedule: Schedule<PropertyName>,
    health: Health,
    reports: Reports,
    report_retry: Retry,
    state_retry: Retry,
    /// Whether the desired values have to be read.
    twin_stale: bool,
    twin_changes: u64,
    twin_retry: Retry,
    twin_complaint: Option<String>,
}

enum Connection {
    Closed(Retry),
    Open(DriverHandle),
    /// Only other settings help.
    Unusable,
}

impl DeviceTask {
    pub(super) fn new(shared: Arc<Shared>, mut directive: newest::Receiver<Directive>) -> Self {
        let Directive { instance, twin_changes } = directive.borrow_and_update().clone();
        let mut task = Self {
            shared,
            directive,
            instance: Arc::clone(&instance),
            connection: Connection::Closed(Retry::default()),
            properties: BTreeMap::new(),
            schedule: Schedule::new(),
            health: Health::default(),
            reports: Reports::new(),
            report_retry: Retry::default(),
            state_retry: Retry::default(),
            twin_stale: true,
            twin_changes,
            twin_retry: Retry::default(),
            twin_complaint: None,
        };
        task.adopt(instance);
        task
    }

    /// Runs until the host is gone. Dropping the future closes the device.
    pub(super) async fn run(mut self) {
        loop {
            self.turn().await;
            let wake = self.next_wake(now());
            let sleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.directive.changed() => match changed {
                    Ok(()) => self.obey(),
                    Err(_) => return,
                },
                () = sleep => {}
            }
        }
    }

    async fn turn(&mut self) {
        self.open().await;
        self.read_twin().await;
        if let Connection::Open(driver) = &self.connection {
            let driver = driver.clone();
            self.poll(&driver).await;
            self.write(&driver).await;
        }
        self.report().await;
        self.report_state().await;
    }

    /// When there is something to do next; every condition here has a step of the turn that ends it or puts it off.
    fn next_wake(&self, now: Instant) -> Option<Instant> {
        let mut wakes = Vec::new();
        match &self.connection {
            Connection::Closed(retry) => wakes.push(retry.at(now)),
            Connection::Open(_) => {
                let paused = self.health.paused_until(now);
                wakes.extend(self.schedule.next().map(|next| next.max(paused)));
                let open = self.properties.values().filter(|property| self.may_write(property));
                wakes.extend(open.map(|property| property.wish.retry_at(now).max(paused)));
            }
            Connection::Unusable => {}
        }
        if self.twin_stale {
            wakes.push(self.twin_retry.at(now));
        }
        if !self.reports.pending().is_empty() {
            wakes.push(self.report_retry.at(now));
        }
        wakes.extend(self.health.next_tell(self.state_cycle(), now).map(|next| next.max(self.state_retry.at(now))));
        wakes.into_iter().min()
    }

    fn obey(&mut self) {
        let Directive { instance, twin_changes } = self.directive.borrow_and_update().clone();
        if twin_changes != self.twin_changes {
            self.twin_changes = twin_changes;
            self.twin_stale = true;
            self.twin_retry.clear();
        }
        if instance != self.instance {
            self.adopt(instance);
        }
    }

    /// Takes over what the device is now; opens it anew only if it is not found where it was.
    fn adopt(&mut self, instance: Arc<DeviceInstance>) {
        let now = now();
        let places = |device: &DeviceInstance| -> Vec<_> {
            device.properties.iter().map(|property| (property.visitor.clone(), property.access)).collect()
        };
        let moved = (&self.instance.protocol, &self.instance.config) != (&instance.protocol, &instance.config)
            || places(&self.instance) != places(&instance);
        let mut old = std::mem::take(&mut self.properties);
        for spec in &instance.properties {
            let name = spec.visitor.property.clone();
            let cycle = spec.collect_cycle.unwrap_or(self.shared.config.collect_cycle);
            self.schedule.insert(name.clone(), cycle, now);
            let property = match old.remove(&name) {
                Some(known) => known.respecified(spec),
                None => Property::new(spec.clone()),
            };
            self.properties.insert(name, property);
        }
        let properties = &self.properties;
        let before = &self.instance;
        self.schedule.retain(|name| properties.contains_key(name));
        self.reports.retain(|name| {
            let same = |known: &Property| before.property(name).is_some_and(|old| old.visitor == known.spec.visitor);
            properties.get(name).is_some_and(|known| known.spec.report_to_cloud && same(known))
        });
        self.instance = instance;
        self.twin_stale = true;
        if moved {
            tracing::info!(device = %self.instance.id, "device changed, it is opened again");
            self.connection = Connection::Closed(Retry::default());
            self.health.restart();
            self.doubt_everything(now);
        }
    }

    /// The device may have lost what it had, or be another one.
    fn doubt_everything(&mut self, now: Instant) {
        for property in self.properties.values_mut() {
            property.wish.doubt();
        }
        self.schedule.restart(now);
    }

    async fn open(&mut self) {
        let Connection::Closed(retry) = &self.connection else { return };
        if !retry.is_ready(now()) {
            return;
        }
        let mut retry = *retry;
        let Some(maker) = self.shared.drivers.get(&self.instance.protocol).cloned() else {
            // Whoever set the device was told so.
            self.connection = Connection::Unusable;
            return self.health.unusable();
        };
        let opening = maker.oneshot(DeviceInstance::clone(&self.instance));
        let opened = self.call(async { opening.await.map_err(DriverError::from) }).await;
        self.connection = match opened {
            Ok(driver) => Connection::Open(driver),
            Err(error @ DriverError::Config { .. }) => {
                tracing::warn!(device = %self.instance.id, error = chain(&error), "device cannot be opened");
                self.health.unusable();
                Connection::Unusable
            }
            Err(error) => {
                tracing::warn!(device = %self.instance.id, error = chain(&error), "device cannot be opened yet");
                self.failed();
                retry.failed(self.shared.config.backoff, now());
                Connection::Closed(retry)
            }
        };
    }

    async fn read_twin(&mut self) {
        if !self.twin_stale || !self.twin_retry.is_ready(now()) {
            return;
        }
        let twins = self.shared.config.twins.clone();
        match self.ask(twins.get(self.instance.id.clone())).await {
            Ok(mut twin) => {
                self.twin_stale = false;
                self.twin_retry.clear();
                self.twin_complaint = None;
                for (name, property) in &mut self.properties {
                    property.wish.desire(twin.properties.remove(name).and_then(|twin| twin.desired));
                }
            }
            Err(error) => {
                self.twin_retry.failed(self.shared.config.backoff, now());
                self.complain_of_twins(&error);
            }
        }
    }

    /// Reads what is due, what works first, until the device falls silent.
    async fn poll(&mut self, driver: &DriverHandle) {
        let start = now();
        if self.health.paused_until(start) > start {
            return;
        }
        let mut due = self.schedule.take_due(start);
        due.sort_by_key(|name| self.properties.get(name).map_or(0, |property| property.failures));
        for name in due {
            let Some(property) = self.properties.get(&name) else { continue };
            let outcome = self.call(driver.read(property.spec.visitor.clone())).await;
            if outcome.is_ok() {
                self.answered();
            }
            match outcome {
                Ok(sample) => self.note(&name, &sample),
                Err(error) => {
                    let verdict = self.judge(&error);
                    self.complain(&name, "property cannot be read", &error);
                    let offline = self.health.is_offline();
                    if let Some(property) = self.properties.get_mut(&name) {
                        property.failures = property.failures.saturating_add(1);
                        if verdict != Verdict::Silent || (property.failures >= 3 && !offline) {
                            property.wish.unreadable();
                        }
                    }
                    if verdict == Verdict::Silent {
                        return;
                    }
                }
            }
        }
    }

    /// A wish follows a read that worked; one that failed before has its own pauses.
    fn may_write(&self, property: &Property) -> bool {
        property.is_writable() && property.wish.open().is_some() && (self.health.is_well() || property.wish.was_tried())
    }

    async fn write(&mut self, driver: &DriverHandle) {
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
            match self.call(driver.write(visitor.clone(), value)).await {
                Ok(()) => {
                    self.answered();
                    tracing::info!(device = %self.instance.id, property = %name, value = desired.value, "desired value written");
                    if let Some(property) = self.properties.get_mut(&name) {
                        property.wish.finish();
                    }
                    match self.call(driver.read(visitor)).await {
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
    fn note(&mut self, name: &PropertyName, sample: &Sample) {
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
                    self.reports.note(name, patch, cycle, now());
                }
            }
            Err(error) => {
                property.wish.unreadable();
                self.complain(name, "value of the device is not of its type", &error);
            }
        }
    }

    async fn report(&mut self) {
        let batch = self.reports.pending().clone();
        if batch.is_empty() || !self.report_retry.is_ready(now()) {
            return;
        }
        let twins = self.shared.config.twins.clone();
        match self.ask(twins.report(self.instance.id.clone(), batch.clone())).await {
            Ok(_) => {
                self.report_retry.clear();
                self.twin_complaint = None;
                self.reports.settle(batch, now());
            }
            Err(error) => {
                if let TwinError::Invalid { property, .. } = &error {
                    // The others are not to suffer: they are sent again without it.
                    for name in batch.keys().filter(|name| name.as_str() == property) {
                        self.reports.refuse(name, now());
                    }
                }
                self.report_retry.failed(self.shared.config.backoff, now());
                self.complain_of_twins(&error);
            }
        }
    }

    async fn report_state(&mut self) {
        let Some(state) = self.health.to_tell(self.state_cycle(), now()) else { return };
        if !self.state_retry.is_ready(now()) {
            return;
        }
        let twins = self.shared.config.twins.clone();
        match self.ask(twins.report_state(self.instance.id.clone(), state.clone())).await {
            Ok(()) => {
                self.state_retry.clear();
                self.health.told(state, now());
            }
            Err(error) => {
                self.state_retry.failed(self.shared.config.backoff, now());
                self.complain_of_twins(&error);
            }
        }
    }

    fn state_cycle(&self) -> Option<Duration> {
        let cycle = self.instance.state_cycle.unwrap_or(self.shared.config.state_cycle);
        self.instance.report_state.then_some(cycle)
    }

    fn answered(&mut self) {
        if self.health.answered() {
            tracing::info!(device = %self.instance.id, "device is back");
            self.doubt_everything(now());
        }
    }

    fn failed(&mut self) {
        let config = &self.shared.config;
        let before = self.health.is_offline();
        self.health.failed(config.failures_until_offline, config.backoff, now());
        if self.health.is_offline() && !before {
            tracing::warn!(device = %self.instance.id, "device is offline");
        }
    }

    fn judge(&mut self, error: &DriverError) -> Verdict {
        let verdict = Verdict::of(error);
        match verdict {
            Verdict::There => self.answered(),
            Verdict::Silent | Verdict::Broken => self.failed(),
            Verdict::NotAsked => {}
        }
        verdict
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, DriverError>>) -> Result<T, DriverError> {
        timeout(self.shared.config.call_timeout, call).await.unwrap_or(Err(DriverError::TimedOut))
    }

    async fn ask<T>(&self, call: impl Future<Output = Result<T, TwinError>>) -> Result<T, TwinError> {
        timeout(self.shared.config.call_timeout, call).await.unwrap_or(Err(TwinError::TimedOut))
    }

    fn complain(&mut self, name: &PropertyName, what: &str, error: &dyn std::error::Error) {
        let error = chain(error);
        let Some(property) = self.properties.get_mut(name) else { return };
        if property.complain(format!("{what}: {error}")) {
            tracing::warn!(device = %self.instance.id, property = %name, error, "{what}");
        }
    }

    fn complain_of_twins(&mut self, error: &TwinError) {
        let error = chain(error);
        if self.twin_complaint.as_ref() != Some(&error) {
            tracing::warn!(device = %self.instance.id, error, "twins do not do their part, it is tried again");
            self.twin_complaint = Some(error);
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

/// An error with its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
