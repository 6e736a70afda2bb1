//! Driver for devices that speak MQTT 3.1.1 through a broker.
//!
//! Settings of a device (`spec.protocol.configData`; keys in any case, numbers also as text):
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `brokerURL` | `tcp://host:1883`; needed | |
//! | `clientID` | client id at the broker; devices with the same broker, id and login share a connection | one made up |
//! | `username`, `password` | login at the broker | none |
//! | `topic` | where properties without a topic of their own are read from | none |
//! | `keepAlive` | seconds | 30 |
//! | `timeout` | milliseconds for a publication to be confirmed, 1 to 60000 | 5000 |
//! | `offlineAfter` | milliseconds without a message of the device after which it is offline; 0 for never | 0 |
//! | `stateTopic` | where the device, or its last will, says `online` or `offline` | none |
//!
//! Settings of a visitor (`visitors.configData`):
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `topic` | where the value is read from; filters with `+` and `#` are allowed | that of the device |
//! | `pointer` | JSON pointer (RFC 6901) to the value in the payload | the whole payload |
//! | `writeTopic` | where values are written to; without one nothing can be written | none |
//! | `payload` | template: `{value}`, `{json}` (the value as JSON), `{device}`, `{property}`, `{time}` (ms) | `{value}` |
//! | `qos` | of subscription and writes, 0 to 2 | 1 |
//! | `retain` | whether writes are retained by the broker | false |
//! | `scale`, `valueOffset`, `bit`, `bits`, `mask`, `enum`, `min`, `max` | see [`Meaning`](crate::convert::Meaning) | none |
//!
//! Of each property the last value is kept, with the time of its arrival; a retained message counts as arriving when
//! the broker sends it. The device is `offline` while there is no connection to the broker, while its `stateTopic` says
//! so, and when nothing has arrived for `offlineAfter`. A write is done when the broker has confirmed it (with QoS 0:
//! when it is sent); whether the device obeys is seen by what it says then.
//!
//! TLS is not in this driver yet; a URL that asks for it is refused.
//!
//! Upstream: `mqtt-mapper` of mappers-go (`clientID`, `brokerURL`, `topic`, `username`, `password`).

mod device;
mod inbox;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;
use kubeedge_core::{
    device::DeviceInstance,
    mapper::{DriverError, DriverHandle, DriverMaker, Protocol},
    names::SharedClock,
};

use self::{device::MqttDevice, settings::DeviceSettings};
use crate::broker::Brokers;

/// Opens MQTT devices. Clones share the connections.
#[derive(Clone)]
pub struct MqttDevices {
    clock: SharedClock,
    brokers: Arc<Brokers>,
}

impl MqttDevices {
    /// An opener without connections; `clock` dates the samples.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, brokers: Arc::default() }
    }

    /// A [`DriverMaker`] for the protocol `mqtt`.
    pub fn maker(clock: SharedClock) -> DriverMaker {
        DriverMaker::of(Self::new(clock))
    }
}

#[async_trait]
impl Protocol for MqttDevices {
    /// Subscribes to what the properties need; connects in the background, in a task of the present runtime that ends
    /// with the last device on the connection.
    async fn open(&self, device: DeviceInstance) -> Result<DriverHandle, DriverError> {
        let settings = DeviceSettings::read(&device.config)?;
        let broker = self.brokers.broker(settings.broker.clone());
        Ok(DriverHandle::of(MqttDevice::new(&device, settings, broker, Arc::clone(&self.clock))))
    }
}

impl std::fmt::Debug for MqttDevices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttDevices").finish_non_exhaustive()
    }
}
