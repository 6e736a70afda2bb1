//! Mappers of KubeEdge: drivers that speak the protocols of devices, and the host that polls them for the twins.
//!
//! * [`host`]: polls devices, reports what they say, and writes what is desired.
//! * [`convert`]: between values of devices and text of twins; [`settings`]: reading of `configData`.
//! * [`poll`], [`report`], [`backoff`](Backoff): the pure parts that the host is made of.
//! * [`modbus`] (feature `modbus`): driver for Modbus TCP.
//! * [`simulator`] (feature `simulator`): a boiler that serves Modbus TCP, and a driver without a device.
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
pub mod convert;
#[cfg(feature = "dmi")]
pub mod dmi;
pub mod host;
#[cfg(feature = "modbus")]
pub mod modbus;
pub mod poll;
pub mod report;
pub mod settings;
#[cfg(feature = "simulator")]
pub mod simulator;

pub use self::{
    backoff::Backoff,
    host::{MapperConfig, MapperHost, MapperHostDriver, UnknownProtocol},
};
