//! The embedded broker, as clients of others see it.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    bus::{BusError, BusHandle, Event, EventBus as _, Overflow},
    testing::bus_suite,
};
use kubeedge_edge::bus::{BrokerAccess, BrokerConfig, BrokerError, Credentials, EmbeddedBroker};
use rumqttc::{AsyncClient, Incoming, MqttOptions, QoS};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Broker, casual, event, filter,
    mosquitto::{self, Sub},
    payload, soon,
};

#[tokio::test]
async fn passes_the_suite_in_process() {
    let broker = Broker::start(|_| {}).await;
    bus_suite(BusHandle::of(broker.bus.clone())).await;
}

#[tokio::test]
async fn device_topics_reach_mosquitto_sub_but_not_its_wildcard() {
    let broker = Broker::start(|_| {}).await;
    let mut device = Sub::start(broker.port, &["-t", "$hw/events/#", "-q", "1"]).await;
    let mut all = Sub::start(broker.port, &["-t", "#", "-q", "0"]).await;
    let twin = "$hw/events/device/default/boiler/twin/update/document";
    broker.bus.publish(event(twin, "1")).await.unwrap();
    mosquitto::publish(broker.port, &["-t", twin, "-m", "2", "-q", "2"]).await;
    broker.bus.publish(event("plain", "3")).await.unwrap();
    assert_eq!(device.next().await, format!("{twin} 1 0 1"));
    assert_eq!(device.next().await, format!("{twin} 1 0 2"));
    assert_eq!(all.next().await, "plain 0 0 3");
}

#[tokio::test]
async fn every_qos_crosses_between_mosquitto_clients_and_the_process() {
    let broker = Broker::start(|_| {}).await;
    let mut inside = broker.bus.subscribe(filter("in/#"), Overflow::HoldPublisher).await.unwrap();
    for qos in ["0", "1", "2"] {
        let mut sub = Sub::start(broker.port, &["-t", "out", "-q", qos]).await;
        mosquitto::publish(broker.port, &["-t", "in/x", "-m", qos, "-q", qos]).await;
        assert_eq!(payload(&mut inside).await, qos);
        mosquitto::publish(broker.port, &["-t", "out", "-m", qos, "-q", "2"]).await;
        assert_eq!(sub.next().await, format!("out {qos} 0 {qos}"));
    }
}

#[tokio::test]
async fn retained_messages_wait_for_late_subscribers_until_cleared() {
    let broker = Broker::start(|_| {}).await;
    mosquitto::publish(broker.port, &["-t", "state", "-m", "on", "-q", "1", "-r"]).await;
    let mut sub = Sub::start(broker.port, &["-t", "state", "-q", "1"]).await;
    assert_eq!(sub.next().await, "state 1 1 on");
    mosquitto::publish(broker.port, &["-t", "state", "-n", "-q", "1", "-r"]).await;
    let mut late = broker.bus.subscribe(filter("state"), Overflow::DropOldest).await.unwrap();
    broker.bus.publish(event("state", "live")).await.unwrap();
    assert_eq!(payload(&mut late).await, "live");
}

#[tokio::test]
async fn the_will_of_a_killed_client_is_published() {
    let broker = Broker::start(|_| {}).await;
    let mut wills = broker.bus.subscribe(filter("will"), Overflow::DropOldest).await.unwrap();
    let will = ["-t", "x", "--will-topic", "will", "--will-payload", "gone", "--will-qos", "1"];
    let mut sub = Sub::start(broker.port, &will).await;
    sub.kill().await;
    assert_eq!(payload(&mut wills).await, "gone");
}

#[tokio::test]
async fn rumqttc_publishes_and_subscribes_with_every_qos() {
    let broker = Broker::start(|_| {}).await;
    let (client, mut events) = AsyncClient::new(MqttOptions::new("r", "127.0.0.1", broker.port), 10);
    client.subscribe("a/+", QoS::ExactlyOnce).await.unwrap();
    for (topic, qos) in [("a/0", QoS::AtMostOnce), ("a/1", QoS::AtLeastOnce), ("a/2", QoS::ExactlyOnce)] {
        client.publish(topic, qos, false, "x").await.unwrap();
    }
    let mut got = Vec::new();
    while got.len() < 3 {
        if let rumqttc::Event::Incoming(Incoming::Publish(publish)) = soon("rumqttc", events.poll()).await.unwrap() {
            got.push((publish.topic, publish.qos));
        }
    }
    let wanted = [("a/0", QoS::AtMostOnce), ("a/1", QoS::AtLeastOnce), ("a/2", QoS::ExactlyOnce)];
    assert_eq!(got, wanted.map(|(topic, qos)| (topic.to_owned(), qos)));
}

#[tokio::test]
async fn a_burst_of_ten_thousand_reaches_a_healthy_client_whole_and_in_order() {
    let broker = Broker::start(|_| {}).await;
    let (client, mut events) = AsyncClient::new(MqttOptions::new("r", "127.0.0.1", broker.port), 10);
    client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    while !matches!(soon("rumqttc", events.poll()).await.unwrap(), rumqttc::Event::Incoming(Incoming::SubAck(_))) {}
    let bus = broker.bus.clone();
    let publisher = tokio::spawn(async move {
        for count in 0..10_000 {
            bus.publish(event("t", &count.to_string())).await.unwrap();
        }
    });
    for count in 0..10_000 {
        loop {
            if let rumqttc::Event::Incoming(Incoming::Publish(publish)) = soon("rumqttc", events.poll()).await.unwrap()
            {
                assert_eq!(publish.payload, count.to_string());
                break;
            }
        }
    }
    publisher.await.unwrap();
}

