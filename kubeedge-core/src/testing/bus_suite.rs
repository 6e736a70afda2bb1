use std::time::Duration;

use crate::{
    bus::{BusEvent, BusHandle, Event, Overflow, Qos},
    service::Subscription,
    topic::{Topic, TopicFilter},
};

fn topic(text: &str) -> Topic {
    Topic::new(text).expect("a topic")
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).expect("a filter")
}

async fn next(subscription: &mut Subscription<BusEvent>) -> Event {
    let item = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await;
    match item.expect("a subscription delivers what is published").expect("a subscription does not end by itself") {
        BusEvent::Message(event) => event,
        other => panic!("an unexpected item: {other:?}"),
    }
}

/// What every [`EventBus`](crate::bus::EventBus) has to do. Topics below `suite/` and `$hw/suite/` must be free.
///
/// # Panics
/// With the rule that is broken.
pub async fn bus_suite(bus: BusHandle) {
    let mut exact = bus.subscribe(filter("suite/a"), Overflow::DropOldest).await.expect("subscribe");
    let mut below = bus.subscribe(filter("suite/#"), Overflow::DropOldest).await.expect("subscribe");
    let mut dollar = bus.subscribe(filter("$hw/suite/+/x"), Overflow::DropOldest).await.expect("subscribe");
    for (name, payload) in [("suite/b", "1"), ("suite/a", "2"), ("$hw/suite/y/x", "3")] {
        bus.publish(Event::new(topic(name), payload)).await.expect("publish");
    }
    assert_eq!(next(&mut exact).await.payload, "2", "a subscriber gets only what its filter matches");
    assert_eq!(next(&mut below).await.payload, "1", "events come in the order of publishing");
    assert_eq!(next(&mut below).await.topic, topic("suite/a"), "an event keeps its topic");
    assert_eq!(next(&mut dollar).await.payload, "3", "topics that start with $ are ordinary to filters that name it");

    let binary: Vec<u8> = (0..=255).collect();
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let event = Event { qos, ..Event::new(topic("suite/a"), binary.clone()) };
        bus.publish(event).await.expect("publish");
        assert_eq!(next(&mut exact).await.payload, binary, "any bytes are carried");
        assert_eq!(next(&mut below).await.payload, binary, "every matching subscriber gets its own");
    }

    let retained = Event { retain: true, ..Event::new(topic("suite/kept"), "state") };
    bus.publish(retained).await.expect("publish");
    let mut late = bus.subscribe(filter("suite/kept"), Overflow::KeepLatest).await.expect("subscribe");
    assert_eq!(next(&mut late).await.payload, "state", "a late subscriber gets what is retained");
    drop(late);
    let cleared = Event { retain: true, ..Event::new(topic("suite/kept"), "") };
    bus.publish(cleared).await.expect("publish");

    // A subscriber that does not read must not stop others.
    let _stuck = bus.subscribe(filter("suite/flood"), Overflow::DropOldest).await.expect("subscribe");
    let mut flood = bus.subscribe(filter("suite/flood"), Overflow::KeepLatest).await.expect("subscribe");
    for count in 0..500_u32 {
        let published = bus.publish(Event::new(topic("suite/flood"), count.to_string()));
        let done = tokio::time::timeout(Duration::from_secs(5), published).await;
        done.expect("a stuck subscriber does not hold publishers unless it asked for it").expect("publish");
    }
    let last = loop {
        let event = next(&mut flood).await;
        if event.payload == "499" {
            break event;
        }
    };
    assert_eq!(last.topic, topic("suite/flood"), "the newest event always arrives");
    drop(exact);
    bus.publish(Event::new(topic("suite/a"), "after")).await.expect("publishing without subscribers is fine");
}
