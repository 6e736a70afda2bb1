use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kubeedge_core::{
    device::DeviceState,
    mapper::{DriverError, Reading, Sample, ValueType},
    names::{PropertyName, SharedClock, UnixMillis},
};
use tokio::{sync::Notify, time::Instant};

use super::settings::Place;
use crate::{broker::Inbox, convert, payload};

/// What a device has said. Of each property the last is kept.
pub(super) struct MqttInbox {
    places: Vec<(PropertyName, ValueType, Place)>,
    state_topic: Option<String>,
    clock: SharedClock,
    heard: Mutex<Heard>,
    news: Notify,
}

#[derive(Default)]
struct Heard {
    /// The value, or why the payload is none.
    last: HashMap<PropertyName, (Result<Sample, String>, Instant)>,
    /// Properties whose last value the listener does not have yet.
    unread: BTreeSet<PropertyName>,
    at: Option<Instant>,
    state: Option<DeviceState>,
}

impl MqttInbox {
    pub(super) fn new(
        places: Vec<(PropertyName, ValueType, Place)>,
        state_topic: Option<String>,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self { places, state_topic, clock, heard: Mutex::default(), news: Notify::new() })
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Filters to subscribe to, and their QoS.
    pub(super) fn filters(&self) -> Vec<(&str, u8)> {
        let properties = self.places.iter().filter_map(|(_, _, place)| Some((place.topic.as_deref()?, place.qos)));
        properties.chain(self.state_topic.as_deref().map(|topic| (topic, 1))).collect()
    }

    /// The last value of `property`, and how old it is.
    pub(super) fn last(&self, property: &PropertyName) -> Option<(Result<Sample, String>, Duration)> {
        self.heard().last.get(property).map(|(outcome, at)| (outcome.clone(), at.elapsed()))
    }

    /// How long ago anything came.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.heard().at.map(|at| at.elapsed())
    }

    /// What the device or its last will has said of itself.
    pub(super) fn state(&self) -> Option<DeviceState> {
        self.heard().state.clone()
    }

    /// Everything known is news again, for a new listener.
    pub(super) fn tell_again(&self) {
        let mut heard = self.heard();
        heard.unread = heard.last.keys().cloned().collect();
        self.news.notify_one();
    }

    /// The next property that has news. Cancel safe.
    pub(super) async fn next(&self) -> Reading {
        loop {
            {
                let mut heard = self.heard();
                if let Some(property) = heard.unread.pop_first()
                    && let Some((outcome, _)) = heard.last.get(&property)
                {
                    let outcome = outcome.clone().map_err(|why| DriverError::Failed(why.into()));
                    return Reading { property, outcome };
                }
            }
            self.news.notified().await;
        }
    }
}

fn value_in(payload: &[u8], value_type: ValueType, place: &Place, at: UnixMillis) -> Result<Sample, String> {
    let value = payload::extract(payload, place.pointer.as_deref())
        .and_then(|raw| place.meaning.decode(raw))
        .and_then(|value| convert::coerce(value, value_type));
    value.map(|value| Sample { value, at }).map_err(|why| why.to_string())
}

impl Inbox for MqttInbox {
    fn deliver(&self, topic: &str, payload: &[u8]) {
        let (now, at) = (Instant::now(), self.clock.now());
        let mut heard = self.heard();
        if self.state_topic.as_deref().is_some_and(|filter| rumqttc::matches(topic, filter)) {
            let word = String::from_utf8_lossy(payload).trim().chars().take(64).collect::<String>();
            heard.state = (!word.is_empty()).then(|| DeviceState::from(word));
            if heard.state.as_ref().is_some_and(|state| *state == DeviceState::Offline) {
                return;
            }
        }
        heard.at = Some(now);
        for (property, value_type, place) in &self.places {
            if place.topic.as_deref().is_some_and(|filter| rumqttc::matches(topic, filter)) {
                heard.last.insert(property.clone(), (value_in(payload, *value_type, place, at), now));
                heard.unread.insert(property.clone());
            }
        }
        drop(heard);
        self.news.notify_one();
    }
}
