//! Values of properties pushed elsewhere than to the twins: `pushMethod` of a property.
//!
//! The host gives every value that it reads of such a property to the publishers of its configuration
//! ([`MapperConfig::publishers`](crate::MapperConfig::publishers)), at most once per `reportCycle` (0 is one second). Per
//! target there is one client, however many properties go there, and a queue with the newest value of each of them: a
//! target that is slow or away costs old values, never memory, and never stalls a device. What failed is tried again,
//! with growing pauses, until a newer value takes its place.
//!
//! `HttpPublisher` (feature `push-http`) and `MqttPublisher` (feature `push-mqtt`) carry out `http` and `mqtt`. A method
//! that no publisher carries out is logged with the name of its field, once per device.
//!
//! Upstream: `data/publish` of the mapper framework. There the first of `http`, `mqtt`, `otel` and `anomalyDetection`
//! counts, and databases beside it; so it is here. There each value has a connection of its own, and what fails is lost.

#[cfg(feature = "push-http")]
mod http;
#[cfg(feature = "push-mqtt")]
mod mqtt;
mod queue;

use std::sync::Arc;

use async_trait::async_trait;
use kubeedge_core::{
    device::PushMethod,
    mapper::DriverError,
    names::{DeviceId, PropertyName, UnixMillis},
};

#[cfg(feature = "push-http")]
pub use self::http::HttpPublisher;
#[cfg(feature = "push-mqtt")]
pub use self::mqtt::MqttPublisher;
pub(crate) use self::queue::{Targets, Way};

/// A value on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Whose it is.
    pub device: DeviceId,
    /// Of which property.
    pub property: PropertyName,
    /// The value as text.
    pub value: String,
    /// When the device had it.
    pub at: UnixMillis,
}

/// Carries out one method of [`PushMethod`].
pub trait Publisher: Send + Sync + 'static {
    /// Its field, as the CRD spells it: `http`, or `dbMethod.redis`.
    fn field(&self) -> &'static str;

    /// Where `method` leads to. Nothing is connected yet.
    ///
    /// # Errors
    /// [`DriverError::Config`] names the setting that is wrong.
    fn target(&self, method: &PushMethod) -> Result<Target, DriverError>;
}

/// Where values go.
pub struct Target {
    /// The same for all that one client may serve, as address and login.
    pub key: String,
    /// How values of one property get there.
    pub route: Arc<dyn Route>,
}

/// The way of the values of one property to a target; properties with the same target take turns.
#[async_trait]
pub trait Route: Send + Sync + 'static {
    /// Brings one value; resolved when the target has it.
    ///
    /// # Errors
    /// As for a driver: what is transient is tried again, other values are given up.
    async fn publish(&self, value: &Pushed) -> Result<(), DriverError>;
}

/// The fields of `method` that count: upstream takes the first that is no database, and all databases.
pub(crate) fn fields_that_count(method: &PushMethod) -> impl Iterator<Item = &'static str> {
    let mut others = 0;
    method.fields().into_iter().filter(move |field| {
        others += u32::from(!field.starts_with("dbMethod"));
        field.starts_with("dbMethod") || others == 1
    })
}

/// `YYYY-MM-DD hh:mm:ss` in UTC.
#[cfg(any(feature = "push-http", feature = "push-mqtt"))]
fn time_text(at: UnixMillis) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}
