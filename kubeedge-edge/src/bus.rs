//! The event bus of the edge: an MQTT client to any broker, and a broker of our own.
//!
//! * [`MqttBus`] speaks MQTT 3.1.1 to any broker, over TCP or TLS.
//! * [`EmbeddedBroker`] serves MQTT 3.1.1 to the applications of the node; [`BrokerBus`] joins it without a socket.
//!
//! * [`CloudBridge`] carries application data between any bus and the cloud.
//! * [`PublishDefaults`] is a layer that sets how everything is published.
//!
//! Both buses are [`EventBus`](kubeedge_core::bus::EventBus)es. Neither spawns a task that outlives the future that the
//! caller runs: [`MqttDriver::run`] and [`EmbeddedBroker::run`].
//!
//! Upstream: `edge/pkg/eventbus`.

mod bridge;
#[cfg(feature = "broker")]
mod broker;
mod defaults;
mod inflight;
mod mqtt;
mod overlap;
mod packet;
mod queue;
mod wire;

pub use bridge::CloudBridge;
#[cfg(feature = "broker")]
pub use broker::{BrokerAccess, BrokerBus, BrokerConfig, BrokerError, EmbeddedBroker, InvalidAccess};
pub use defaults::PublishDefaults;
pub use mqtt::{InvalidMqttOptions, MqttBus, MqttDriver, MqttOptions};

/// Name and password of an MQTT client.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password; never printed.
    pub password: String,
}

impl Credentials {
    /// The credentials `username` with `password`.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into() }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}
