//! Between the events of the seam and the packets of MQTT.

use kubeedge_core::{
    bus::{Event, Qos},
    names::InvalidName,
    topic::Topic,
};
use rumqttc::mqttbytes::{QoS, v4::Publish};

pub(super) fn qos_in(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

pub(super) fn qos_out(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// The event in a received PUBLISH. A topic with a wildcard or a null character is refused.
pub(super) fn event_in(publish: Publish) -> Result<Event, InvalidName> {
    let topic = Topic::new(publish.topic)?;
    Ok(Event { topic, payload: publish.payload, qos: qos_in(publish.qos), retain: publish.retain })
}

/// The PUBLISH of `event`; `id` is 0 exactly when it is delivered at most once.
pub(super) fn publish_out(event: Event, id: u16) -> Publish {
    let mut publish = Publish::from_bytes(event.topic.as_str(), qos_out(event.qos), event.payload);
    publish.retain = event.retain;
    publish.pkid = id;
    publish
}

/// Bytes that a PUBLISH of `event` has at most: fixed header, topic, packet id, payload.
pub(super) fn encoded_len(event: &Event) -> usize {
    5 + 2 + event.topic.as_str().len() + 2 + event.payload.len()
}