#[tokio::test]
async fn shutdown_within_a_second_closes_clients_and_ends_subscriptions() {
    let broker = Broker::start(|_| {}).await;
    let mut inside = broker.bus.subscribe(filter("#"), Overflow::DropOldest).await.unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", broker.port)).await.unwrap();
    client.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'c']).await.unwrap();
    let mut accepted = [0; 4];
    client.read_exact(&mut accepted).await.unwrap();
    assert_eq!(accepted, [0x20, 2, 0, 0]);
    // One that has not even said who it is.
    let mut stranger = TcpStream::connect(("127.0.0.1", broker.port)).await.unwrap();

    let start = Instant::now();
    broker.shutdown.cancel();
    broker.running.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(client.read(&mut accepted).await.unwrap_or(0), 0);
    assert_eq!(stranger.read(&mut accepted).await.unwrap_or(0), 0);
    assert!(inside.next().await.is_none());
    assert!(matches!(broker.bus.publish(event("t", "x")).await, Err(BusError::Disconnected)));
    assert!(matches!(broker.bus.subscribe(filter("t"), Overflow::DropOldest).await, Err(BusError::Disconnected)));
    assert!(TcpStream::connect(("127.0.0.1", broker.port)).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_dropped_broker_ends_its_subscriptions() {
    let broker = Broker::start(|_| {}).await;
    let mut inside = broker.bus.subscribe(filter("#"), Overflow::DropOldest).await.unwrap();
    broker.running.abort();
    assert!(soon("the end", inside.next()).await.is_none());
}

#[tokio::test]
async fn other_machines_need_a_password_and_taken_ports_are_named() {
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:1883"] {
        let error = EmbeddedBroker::bind(BrokerConfig::new(addr.parse().unwrap())).await.unwrap_err();
        assert!(matches!(error, BrokerError::Exposed(_)) && error.to_string().contains(addr), "{error}");
    }
    let broker = Broker::start(|_| {}).await;
    let addr = format!("127.0.0.1:{}", broker.port);
    let error = EmbeddedBroker::bind(BrokerConfig::new(addr.parse().unwrap())).await.unwrap_err();
    assert!(matches!(error, BrokerError::Bind { .. }) && error.to_string().contains(&addr), "{error}");
}

#[tokio::test]
async fn clients_over_the_limit_are_turned_away_and_leave_room() {
    let broker = Broker::start(|config| config.max_clients = 1).await;
    let mut first = Sub::start(broker.port, &["-t", "x"]).await;
    let mut second = TcpStream::connect(("127.0.0.1", broker.port)).await.unwrap();
    assert_eq!(soon("the end", second.read(&mut [0; 1])).await.unwrap_or(0), 0);
    broker.bus.publish(casual("x", "still here")).await.unwrap();
    assert_eq!(first.next().await, "x 0 0 still here");
}

#[tokio::test]
async fn noise_on_the_socket_hurts_nobody() {
    let broker = Broker::start(|_| {}).await;
    let mut sub = Sub::start(broker.port, &["-t", "x"]).await;
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0x10, 0xff, 0xff, 0xff, 0x7f], &[0x30, 3, 0, 1, b'#']]
    {
        let mut client = TcpStream::connect(("127.0.0.1", broker.port)).await.unwrap();
        client.write_all(noise).await.unwrap();
        // Of some of it the broker would wait for the rest.
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = soon("the end", client.read_to_end(&mut answer)).await;
    }
    broker.bus.publish(casual("x", "fine")).await.unwrap();
    assert_eq!(sub.next().await, "x 0 0 fine");
}

#[tokio::test]
async fn events_over_the_packet_limit_are_refused() {
    let broker = Broker::start(|config| config.max_packet = 100).await;
    let refused = broker.bus.publish(Event::new("t".parse().unwrap(), vec![0; 100])).await;
    assert!(matches!(refused, Err(BusError::Refused(why)) if why.contains("100")));
}

#[test]
fn nothing_is_left_of_a_broker_after_its_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (port, metrics) = runtime.block_on(async {
        let config = BrokerConfig::new("127.0.0.1:0".parse().unwrap());
        let broker = EmbeddedBroker::bind(config).await.unwrap();
        let (port, shutdown) = (broker.local_addr().port(), CancellationToken::new());
        let client = async {
            let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            client.write_all(&[0x10]).await.unwrap();
            shutdown.cancel();
        };
        tokio::join!(broker.run(shutdown.clone()), client);
        (port, tokio::runtime::Handle::current().metrics())
    });
    assert_eq!(metrics.num_alive_tasks(), 0);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn clients_of_mosquitto_use_tls_users_and_rules() {
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, own.cert.pem()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    let broker = Broker::start(|config| {
        config.tls = Some(Arc::new(tls));
        config.access = BrokerAccess::open()
            .user(Credentials::new("meter", "m"))
            .user(Credentials::new("panel", "p"))
            .rules("user meter\ntopic write readings/#\nuser panel\ntopic read readings/+")
            .unwrap();
    })
    .await;
    let ca = ca.to_str().unwrap();
    let mut panel = Sub::start(broker.port, &["--cafile", ca, "-u", "panel", "-P", "p", "-t", "readings/+"]).await;
    let meter = ["--cafile", ca, "-u", "meter", "-P", "m", "-q", "1"];
    mosquitto::publish(broker.port, &[&meter[..], &["-t", "secret/a", "-m", "0"]].concat()).await;
    mosquitto::publish(broker.port, &[&meter[..], &["-t", "readings/a", "-m", "1"]].concat()).await;
    assert_eq!(panel.next().await, "readings/a 0 0 1");
    for stranger in [&["-t", "readings/a", "-m", "2"][..], &["--cafile", ca, "-t", "readings/a", "-m", "3"]] {
        mosquitto::fail_to_publish(broker.port, stranger).await;
    }
}
