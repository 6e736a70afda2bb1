#![allow(clippy::unwrap_used)]
use std::time::Duration;

use bytes::BytesMut;
use kubeedge_core::{
    bus::{BusEvent, Event, EventBus as _, Overflow},
    topic::{Topic, TopicFilter},
};
use proptest::prelude::*;
use rumqttc::mqttbytes::{
    QoS,
    v4::{Connect, LastWill, Publish, Subscribe},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;
use crate::bus::{BrokerAccess, BrokerBus, BrokerConfig, Credentials, broker::router::Router};

/// A broker without a listener: clients come over pipes.
struct Pipes {
    shared: Arc<Shared>,
    shutdown: CancellationToken,
}

impl Pipes {
    fn new(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let mut config = BrokerConfig::new("127.0.0.1:0".parse().unwrap());
        change(&mut config);
        let router = Router::new(config.max_retained);
        Self { shared: Arc::new(Shared { config, router }), shutdown: CancellationToken::new() }
    }

    fn bus(&self) -> BrokerBus {
        BrokerBus::new(Arc::clone(&self.shared))
    }

    fn raw(&self, pipe: usize) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(pipe);
        let connection = Connection::new(Arc::clone(&self.shared), "127.0.0.1:1".parse().unwrap());
        (ours, tokio::spawn(connection.serve(theirs, self.shutdown.clone())))
    }

    async fn client(&self, connect: Connect) -> (Wire<DuplexStream>, tokio::task::JoinHandle<()>) {
        let (stream, task) = self.raw(4096);
        let mut wire = Wire::new(stream, usize::MAX);
        wire.queue(&Packet::Connect(connect)).unwrap();
        let accepted = Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false));
        assert_eq!(packet(&mut wire).await, Some(accepted));
        (wire, task)
    }
}

