//! The event bus against the programs of others: mosquitto, its clients, and rumqttc's client.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used)]

mod broker;
mod mosquitto;
mod mqtt;
mod proxy;

use std::time::Duration;

use kubeedge_core::{
    bus::{BusEvent, Event, Qos},
    service::Subscription,
    topic::{Topic, TopicFilter},
};
use kubeedge_edge::bus::{BrokerBus, BrokerConfig, EmbeddedBroker, MqttBus, MqttOptions};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

fn event(topic: &str, payload: &str) -> Event {
    Event::new(Topic::new(topic).unwrap(), payload.to_owned())
}

fn casual(topic: &str, payload: &str) -> Event {
    Event { qos: Qos::AtMostOnce, ..event(topic, payload) }
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

async fn item(subscription: &mut Subscription<BusEvent>) -> BusEvent {
    soon("an item", subscription.next()).await.expect("the subscription has ended")
}

/// The payload of the next item, which is an event.
async fn payload(subscription: &mut Subscription<BusEvent>) -> String {
    match item(subscription).await {
        BusEvent::Message(event) => String::from_utf8(event.payload.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A running embedded broker; stopped when dropped.
struct Broker {
    url: String,
    port: u16,
    bus: BrokerBus,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    _stop: DropGuard,
}

impl Broker {
    async fn start(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let mut config = BrokerConfig::new("127.0.0.1:0".parse().unwrap());
        change(&mut config);
        let broker = EmbeddedBroker::bind(config).await.unwrap();
        let port = broker.local_addr().port();
        let (bus, shutdown) = (broker.bus(), CancellationToken::new());
        let running = tokio::spawn(broker.run(shutdown.clone()));
        let stop_on_drop = shutdown.clone().drop_guard();
        Self { url: format!("tcp://127.0.0.1:{port}"), port, bus, shutdown, running, _stop: stop_on_drop }
    }
}

/// A running MQTT bus; stopped when dropped.
struct Client {
    bus: MqttBus,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    _stop: DropGuard,
}

impl Client {
    fn start(url: &str) -> Self {
        Self::with(MqttOptions::tcp(url).unwrap())
    }

    fn with(mut options: MqttOptions) -> Self {
        options.reconnect = (Duration::from_millis(10), Duration::from_millis(100));
        let (bus, driver) = MqttBus::new(options);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(driver.run(shutdown.clone()));
        let stop_on_drop = shutdown.clone().drop_guard();
        Self { bus, shutdown, running, _stop: stop_on_drop }
    }
}
