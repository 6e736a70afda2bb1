use std::time::Duration;

use kubeedge_core::{
    device::ConfigData,
    mapper::{DriverError, Visitor},
};

use crate::{broker::BrokerKey, convert::Meaning, payload::Template, settings::Settings};

/// Settings of a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DeviceSettings {
    pub(super) broker: BrokerKey,
    pub(super) topic: Option<String>,
    pub(super) state_topic: Option<String>,
    pub(super) timeout: Duration,
    pub(super) offline_after: Option<Duration>,
}

impl DeviceSettings {
    pub(super) fn read(config: &ConfigData) -> Result<Self, DriverError> {
        let settings = Settings::new(config);
        let offline_after = settings.whole("offlineAfter", 0, 31_536_000_000_u64)?.filter(|millis| *millis > 0);
        Ok(Self {
            broker: BrokerKey::read(settings)?,
            topic: filter(settings, "topic")?,
            state_topic: filter(settings, "stateTopic")?,
            timeout: Duration::from_millis(settings.whole("timeout", 1, 60_000_u64)?.unwrap_or(5000)),
            offline_after: offline_after.map(Duration::from_millis),
        })
    }
}

/// Settings of a visitor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) topic: Option<String>,
    pub(super) pointer: Option<String>,
    pub(super) write_topic: Option<String>,
    pub(super) payload: Template,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) meaning: Meaning,
}

impl Place {
    pub(super) fn read(visitor: &Visitor, device: &DeviceSettings) -> Result<Self, DriverError> {
        let settings = Settings::new(&visitor.config);
        let write_topic = settings.text("writeTopic")?;
        if write_topic.as_ref().is_some_and(|topic| !rumqttc::valid_topic(topic)) {
            return Err(settings.wrong("writeTopic", "must be a topic without + and #"));
        }
        Ok(Self {
            topic: filter(settings, "topic")?.or_else(|| device.topic.clone()),
            pointer: settings.pointer("pointer")?,
            write_topic,
            payload: Template::new(settings.text("payload")?),
            qos: settings.whole("qos", 0, 2_u8)?.unwrap_or(1),
            retain: settings.flag("retain")?.unwrap_or(false),
            meaning: Meaning::read(settings)?,
        })
    }
}

fn filter(settings: Settings<'_>, key: &str) -> Result<Option<String>, DriverError> {
    match settings.text(key)? {
        Some(topic) if !rumqttc::valid_filter(&topic) => Err(settings.wrong(key, "must be a topic")),
        topic => Ok(topic),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::mapper::ValueType;
    use serde_json::{Value, json};

    use super::*;

    fn device(config: &Value) -> Result<DeviceSettings, String> {
        DeviceSettings::read(config.as_object().unwrap()).map_err(|error| error.to_string())
    }

    fn place(config: &Value) -> Result<Place, String> {
        let config = config.as_object().unwrap().clone().into();
        let visitor = Visitor { property: "p".parse().unwrap(), value_type: ValueType::Float, config };
        let device = device(&json!({"brokerURL": "tcp://h", "topic": "all"})).unwrap();
        Place::read(&visitor, &device).map_err(|error| error.to_string())
    }

    #[test]
    fn wrong_settings_are_named() {
        assert_eq!(device(&json!({})).unwrap_err(), "setting brokerURL is missing: the broker is needed");
        let tls = device(&json!({"brokerurl": "ssl://h:8883"})).unwrap_err();
        assert_eq!(tls, "setting brokerURL is \"ssl://h:8883\": must start with tcp:// or mqtt://");
        assert!(device(&json!({"brokerURL": "h", "stateTopic": "a/#/b"})).unwrap_err().contains("stateTopic"));
        assert!(place(&json!({"writeTopic": "a/+"})).unwrap_err().contains("writeTopic"));
        assert!(place(&json!({"pointer": "a"})).unwrap_err().contains("pointer"));
        assert!(place(&json!({"qos": 3})).unwrap_err().contains("qos"));
    }

    #[test]
    fn properties_without_a_topic_have_that_of_the_device() {
        assert_eq!(place(&json!({"pointer": "/t"})).unwrap().topic.as_deref(), Some("all"));
        let own = place(&json!({"topic": "own/+", "qos": "0", "retain": "true"})).unwrap();
        assert_eq!((own.topic.as_deref(), own.qos, own.retain), (Some("own/+"), 0, true));
    }
}
