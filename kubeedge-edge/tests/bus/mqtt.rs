//! The MQTT client bus, against mosquitto and against the embedded broker.

use std::{collections::BTreeSet, time::Duration};

use kubeedge_core::{
    bus::{BusError, BusEvent, BusHandle, Event, EventBus as _, Overflow, Qos},
    testing::bus_suite,
};
use kubeedge_edge::bus::{BrokerAccess, Credentials, MqttBus, MqttOptions};
use tokio_util::sync::CancellationToken;

use crate::{
    Broker, Client, casual, event, filter, item,
    mosquitto::{self, Mosquitto, Sub},
    payload,
    proxy::Proxy,
    soon,
};

#[tokio::test]
async fn passes_the_suite_on_mosquitto() {
    let mosquitto = Mosquitto::start().await;
    let client = Client::start(&mosquitto.url());
    bus_suite(BusHandle::of(client.bus.clone())).await;
}

#[tokio::test]
async fn passes_the_suite_on_the_embedded_broker() {
    let broker = Broker::start(|_| {}).await;
    let client = Client::start(&broker.url);
    bus_suite(BusHandle::of(client.bus.clone())).await;
}

#[tokio::test]
async fn talks_with_the_clients_of_mosquitto() {
    let mosquitto = Mosquitto::start().await;
    let client = Client::start(&mosquitto.url());
    let mut sub = Sub::start(mosquitto.port, &["-t", "$hw/#", "-t", "out", "-q", "2"]).await;
    for (number, qos) in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].into_iter().enumerate() {
        client.bus.publish(Event { qos, ..event("$hw/events/x", "é") }).await.unwrap();
        assert_eq!(sub.next().await, format!("$hw/events/x {number} 0 é"));
    }
    let mut inbox = client.bus.subscribe(filter("in/+"), Overflow::HoldPublisher).await.unwrap();
    for qos in ["0", "1", "2"] {
        mosquitto::publish(mosquitto.port, &["-t", "in/x", "-m", qos, "-q", qos]).await;
        assert_eq!(payload(&mut inbox).await, qos);
    }
}

#[tokio::test]
async fn exactly_once_is_received_once() {
    let broker = Broker::start(|_| {}).await;
    let mut options = MqttOptions::tcp(&broker.url).unwrap();
    options.subscribe_qos = Qos::ExactlyOnce;
    let client = Client::with(options);
    let mut inbox = client.bus.subscribe(filter("t"), Overflow::HoldPublisher).await.unwrap();
    for count in 0..200 {
        client.bus.publish(Event { qos: Qos::ExactlyOnce, ..event("t", &count.to_string()) }).await.unwrap();
        assert_eq!(payload(&mut inbox).await, count.to_string());
    }
}

#[tokio::test]
async fn a_restarted_broker_is_found_and_subscriptions_come_back() {
    let mut mosquitto = Mosquitto::start().await;
    let client = Client::start(&mosquitto.url());
    let mut held = client.bus.subscribe(filter("a/#"), Overflow::HoldPublisher).await.unwrap();
    let mut latest = client.bus.subscribe(filter("a/b"), Overflow::KeepLatest).await.unwrap();
    client.bus.publish(event("a/b", "1")).await.unwrap();
    for subscription in [&mut held, &mut latest] {
        assert_eq!(payload(subscription).await, "1");
    }
    for round in 2..4 {
        mosquitto.kill().await;
        mosquitto.restart().await;
        for subscription in [&mut held, &mut latest] {
            assert_eq!(item(subscription).await, BusEvent::Resynced);
        }
        client.bus.publish(event("a/b", &round.to_string())).await.unwrap();
        for subscription in [&mut held, &mut latest] {
            assert_eq!(payload(subscription).await, round.to_string());
        }
    }
}

#[tokio::test]
async fn a_publication_during_an_outage_arrives_or_is_an_error() {
    let mut mosquitto = Mosquitto::start().await;
    let client = Client::start(&mosquitto.url());
    client.bus.publish(event("warm", "up")).await.unwrap();
    mosquitto.kill().await;
    let retained = Event { retain: true, ..event("kept", "through") };
    let publishing = client.bus.publish(retained);
    let restarting = mosquitto.restart();
    soon("the publication", async { tokio::join!(publishing, restarting).0 }).await.unwrap();
    let mut sub = Sub::start(mosquitto.port, &["-t", "kept"]).await;
    assert_eq!(sub.next().await, "kept 0 1 through");

    mosquitto.kill().await;
    let mut options = MqttOptions::tcp(&mosquitto.url()).unwrap();
    options.timeout = Duration::from_millis(50);
    let hasty = Client::with(options);
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let outcome = hasty.bus.publish(Event { qos, ..event("t", "x") }).await;
        assert!(matches!(outcome, Err(BusError::Disconnected)), "{outcome:?}");
    }
    let outcome = hasty.bus.subscribe(filter("t"), Overflow::DropOldest).await;
    assert!(matches!(outcome, Err(BusError::Disconnected)), "{outcome:?}");
}