/// The next packet; `None` when the broker has closed.
async fn packet(wire: &mut Wire<DuplexStream>) -> Option<Packet> {
    loop {
        match wire.turn(true).await {
            Ok(Turn::Packet(packet)) => return Some(packet),
            Ok(Turn::Flushed) => {}
            Ok(Turn::Closed) | Err(WireError::Io(_)) => return None,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn connect(id: &str, keep_alive: u16) -> Connect {
    let mut connect = Connect::new(id);
    connect.keep_alive = keep_alive;
    connect
}

fn event(topic: &str, payload: &'static str) -> Event {
    Event::new(Topic::new(topic).unwrap(), payload)
}

async fn subscribed(pipes: &Pipes, filter: &str) -> kubeedge_core::service::Subscription<BusEvent> {
    pipes.bus().subscribe(TopicFilter::new(filter).unwrap(), Overflow::DropOldest).await.unwrap()
}

async fn message(subscription: &mut kubeedge_core::service::Subscription<BusEvent>) -> Event {
    match subscription.next().await {
        Some(BusEvent::Message(event)) => event,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_dropped() {
    let pipes = Pipes::new(|_| {});
    let start = Instant::now();
    let (_stream, task) = pipes.raw(64);
    task.await.unwrap();
    assert_eq!(start.elapsed(), pipes.shared.config.timeout);
}

#[tokio::test(start_paused = true)]
async fn silence_for_one_and_a_half_keepalives_publishes_the_will() {
    let pipes = Pipes::new(|_| {});
    let mut wills = subscribed(&pipes, "will/#").await;
    let mut hello = connect("c", 10);
    hello.last_will = Some(LastWill::new("will/c", "gone", QoS::AtLeastOnce, false));
    let (mut wire, task) = pipes.client(hello).await;
    tokio::time::sleep(Duration::from_secs(14)).await;
    wire.queue(&Packet::PingReq).unwrap();
    assert_eq!(packet(&mut wire).await, Some(Packet::PingResp));
    let start = Instant::now();
    assert_eq!(packet(&mut wire).await, None);
    assert_eq!(start.elapsed(), Duration::from_secs(15));
    task.await.unwrap();
    assert_eq!(&message(&mut wills).await.payload[..], b"gone");
}

#[tokio::test]
async fn a_client_that_leaves_in_peace_has_no_will() {
    let pipes = Pipes::new(|_| {});
    let mut seen = subscribed(&pipes, "#").await;
    let mut hello = connect("c", 0);
    hello.last_will = Some(LastWill::new("will", "gone", QoS::AtMostOnce, false));
    let (mut wire, task) = pipes.client(hello).await;
    wire.queue(&Packet::Disconnect).unwrap();
    assert_eq!(packet(&mut wire).await, None);
    task.await.unwrap();
    pipes.bus().publish(event("after", "")).await.unwrap();
    assert_eq!(message(&mut seen).await.topic.as_str(), "after");
}

#[tokio::test]
async fn a_second_client_of_the_same_id_evicts_the_first() {
    let pipes = Pipes::new(|_| {});
    let (mut first, task) = pipes.client(connect("c", 0)).await;
    let (mut second, _task) = pipes.client(connect("c", 0)).await;
    assert_eq!(packet(&mut first).await, None);
    task.await.unwrap();
    second.queue(&Packet::PingReq).unwrap();
    assert_eq!(packet(&mut second).await, Some(Packet::PingResp));
}

#[tokio::test]
async fn who_has_no_password_is_told_so() {
    let pipes = Pipes::new(|config| config.access = BrokerAccess::open().user(Credentials::new("u", "p")));
    let (stream, _task) = pipes.raw(64);
    let mut wire = Wire::new(stream, 100);
    wire.queue(&Packet::Connect(connect("c", 0))).unwrap();
    let refused = Packet::ConnAck(ConnAck::new(ConnectReturnCode::BadUserNamePassword, false));
    assert_eq!(packet(&mut wire).await, Some(refused));
    assert_eq!(packet(&mut wire).await, None);
}

#[tokio::test]
async fn a_client_of_mqtt_5_is_told_to_speak_3() {
    let pipes = Pipes::new(|_| {});
    let (mut stream, _task) = pipes.raw(64);
    let connect = [0x10, 16, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 3, b'a', b'b', b'c'];
    stream.write_all(&connect).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_cut_off_and_stalls_nobody_for_longer_than_its_patience() {
    let pipes = Pipes::new(|config| config.session_queue = 4);
    let (mut stuck, task) = pipes.client(connect("stuck", 0)).await;
    let mut subscribe = Subscribe::new("t", QoS::AtLeastOnce);
    subscribe.pkid = 1;
    stuck.queue(&Packet::Subscribe(subscribe)).unwrap();
    assert!(matches!(packet(&mut stuck).await, Some(Packet::SubAck(_))));
    let mut other = pipes.bus().subscribe(TopicFilter::new("t").unwrap(), Overflow::HoldPublisher).await.unwrap();

    let start = Instant::now();
    let publisher = async {
        for _ in 0..200 {
            pipes.bus().publish(event("t", "x")).await.unwrap();
        }
    };
    let reader = async {
        for _ in 0..200 {
            message(&mut other).await;
        }
    };
    tokio::join!(publisher, reader);
    assert!(start.elapsed() <= pipes.shared.config.patience, "{:?}", start.elapsed());
    task.await.unwrap();
}

#[tokio::test]
async fn a_held_publisher_is_confirmed_when_its_subscriber_has_room_and_still_receives() {
    let pipes = Pipes::new(|config| config.session_queue = 1);
    let mut slow = pipes.bus().subscribe(TopicFilter::new("in").unwrap(), Overflow::HoldPublisher).await.unwrap();
    let (mut wire, _task) = pipes.client(connect("c", 0)).await;
    let mut subscribe = Subscribe::new("out", QoS::AtMostOnce);
    subscribe.pkid = 1;
    wire.queue(&Packet::Subscribe(subscribe)).unwrap();
    assert!(matches!(packet(&mut wire).await, Some(Packet::SubAck(_))));
    for id in 1..=2 {
        let mut publish = Publish::new("in", QoS::AtLeastOnce, "x");
        publish.pkid = id;
        wire.queue(&Packet::Publish(publish)).unwrap();
    }
    assert!(matches!(packet(&mut wire).await, Some(Packet::PubAck(ack)) if ack.pkid == 1));
    pipes.bus().publish(event("out", "y")).await.unwrap();
    assert!(matches!(packet(&mut wire).await, Some(Packet::Publish(_))), "before the second is confirmed");
    message(&mut slow).await;
    assert!(matches!(packet(&mut wire).await, Some(Packet::PubAck(ack)) if ack.pkid == 2));
}

#[tokio::test]
async fn shutdown_closes_clients_without_their_wills() {
    let pipes = Pipes::new(|_| {});
    let mut wills = subscribed(&pipes, "#").await;
    let mut hello = connect("c", 0);
    hello.last_will = Some(LastWill::new("will", "gone", QoS::AtMostOnce, false));
    let (mut wire, task) = pipes.client(hello).await;
    pipes.shutdown.cancel();
    assert_eq!(packet(&mut wire).await, None);
    task.await.unwrap();
    pipes.shared.router.close();
    assert!(wills.next().await.is_none());
}

/// Streams of whole packets, of damaged packets and of noise, after a CONNECT or without.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(first, body)| {
            let len = u8::try_from(body.len()).unwrap();
            [&[first, len][..], &body].concat()
        }),
        ("[a-c$+#/é\0]{0,8}", 0..4u8, any::<u16>(), any::<bool>()).prop_map(|(topic, qos, id, retain)| {
            let topic_len = u8::try_from(topic.len()).unwrap();
            let mut body = [&[0, topic_len][..], topic.as_bytes()].concat();
            if qos > 0 {
                body.extend(id.to_be_bytes());
            }
            let first = 0x30 | qos << 1 | u8::from(retain);
            [&[first, u8::try_from(body.len()).unwrap()][..], &body].concat()
        }),
        ("[a-c$+#/é\0]{0,8}", any::<u16>(), any::<u8>()).prop_map(|(filter, id, qos)| {
            let mut body =
                [&id.to_be_bytes()[..], &[0, u8::try_from(filter.len()).unwrap()], filter.as_bytes()].concat();
            body.push(qos);
            [&[0x82, u8::try_from(body.len()).unwrap()][..], &body].concat()
        }),
    ];
    (any::<bool>(), prop::collection::vec(piece, 0..12)).prop_map(|(greet, pieces)| {
        let mut bytes = BytesMut::new();
        if greet {
            Packet::Connect(Connect::new("fuzz")).write(&mut bytes, usize::MAX).unwrap();
        }
        [bytes.to_vec(), pieces.concat()].concat()
    })
}

proptest! {
    #[test]
    fn no_bytes_of_a_client_make_it_panic(bytes in streams()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let pipes = Pipes::new(|_| {});
            let (mut stream, task) = pipes.raw(16);
            let feed = async {
                let (mut read, mut write) = tokio::io::split(&mut stream);
                let drain = async { tokio::io::copy(&mut read, &mut tokio::io::sink()).await };
                let write = async {
                    // The broker may hang up in the middle.
                    let _ = write.write_all(&bytes).await;
                    let _ = write.shutdown().await;
                };
                let _ = tokio::join!(drain, write);
            };
            feed.await;
            task.await.unwrap();
        });
    }
}
