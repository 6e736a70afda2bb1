#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use kubeedge_core::{
    bus::{BusEvent, Overflow},
    layer::OutboxLayer,
    names::{SystemClock, WallClock as _},
    outbox::{OutboxLimits, StreamLimit},
    testing::{MemoryBus, MemoryStore},
};
use tower::{Layer as _, ServiceExt as _};

use super::*;

struct Site {
    bus: BusHandle,
    store: MetaHandle,
    inbound: Inbound,
    _stop: tokio_util::sync::DropGuard,
}

fn site(limits: OutboxLimits) -> Site {
    let bus = BusHandle::of(MemoryBus::new(100));
    start(bus, MetaHandle::new(OutboxLayer::new(limits).layer(MetaHandle::of(MemoryStore::new()))))
}

fn start(bus: BusHandle, store: MetaHandle) -> Site {
    let (inbound, bridge) = CloudBridge::new(store.clone(), bus.clone(), Arc::new(SystemClock));
    let stop = CancellationToken::new();
    tokio::spawn(bridge.run(stop.clone()));
    Site { bus, store, inbound, _stop: stop.drop_guard() }
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

impl Site {
    async fn publish(&self, topic: &str, payload: &[u8]) {
        let event = Event::new(Topic::new(topic).unwrap(), Bytes::copy_from_slice(payload));
        self.bus.publish(event).await.unwrap();
        settle().await;
    }

    async fn told(&self, operation: Operation, topic: &str, content: Content) {
        let (source, group) = (Source::RouterEventBus, Group::User);
        let message = Message::new(SystemClock.now(), source, group, operation, Resource::Opaque(topic.into()));
        self.inbound.clone().oneshot(message.content(content)).await.unwrap();
        settle().await;
    }

    async fn uploads(&self) -> Vec<(String, String)> {
        let records = self.store.list(outbox::selector()).await.unwrap();
        let messages = records.iter().map(|record| outbox::message(record).unwrap());
        messages.map(|message| (message.resource.to_string(), message.content.as_text().unwrap())).collect()
    }
}

fn upload(topic: &str, payload: &str) -> (String, String) {
    (topic.to_owned(), payload.to_owned())
}

#[tokio::test]
async fn what_applications_upload_is_left_for_the_cloud() {
    let site = site(OutboxLimits::default());
    settle().await;
    site.publish("default/user/meter", b"{\"kwh\": 3}").await;
    site.publish("$hw/events/upload/default/meter", b"4").await;
    site.publish("default/other", b"5").await;
    let expected = [upload("default/user/meter", "{\"kwh\": 3}"), upload("$hw/events/upload/default/meter", "4")];
    assert_eq!(site.uploads().await, expected);
}

#[tokio::test]
async fn rules_of_the_cloud_subscribe_and_unsubscribe_and_nothing_counts_twice() {
    let site = site(OutboxLimits::default());
    site.told(Operation::Subscribe, "default/alarm", Content::null()).await;
    // Passes two filters.
    site.told(Operation::Subscribe, "default/user/meter", Content::null()).await;
    site.publish("default/alarm", b"fire").await;
    site.publish("default/user/meter", b"1").await;
    let mut expected = vec![upload("default/alarm", "fire"), upload("default/user/meter", "1")];
    assert_eq!(site.uploads().await, expected);

    site.told(Operation::Unsubscribe, "default/alarm", Content::null()).await;
    site.told(Operation::Unsubscribe, "default/user/meter", Content::null()).await;
    site.publish("default/alarm", b"again").await;
    site.publish("default/user/meter", b"2").await;
    expected.push(upload("default/user/meter", "2"));
    assert_eq!(site.uploads().await, expected);
}

#[tokio::test]
async fn subscriptions_stand_again_after_a_restart() {
    let first = site(OutboxLimits::default());
    let (bus, store) = (first.bus.clone(), first.store.clone());
    first.told(Operation::Subscribe, "default/alarm", Content::null()).await;
    drop(first);
    let site = start(bus, store);
    settle().await;
    site.publish("default/alarm", b"fire").await;
    assert_eq!(site.uploads().await, [upload("default/alarm", "fire")]);
}

#[tokio::test]
async fn publications_of_the_cloud_reach_the_bus_in_their_order() {
    let site = site(OutboxLimits::default());
    let filter = TopicFilter::new("shop/#").unwrap();
    let mut heard = site.bus.subscribe(filter, Overflow::HoldPublisher).await.unwrap();
    site.told(Operation::Publish, "shop/door", Content::text("open")).await;
    site.told(Operation::Publish, "shop/door", Content::json(&serde_json::json!({"open": false})).unwrap()).await;
    let mut payloads = Vec::new();
    while payloads.len() < 2 {
        if let Some(BusEvent::Message(event)) = heard.next().await {
            payloads.push(event.payload);
        }
    }
    assert_eq!(payloads, [&b"open"[..], b"{\"open\":false}"]);
}

#[tokio::test]
async fn a_full_stream_drops_its_oldest_and_a_giant_alone_is_lost() {
    let site = site(OutboxLimits::default().each_stream(StreamLimit { entries: 2, bytes: 1000 }));
    settle().await;
    for payload in [&b"first"[..], &[b'x'; 2000], b"second", b"third"] {
        site.publish("a/user/b", payload).await;
    }
    assert_eq!(site.uploads().await, [upload("a/user/b", "second"), upload("a/user/b", "third")]);
}