#[tokio::test]
async fn what_was_confirmed_has_arrived_however_often_the_connection_breaks() {
    let broker = Broker::start(|_| {}).await;
    let proxy = Proxy::start(broker.port).await;
    let client = Client::start(&proxy.url);
    let mut truth = broker.bus.subscribe(filter("t"), Overflow::HoldPublisher).await.unwrap();
    let publisher = async {
        for count in 0..300 {
            if count % 20 == 10 {
                proxy.cut();
            }
            client.bus.publish(event("t", &count.to_string())).await.unwrap();
        }
        broker.bus.publish(event("t", "end")).await.unwrap();
    };
    let reader = async {
        let mut seen = BTreeSet::new();
        loop {
            match payload(&mut truth).await.as_str() {
                "end" => return seen,
                count => seen.insert(count.parse::<u32>().unwrap()),
            };
        }
    };
    let ((), seen) = tokio::join!(publisher, reader);
    assert_eq!(seen, (0..300).collect());
}

#[tokio::test]
async fn a_held_subscriber_gets_all_and_never_stands_between_publications_and_their_confirmation() {
    let mosquitto = Mosquitto::start().await;
    let mut options = MqttOptions::tcp(&mosquitto.url()).unwrap();
    options.queue = 2;
    let client = Client::with(options);
    let mut held = client.bus.subscribe(filter("t"), Overflow::HoldPublisher).await.unwrap();
    for count in 0..100 {
        client.bus.publish(event("t", &count.to_string())).await.unwrap();
    }
    for count in 0..100 {
        assert_eq!(payload(&mut held).await, count.to_string());
    }
}

#[tokio::test]
async fn client_and_broker_may_start_in_any_order() {
    let mut mosquitto = Mosquitto::start().await;
    mosquitto.kill().await;
    let client = Client::start(&mosquitto.url());
    assert!(!client.bus.is_connected());
    let subscribing = client.bus.subscribe(filter("t"), Overflow::DropOldest);
    let starting = mosquitto.restart();
    let (subscription, ()) = soon("both", async { tokio::join!(subscribing, starting) }).await;
    let mut subscription = subscription.unwrap();
    client.bus.publish(event("t", "x")).await.unwrap();
    assert!(client.bus.is_connected());
    assert_eq!(payload(&mut subscription).await, "x");
}

#[tokio::test]
async fn overlapping_subscriptions_each_get_an_event_once_and_what_is_retained() {
    let mosquitto = Mosquitto::start().await;
    let client = Client::start(&mosquitto.url());
    client.bus.publish(Event { retain: true, ..event("a/b", "kept") }).await.unwrap();
    let mut open = Vec::new();
    for text in ["a/b", "a/+", "a/b", "#"] {
        let mut subscription = client.bus.subscribe(filter(text), Overflow::DropOldest).await.unwrap();
        assert_eq!(payload(&mut subscription).await, "kept", "{text}");
        open.push(subscription);
    }
    for count in ["1", "2"] {
        client.bus.publish(event("a/b", count)).await.unwrap();
        for subscription in &mut open {
            assert_eq!(payload(subscription).await, count);
        }
    }
}

