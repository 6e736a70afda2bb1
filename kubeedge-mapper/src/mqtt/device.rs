use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream;
use kubeedge_core::{
    device::{DeviceInstance, DeviceState},
    mapper::{Driver, DriverError, Reading, Sample, Value, Visitor},
    names::{DeviceId, SharedClock},
    service::Subscription,
};
use tokio_util::sync::CancellationToken;

use super::{
    inbox::MqttInbox,
    settings::{DeviceSettings, Place},
};
use crate::{
    broker::{Broker, Inbox},
    convert::{self, ConvertError},
    settings::Settings,
};

/// A device behind a broker.
pub(super) struct MqttDevice {
    id: DeviceId,
    settings: DeviceSettings,
    broker: Arc<Broker>,
    inbox: Arc<MqttInbox>,
    clock: SharedClock,
}

impl MqttDevice {
    /// Properties with wrong settings are left out here, and say so when they are read.
    pub(super) fn new(
        device: &DeviceInstance,
        settings: DeviceSettings,
        broker: Arc<Broker>,
        clock: SharedClock,
    ) -> Self {
        let places = device.properties.iter().filter_map(|property| {
            let visitor = &property.visitor;
            Some((visitor.property.clone(), visitor.value_type, Place::read(visitor, &settings).ok()?))
        });
        let inbox = MqttInbox::new(places.collect(), settings.state_topic.clone(), Arc::clone(&clock));
        let target: Arc<dyn Inbox> = Arc::clone(&inbox) as Arc<dyn Inbox>;
        for (filter, qos) in inbox.filters() {
            broker.subscribe(filter, qos, &target);
        }
        Self { id: device.id.clone(), settings, broker, inbox, clock }
    }

    fn away(&self) -> Option<DriverError> {
        let offline = |why: &str| Some(DriverError::Offline(why.into()));
        if self.broker.is_connected() == Some(false) {
            return offline("no connection to the broker");
        }
        if self.inbox.state().is_some_and(|state| !is_there(&state)) {
            return offline("the device has said goodbye");
        }
        match (self.settings.offline_after, self.inbox.silence()) {
            (Some(limit), Some(silence)) if silence > limit => offline("nothing has arrived in time"),
            _ => None,
        }
    }
}

fn is_there(state: &DeviceState) -> bool {
    !matches!(state, DeviceState::Offline | DeviceState::Disconnected)
}

#[async_trait]
impl Driver for MqttDevice {
    async fn read(&self, visitor: Visitor) -> Result<Sample, DriverError> {
        let place = Place::read(&visitor, &self.settings)?;
        if place.topic.is_none() {
            return Err(Settings::new(&visitor.config).wrong("topic", "a topic to read from is needed"));
        }
        if let Some(away) = self.away() {
            return Err(away);
        }
        match self.inbox.last(&visitor.property) {
            None => Err(DriverError::Offline("nothing has arrived yet".into())),
            Some((_, age)) if self.settings.offline_after.is_some_and(|limit| age > limit) => {
                Err(DriverError::Offline(format!("the last value is {} s old", age.as_secs()).into()))
            }
            Some((outcome, _)) => outcome.map_err(|why| DriverError::Failed(why.into())),
        }
    }

    async fn write(&self, visitor: Visitor, value: Value) -> Result<(), DriverError> {
        let place = Place::read(&visitor, &self.settings)?;
        let Some(topic) = &place.write_topic else {
            return Err(Settings::new(&visitor.config).wrong("writeTopic", "a topic to write to is needed"));
        };
        let refused = |why: ConvertError| DriverError::Refused(why.to_string());
        let value = convert::coerce(value, visitor.value_type).map_err(refused)?;
        let raw = place.meaning.encode(&value).map_err(refused)?;
        let payload = place.payload.render(&raw, &self.id, &visitor.property, self.clock.now()).map_err(refused)?;
        self.broker.publish(topic, place.qos, place.retain, payload, self.settings.timeout).await
    }

    /// One listener at a time: a second one takes the news of the first.
    async fn subscribe(&self, _: Vec<Visitor>) -> Result<Subscription<Reading>, DriverError> {
        self.inbox.tell_again();
        let inbox = Arc::clone(&self.inbox);
        let news = stream::unfold(inbox, async |inbox| {
            let reading = inbox.next().await;
            Some((reading, inbox))
        });
        Ok(Subscription::new(news, CancellationToken::new()))
    }

    async fn health(&self) -> Result<DeviceState, DriverError> {
        if self.away().is_some() {
            return Ok(DeviceState::Offline);
        }
        let said = self.inbox.state();
        Ok(match (said, self.inbox.silence()) {
            (Some(state), _) => state,
            (None, Some(_)) => DeviceState::Online,
            (None, None) => DeviceState::Unknown,
        })
    }
}

impl Drop for MqttDevice {
    fn drop(&mut self) {
        let filters: Vec<_> = self.inbox.filters().into_iter().map(|(filter, _)| filter.to_owned()).collect();
        // The broker is told of filters that nobody has any more: ours is gone first.
        let nobody = MqttInbox::new(Vec::new(), None, Arc::clone(&self.clock));
        drop(std::mem::replace(&mut self.inbox, nobody));
        self.broker.unsubscribe(filters.iter().map(String::as_str));
    }
}
