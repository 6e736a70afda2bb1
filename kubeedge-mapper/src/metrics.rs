//! Figures of a mapper host, in the text form that Prometheus reads.
//!
//! | name | labels | what |
//! |---|---|---|
//! | `kubeedge_mapper_exchanges_total` | `protocol`, `operation` (`read`, `write`), `outcome` (`ok`, `refused`, `offline`, `timeout`, `config`, `failed`) | calls on drivers |
//! | `kubeedge_mapper_exchange_seconds` | `protocol`, `operation` | how long they took, waiting for the line included |
//! | `kubeedge_mapper_devices` | `state` | devices by state; `unknown` until one is known |
//! | `kubeedge_mapper_reports_waiting` | | values that the twins have not taken yet |
//! | `kubeedge_mapper_demands_waiting` | | reads and writes on demand that wait for their device |

use std::{fmt, sync::Arc, time::Duration};

use kubeedge_core::{device::DeviceState, mapper::DriverError};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::host::Operation;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exchange {
    protocol: String,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    protocol: String,
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: String,
}

/// The figures of one host. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct MapperMetrics {
    registry: Arc<Registry>,
    exchanges: Family<Exchange, Counter>,
    seconds: Family<Kind, Histogram>,
    devices: Family<State, Gauge>,
    reports: Gauge,
    demands: Gauge,
}

impl MapperMetrics {
    /// Figures that are all zero.
    pub fn new() -> Self {
        let exchanges = Family::default();
        let seconds =
            Family::new_with_constructor((|| Histogram::new(exponential_buckets(0.001, 4.0, 8))) as fn() -> Histogram);
        let (devices, reports, demands) = (Family::default(), Gauge::default(), Gauge::default());
        let mut registry = Registry::with_prefix("kubeedge_mapper");
        registry.register("exchanges", "Calls on drivers", Family::clone(&exchanges));
        registry.register_with_unit(
            "exchange",
            "How long calls on drivers took",
            Unit::Seconds,
            Family::clone(&seconds),
        );
        registry.register("devices", "Devices by state", Family::clone(&devices));
        registry.register("reports_waiting", "Values that the twins have not taken yet", Gauge::clone(&reports));
        registry.register("demands_waiting", "Demands that wait for their device", Gauge::clone(&demands));
        Self { registry: Arc::new(registry), exchanges, seconds, devices, reports, demands }
    }

    /// All figures as text: `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a text does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    pub(crate) fn device(&self, protocol: &str) -> DeviceFigures {
        let figures = DeviceFigures {
            metrics: self.clone(),
            protocol: protocol.to_owned(),
            state: DeviceState::Unknown,
            reports: 0,
            demands: 0,
        };
        figures.gauge().inc();
        figures
    }
}

impl Default for MapperMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MapperMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapperMetrics").finish_non_exhaustive()
    }
}

/// The part of one device in the figures; it takes itself out of them when it is dropped.
#[derive(Debug)]
pub(crate) struct DeviceFigures {
    metrics: MapperMetrics,
    protocol: String,
    state: DeviceState,
    reports: i64,
    demands: i64,
}

impl DeviceFigures {
    pub(crate) fn set_protocol(&mut self, protocol: &str) {
        protocol.clone_into(&mut self.protocol);
    }

    pub(crate) fn exchange(&self, operation: Operation, took: Duration, error: Option<&DriverError>) {
        let operation = match operation {
            Operation::Read => "read",
            Operation::Write => "write",
        };
        let outcome = match error {
            None => "ok",
            Some(DriverError::Refused(_)) => "refused",
            Some(DriverError::Offline(_)) => "offline",
            Some(DriverError::TimedOut) => "timeout",
            Some(DriverError::Config { .. }) => "config",
            Some(_) => "failed",
        };
        let protocol = || self.protocol.clone();
        self.metrics.exchanges.get_or_create(&Exchange { protocol: protocol(), operation, outcome }).inc();
        self.metrics.seconds.get_or_create(&Kind { protocol: protocol(), operation }).observe(took.as_secs_f64());
    }

    pub(crate) fn turn(&mut self, state: Option<&DeviceState>, reports: usize, demands: usize) {
        let state = state.unwrap_or(&DeviceState::Unknown);
        if *state != self.state {
            self.gauge().dec();
            self.state = state.clone();
            self.gauge().inc();
        }
        let count = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        self.metrics.reports.inc_by(count(reports) - std::mem::replace(&mut self.reports, count(reports)));
        self.metrics.demands.inc_by(count(demands) - std::mem::replace(&mut self.demands, count(demands)));
    }

    /// Words of vendors are many, and no label.
    fn gauge(&self) -> Gauge {
        let state = match &self.state {
            DeviceState::Other(_) => "other",
            state => state.as_str(),
        };
        self.metrics.devices.get_or_create_owned(&State { state: state.to_owned() })
    }
}

impl Drop for DeviceFigures {
    fn drop(&mut self) {
        self.gauge().dec();
        self.metrics.reports.dec_by(self.reports);
        self.metrics.demands.dec_by(self.demands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_text_and_devices_take_themselves_out() {
        let metrics = MapperMetrics::new();
        let mut device = metrics.device("modbus");
        device.exchange(Operation::Read, Duration::from_millis(2), None);
        device.exchange(Operation::Write, Duration::from_secs(1), Some(&DriverError::TimedOut));
        device.turn(Some(&DeviceState::Online), 3, 1);
        let text = metrics.text();
        for line in [
            r#"kubeedge_mapper_exchanges_total{protocol="modbus",operation="read",outcome="ok"} 1"#,
            r#"kubeedge_mapper_exchanges_total{protocol="modbus",operation="write",outcome="timeout"} 1"#,
            r#"kubeedge_mapper_exchange_seconds_count{protocol="modbus",operation="read"} 1"#,
            r#"kubeedge_mapper_devices{state="online"} 1"#,
            "kubeedge_mapper_reports_waiting 3",
            "kubeedge_mapper_demands_waiting 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        drop(device);
        assert!(metrics.text().contains(r#"kubeedge_mapper_devices{state="online"} 0"#));
        assert!(metrics.text().contains("kubeedge_mapper_reports_waiting 0"));
    }
}
