//! Mappers of KubeEdge: drivers that speak the protocols of devices, and the host that polls them for the twins.
//!
//! * [`host`]: polls devices, reports what they say, and writes what is desired.
//! * [`convert`]: between values of devices and text of twins; [`settings`]: reading of `configData`.
//! * [`poll`], [`report`], [`backoff`](Backoff): the pure parts that the host is made of.
//! * `modbus` (feature `modbus`; serial lines with `modbus-rtu`), `mqtt` (`mqtt-device`), `http` (`http-device`): drivers.
//! * `simulator` (feature `simulator`): a boiler that serves Modbus TCP, and a driver without a device.
//!
//! A mapper for one's own protocol is a [`Driver`](kubeedge_core::mapper::Driver) behind a
//! [`driver_maker`](kubeedge_core::mapper::driver_maker):
//!
//! ```
//! use kubeedge_core::mapper::{Driver, DriverError, DriverHandle, Sample, Value, Visitor, driver_maker};
//! use kubeedge_core::{names::UnixMillis, twin::TwinHandle};
//! use kubeedge_mapper::{MapperConfig, MapperHost, settings::Settings};
//!
//! struct Gauge(u16);
//!
//! #[async_trait::async_trait]
//! impl Driver for Gauge {
//!     async fn read(&self, _: Visitor) -> Result<Sample, DriverError> {
//!         Ok(Sample { value: Value::Int(self.0.into()), at: UnixMillis(0) })
//!     }
//!     async fn write(&self, _: Visitor, _: Value) -> Result<(), DriverError> {
//!         Err(DriverError::Refused("a gauge only shows".to_owned()))
//!     }
//! }
//!
//! # async fn run(twins: TwinHandle, shutdown: tokio_util::sync::CancellationToken) {
//! let gauges = driver_maker(|device| async move {
//!     let channel = Settings::new(&device.config).whole("channel", 0, 15_u16)?.unwrap_or(0);
//!     Ok(DriverHandle::of(Gauge(channel)))
//! });
//! let (host, driver) = MapperHost::new(MapperConfig::new(twins), [("gauge".to_owned(), gauges)]);
//! driver.run(shutdown).await;
//! # drop(host);
//! # }
//! ```

mod backoff;
#[cfg(feature = "mqtt")]
#[cfg_attr(not(feature = "mqtt-device"), allow(dead_code, reason = "publishers do not subscribe"))]
mod broker;
#[cfg(feature = "http-client")]
#[cfg_attr(not(feature = "http-device"), allow(dead_code, reason = "publishers are given their authorities"))]
mod client;
pub mod convert;
#[cfg(feature = "dmi")]
pub mod dmi;
pub mod host;
#[cfg(feature = "http-device")]
pub mod http;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "modbus")]
pub mod modbus;
#[cfg(feature = "mqtt-device")]
pub mod mqtt;
#[cfg(any(feature = "mqtt-device", feature = "http-device"))]
#[cfg_attr(not(feature = "http-device"), allow(dead_code, reason = "payloads of MQTT have no type"))]
mod payload;
pub mod poll;
pub mod push;
pub mod report;
#[cfg(feature = "rest")]
pub mod rest;
pub mod settings;
#[cfg(feature = "simulator")]
pub mod simulator;

pub use self::{
    backoff::Backoff,
    host::{DemandError, MapperConfig, MapperHost, MapperHostDriver, PropertyReading, UnknownProtocol},
};
