use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{device::PushMethod, mapper::DriverError};
use tokio::time::sleep;

use super::{Publisher, Pushed, Route, Target, time_text};
use crate::broker::{Broker, BrokerKey, Brokers};

/// Longest time for one value.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Carries out `mqtt`: the text `time is YYYY-MM-DD hh:mm:ss  <topic>: <value>` on the topic. Times are UTC. One
/// connection per broker, kept open.
///
/// Upstream: `data/publish/mqtt` of the mapper framework, which connects anew for each value.
#[derive(Debug, Default)]
pub struct MqttPublisher {
    brokers: Brokers,
}

impl MqttPublisher {
    /// Connects to nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Publisher for MqttPublisher {
    fn field(&self) -> &'static str {
        "mqtt"
    }

    fn target(&self, method: &PushMethod) -> Result<Target, DriverError> {
        let push = method.mqtt.as_ref().ok_or(DriverError::Unsupported)?;
        let wrong = |field: &str, value: String, reason: &str| DriverError::Config {
            field: format!("pushMethod.mqtt.{field}"),
            value,
            reason: reason.to_owned(),
        };
        let key = BrokerKey::parse(&push.address).map_err(|why| wrong("address", push.address.clone(), why))?;
        if push.topic.is_empty() || !rumqttc::valid_topic(&push.topic) {
            return Err(wrong("topic", push.topic.clone(), "must be a topic without + and #"));
        }
        let qos = u8::try_from(push.qos).ok().filter(|qos| *qos <= 2);
        let qos = qos.ok_or_else(|| wrong("qos", push.qos.to_string(), "must be 0, 1 or 2"))?;
        let route = MqttRoute {
            broker: self.brokers.broker(key.clone()),
            topic: push.topic.clone(),
            qos,
            retain: push.retained,
        };
        Ok(Target { key: format!("mqtt {key:?}"), route: Arc::new(route) })
    }
}

struct MqttRoute {
    broker: Arc<Broker>,
    topic: String,
    qos: u8,
    retain: bool,
}

#[async_trait]
impl Route for MqttRoute {
    async fn publish(&self, value: &Pushed) -> Result<(), DriverError> {
        // The first connection takes a moment, which is no failure.
        for _ in 0..100 {
            if self.broker.is_connected().is_some() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let text = format!("time is {}  {}: {}", time_text(value.at), self.topic, value.value);
        self.broker.publish(&self.topic, self.qos, self.retain, text.into_bytes(), TIMEOUT).await
    }
}
