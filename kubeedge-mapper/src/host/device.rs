mod demand;
mod exchange;
mod listen;
mod push;
mod tell;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use kubeedge_core::{
    device::{DeviceInstance, DeviceState},
    mapper::{DriverError, DriverHandle},
    names::PropertyName,
    service::Causes,
};
use tokio::{
    sync::{mpsc, watch as newest},
    time::timeout,
};

use self::listen::News;
use super::{
    demand::Demand,
    directive::Directive,
    health::Health,
    meter::{Meter, Operation},
    property::Property,
    run::Shared,
};
use crate::{backoff::Retry, poll::Schedule, report::Reports};

/// Polls one device, one exchange at a time.
pub(super) struct DeviceTask {
    shared: Arc<Shared>,
    directive: newest::Receiver<Directive>,
    demands: mpsc::Receiver<Demand>,
    instance: Arc<DeviceInstance>,
    /// Ends before the connection that it comes from.
    news: News,
    connection: Connection,
    news_retry: Retry,
    /// Whether what a device that speaks by itself has said has to be asked for once.
    refresh: bool,
    properties: BTreeMap<PropertyName, Property>,
    schedule: Schedule<PropertyName>,
    health: Health,
    meter: Meter,
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
    pub(super) fn new(
        shared: Arc<Shared>,
        mut directive: newest::Receiver<Directive>,
        demands: mpsc::Receiver<Demand>,
    ) -> Self {
        let Directive { instance, twin_changes } = directive.borrow_and_update().clone();
        let meter = Meter::new(&shared.config, &instance.protocol);
        let mut task = Self {
            shared,
            directive,
            demands,
            instance: Arc::clone(&instance),
            connection: Connection::Closed(Retry::default()),
            news: News::Untried,
            news_retry: Retry::default(),
            refresh: false,
            properties: BTreeMap::new(),
            schedule: Schedule::new(),
            health: Health::default(),
            meter,
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
                // News first: a device that hangs is always late for its next poll.
                biased;
                changed = self.directive.changed() => match changed {
                    Ok(()) => self.obey(),
                    Err(_) => return,
                },
                Some(demand) = self.demands.recv() => self.serve(demand).await,
                reading = self.news.next() => self.heard(reading),
                () = sleep => {}
            }
        }
    }

    async fn turn(&mut self) {
        self.open().await;
        self.read_twin().await;
        if let Connection::Open(driver) = &self.connection {
            let driver = driver.clone();
            self.subscribe(&driver).await;
            self.poll(&driver).await;
            self.write(&driver).await;
        }
        self.report().await;
        self.report_state().await;
        self.meter.turn(self.health.state(), self.reports.pending().len(), self.demands.len());
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
                if matches!(self.news, News::Untried) {
                    wakes.push(self.news_retry.at(now));
                }
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
        self.find_ways();
        self.twin_stale = true;
        if moved {
            self.meter.set_protocol(&self.instance.protocol);
            tracing::info!(device = %self.instance.id, "device changed, it is opened again");
            self.news = News::Untried;
            self.connection = Connection::Closed(Retry::default());
            self.news_retry.clear();
            self.health.restart();
            self.doubt_everything(now);
        }
    }

    /// The device may have lost what it had, or be another one.
    fn doubt_everything(&mut self, now: Instant) {
        for property in self.properties.values_mut() {
            property.wish.doubt();
        }
        self.refresh = true;
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
        let opened = self.call(maker.open(DeviceInstance::clone(&self.instance))).await;
        self.connection = match opened {
            Ok(driver) => Connection::Open(driver),
            Err(error @ DriverError::Config { .. }) => {
                tracing::warn!(device = %self.instance.id, error = %Causes(&error), "device cannot be opened");
                self.health.unusable();
                Connection::Unusable
            }
            Err(error) => {
                tracing::warn!(device = %self.instance.id, error = %Causes(&error), "device cannot be opened yet");
                self.failed();
                retry.failed(self.shared.config.backoff, now());
                Connection::Closed(retry)
            }
        };
    }

    fn failed(&mut self) {
        let config = &self.shared.config;
        let before = self.health.is_offline();
        self.health.failed(config.failures_until_offline, config.backoff, now());
        if self.health.is_offline() && !before {
            tracing::warn!(device = %self.instance.id, "device is offline");
        }
    }

    fn driver_says(&mut self, state: DeviceState) {
        let before = self.health.is_offline();
        if self.health.driver_says(state) {
            tracing::info!(device = %self.instance.id, "device is back");
            self.doubt_everything(now());
        } else if self.health.is_offline() && !before {
            tracing::warn!(device = %self.instance.id, "device is offline");
        }
    }

    /// A call that is measured.
    async fn exchange<T>(
        &mut self,
        operation: Operation,
        call: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        let start = now();
        let outcome = self.call(call).await;
        self.meter.exchange(operation, now().saturating_duration_since(start), outcome.as_ref().err());
        outcome
    }

    async fn call<T>(&mut self, call: impl Future<Output = Result<T, DriverError>>) -> Result<T, DriverError> {
        timeout(self.shared.config.call_timeout, call).await.unwrap_or(Err(DriverError::TimedOut))
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