#[tokio::test]
async fn connections_of_dropped_subscriptions_serve_new_ones() {
    let broker = Broker::start(|_| {}).await;
    let client = Client::start(&broker.url);
    // More at once than there are connections for overlapping filters.
    let mut open = Vec::new();
    let busy = loop {
        match client.bus.subscribe(filter("t"), Overflow::DropOldest).await {
            Ok(subscription) => open.push(subscription),
            Err(error) => break error,
        }
    };
    assert!(matches!(busy, BusError::Busy) && open.len() == 16, "{busy:?} {}", open.len());
    open.clear();
    let mut again = soon("room", async {
        loop {
            match client.bus.subscribe(filter("t"), Overflow::DropOldest).await {
                Ok(subscription) => break subscription,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    broker.bus.publish(casual("t", "x")).await.unwrap();
    assert_eq!(payload(&mut again).await, "x");
}

#[tokio::test]
async fn a_wrong_password_is_told_as_a_refusal() {
    let broker = Broker::start(|config| config.access = BrokerAccess::open().user(Credentials::new("u", "p"))).await;
    let mut options = MqttOptions::tcp(&broker.url).unwrap();
    options.credentials = Some(Credentials::new("u", "p"));
    let welcome = Client::with(options.clone());
    welcome.bus.publish(event("t", "x")).await.unwrap();
    options.credentials = Some(Credentials::new("u", "q"));
    options.timeout = Duration::from_millis(500);
    let stranger = Client::with(options);
    let outcome = stranger.bus.publish(event("t", "x")).await;
    assert!(matches!(&outcome, Err(BusError::Refused(why)) if why.contains("password")), "{outcome:?}");
}

#[tokio::test]
async fn tls_is_verified_with_the_given_authority() {
    let ours = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let files = [("cert.pem", ours.cert.pem()), ("key.pem", ours.signing_key.serialize_pem())];
    let files: Vec<_> = files.iter().map(|(name, content)| (*name, content.as_str())).collect();
    let mosquitto = Mosquitto::with("certfile {}/cert.pem\nkeyfile {}/key.pem", &files).await;
    let url = format!("ssl://127.0.0.1:{}", mosquitto.port);

    let client = Client::with(MqttOptions::tls(&url, ours.cert.pem().as_bytes(), None).unwrap());
    let mut inbox = client.bus.subscribe(filter("t"), Overflow::DropOldest).await.unwrap();
    client.bus.publish(event("t", "secret")).await.unwrap();
    assert_eq!(payload(&mut inbox).await, "secret");

    let mut options = MqttOptions::tls(&url, other.cert.pem().as_bytes(), None).unwrap();
    options.timeout = Duration::from_millis(300);
    let fooled = Client::with(options);
    assert!(matches!(fooled.bus.publish(event("t", "x")).await, Err(BusError::Disconnected)));
    let url = format!("ssl://localhost:{}", mosquitto.port);
    let mut options = MqttOptions::tls(&url, ours.cert.pem().as_bytes(), None).unwrap();
    options.timeout = Duration::from_millis(300);
    let misnamed = Client::with(options);
    assert!(matches!(misnamed.bus.publish(event("t", "x")).await, Err(BusError::Disconnected)));
}

#[tokio::test]
async fn shutdown_says_goodbye_ends_subscriptions_and_refuses_calls() {
    let mosquitto = Mosquitto::start().await;
    let client = Client::start(&mosquitto.url());
    let mut subscription = client.bus.subscribe(filter("t"), Overflow::HoldPublisher).await.unwrap();
    client.bus.publish(event("t", "x")).await.unwrap();
    assert_eq!(payload(&mut subscription).await, "x");
    client.shutdown.cancel();
    soon("the driver", client.running).await.unwrap();
    assert!(subscription.next().await.is_none());
    assert!(matches!(client.bus.publish(event("t", "x")).await, Err(BusError::Disconnected)));
    let outcome = client.bus.subscribe(filter("t"), Overflow::DropOldest).await;
    assert!(matches!(outcome, Err(BusError::Disconnected)));
}

#[tokio::test]
async fn the_driver_ends_when_nobody_is_left_and_not_before() {
    let broker = Broker::start(|_| {}).await;
    let (bus, driver) = MqttBus::new(MqttOptions::tcp(&broker.url).unwrap());
    let running = tokio::spawn(driver.run(CancellationToken::new()));
    let mut subscription = bus.subscribe(filter("t"), Overflow::DropOldest).await.unwrap();
    drop(bus);
    broker.bus.publish(event("t", "x")).await.unwrap();
    assert_eq!(payload(&mut subscription).await, "x");
    drop(subscription);
    soon("the driver", running).await.unwrap();
}

#[tokio::test]
async fn nothing_waits_for_a_driver_that_was_dropped() {
    let (bus, driver) = MqttBus::new(MqttOptions::tcp("tcp://127.0.0.1:1").unwrap());
    drop(driver);
    assert!(matches!(bus.publish(event("t", "x")).await, Err(BusError::Disconnected)));
    let outcome = bus.subscribe(filter("t"), Overflow::DropOldest).await;
    assert!(matches!(outcome, Err(BusError::Disconnected)));
}
