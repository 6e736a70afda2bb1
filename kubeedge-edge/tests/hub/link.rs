use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all};
use kubeedge_core::{
    message::{Content, Message},
    names::UnixMillis,
    service::BoxError,
    session::{Keepalive, SessionConfig},
    uplink::{Inbound, LinkState, UplinkError},
    words::Operation,
};
use kubeedge_edge::hub::RateLimit;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::cloud::{Rig, acknowledging, config, downlink, query, within};

#[tokio::test(start_paused = true)]
async fn the_first_dial_and_the_first_keepalive_come_at_once() {
    let start = Instant::now();
    let rig = Rig::new(config(), 8, acknowledging());
    let mut cloud = rig.accept().await;
    let first = within(cloud.0.next()).await.unwrap().unwrap();
    assert_eq!(first.operation, Operation::Keepalive);
    let second = within(cloud.0.next()).await.unwrap().unwrap();
    assert_eq!(second.operation, Operation::Keepalive);
    assert_eq!(start.elapsed().as_secs(), 15, "the first at once, the second after a heartbeat");
    assert_eq!(*rig.uplink.state().borrow(), LinkState::Connected { session: 1 });
}

#[tokio::test(start_paused = true)]
async fn dials_come_after_growing_random_pauses_until_the_cloud_speaks() {
    let rig = Rig::new(config(), 8, acknowledging());
    let mut last = Instant::now();
    let mut pauses = Vec::new();
    for dial in 0..12_u32 {
        let cloud = rig.accept().await;
        let pause = last.elapsed();
        if dial > 0 {
            let ceiling = Duration::from_secs(1 << (dial - 1)).min(Duration::from_secs(30));
            assert!(pause <= ceiling + Duration::from_millis(5), "dial {dial} came after {pause:?}");
        }
        pauses.push(pause.as_millis());
        last = Instant::now();
        drop(cloud);
    }
    pauses.sort_unstable();
    pauses.dedup();
    assert!(pauses.len() > 8, "pauses are random: {pauses:?}");
    // A cloud that takes every link, says something and loses it again is met by no storm.
    let start = Instant::now();
    for _ in 0..12 {
        let mut cloud = rig.accept().await;
        cloud.send(downlink("a", Operation::Update)).await;
        cloud.expect().await;
    }
    assert!(start.elapsed() > Duration::from_secs(40), "12 links within {:?}", start.elapsed());
    // A session that lasts, and in which the cloud says something, is healthy.
    let mut cloud = rig.accept().await;
    cloud.send(downlink("a", Operation::Update)).await;
    cloud.expect().await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    drop(cloud);
    let healthy = Instant::now();
    rig.accept().await;
    assert!(healthy.elapsed() <= Duration::from_millis(1005), "after a healthy session the pauses start over");
}

#[tokio::test(start_paused = true)]
async fn calls_are_settled_and_fail_without_a_link() {
    let rig = Rig::new(config(), 8, acknowledging());
    let mut cloud = rig.accept().await;
    rig.connected().await;
    let (answer, ()) = tokio::join!(rig.uplink.request(query("a")), async {
        let request = cloud.expect().await;
        cloud.reply(&request, Content::ok()).await;
    });
    assert!(answer.unwrap().content.is_ok());

    let (unanswered, ()) = tokio::join!(rig.uplink.request(query("b")), async {
        cloud.expect().await;
        drop(cloud);
    });
    assert!(matches!(unanswered, Err(UplinkError::Disconnected)), "a lost link settles what waits");
    let mut state = rig.uplink.state();
    within(state.wait_for(|state| !state.is_connected())).await.unwrap();
    assert!(matches!(rig.uplink.send(query("c")).await, Err(UplinkError::Disconnected)));
    drop(rig.acceptor);
    let calls = join_all((0..2000).map(|_| rig.uplink.request(query("d"))));
    assert!(within(calls).await.iter().all(|call| matches!(call, Err(UplinkError::Disconnected))));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_is_acknowledged() {
    let rig = Rig::new(config(), 8, acknowledging());
    let mut cloud = rig.accept().await;
    rig.connected().await;
    let (unanswered, request) = tokio::join!(rig.uplink.request(query("slow")), cloud.expect());
    assert!(matches!(unanswered, Err(UplinkError::TimedOut)));
    cloud.reply(&request, Content::text("much later")).await;
    let ack = cloud.expect().await;
    assert!(ack.operation == Operation::Response && ack.content.is_ok() && ack.parent != Some(request.id));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_somebody_who_has_gone_is_acknowledged() {
    let rig = Rig::new(config(), 8, acknowledging());
    let mut cloud = rig.accept().await;
    rig.connected().await;
    let request = tokio::select! {
        answer = rig.uplink.request(query("gone")) => panic!("nobody answered: {answer:?}"),
        request = cloud.expect() => request,
    };
    cloud.reply(&request, Content::text("for nobody")).await;
    let ack = cloud.expect().await;
    assert!(ack.operation == Operation::Response && ack.content.is_ok());
}

/// Counts what is served, one permit per message.
fn gated(permits: &Arc<Semaphore>, seen: &Arc<Mutex<Vec<String>>>) -> Inbound {
    let (permits, seen) = (Arc::clone(permits), Arc::clone(seen));
    Inbound::new(tower::service_fn(move |message: Message| {
        let (permits, seen) = (Arc::clone(&permits), Arc::clone(&seen));
        async move {
            permits.acquire().await.unwrap().forget();
            seen.lock().unwrap().push(message.resource.to_string());
            Ok::<_, BoxError>(Some(message.acknowledgement(UnixMillis(3))))
        }
    }))
}

#[tokio::test(start_paused = true)]
async fn messages_are_served_one_at_a_time_and_in_order() {
    let (permits, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let rig = Rig::new(config(), 64, gated(&permits, &seen));
    let mut cloud = rig.accept().await;
    for count in 0..10 {
        cloud.send(downlink(&count.to_string(), Operation::Update)).await;
    }
    permits.add_permits(3);
    for count in 0..3 {
        assert_eq!(cloud.expect().await.resource.to_string(), format!("default/configmap/{count}"));
    }
    assert_eq!(seen.lock().unwrap().len(), 3);
    permits.add_permits(7);
    for count in 3..10 {
        assert_eq!(cloud.expect().await.resource.to_string(), format!("default/configmap/{count}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_service_stops_the_socket() {
    let (permits, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let rig = Rig::new(config().inbox(4), 2, gated(&permits, &seen));
    let mut cloud = rig.accept().await;
    let mut sent = 0_usize;
    while tokio::time::timeout(
        Duration::from_secs(1),
        futures_util::SinkExt::send(&mut cloud.0, downlink("x", Operation::Update)),
    )
    .await
    .is_ok()
    {
        sent += 1;
        assert!(sent < 50, "the edge reads on although nobody serves");
    }
    assert!(sent <= 4 + 1 + 2 + 1, "inbox, the one being served, and the link: {sent}");
    permits.add_permits(1000);
    cloud.expect().await;
}

/// Both ends write before they read; with two slots each way they would wait for each other for ever.
#[tokio::test(start_paused = true)]
async fn two_ends_with_full_buffers_drain_each_other() {
    let rig = Rig::new(config(), 1, acknowledging());
    let cloud = rig.accept().await;
    rig.connected().await;
    let (mut write, mut read) = cloud.0.split();
    let downlinks = async {
        for count in 0..500 {
            futures_util::SinkExt::send(&mut write, downlink(&count.to_string(), Operation::Update)).await.unwrap();
        }
    };
    let uplinks = join_all((0..500).map(|count| rig.uplink.send(query(&count.to_string()))));
    let reading = async {
        let (mut acks, mut queries) = (0, 0);
        while acks < 500 || queries < 500 {
            match read.next().await.unwrap().unwrap().operation {
                Operation::Response => acks += 1,
                Operation::Query => queries += 1,
                _ => {}
            }
        }
    };
    let (sent, ..) = within(async { tokio::join!(uplinks, downlinks, reading) }).await;
    assert!(sent.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_is_told_to_the_cloud_and_the_link_lives() {
    let failing =
        Inbound::new(tower::service_fn(|_: Message| async { Err::<Option<Message>, BoxError>("disk on fire".into()) }));
    let rig = Rig::new(config(), 8, failing);
    let mut cloud = rig.accept().await;
    let sent = downlink("a", Operation::Update);
    cloud.send(sent.clone()).await;
    let refusal = cloud.expect().await;
    assert_eq!(
        (refusal.operation, refusal.parent),
        (Operation::Error, Some(sent.id)),
        "an error is no acknowledgement"
    );
    assert!(refusal.content.as_text().unwrap().contains("disk on fire"));
    assert!(rig.uplink.state().borrow().is_connected());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_takes_nothing_is_given_up() {
    let rig = Rig::new(config().write_timeout(Duration::from_secs(5)), 1, acknowledging());
    // A cloud that never reads: after the keepalive fills the link, nothing goes any more.
    let cloud = rig.accept().await;
    rig.connected().await;
    let (lost, ()) = tokio::join!(join_all((0..4).map(|_| rig.uplink.request(query("a")))), async {
        let mut state = rig.uplink.state();
        within(state.wait_for(|state| !state.is_connected())).await.unwrap();
    });
    assert!(lost.iter().all(|call| matches!(call, Err(UplinkError::Disconnected))));
    drop(cloud);
    rig.accept().await;
}

#[tokio::test(start_paused = true)]
async fn own_messages_are_limited_and_acknowledgements_are_not() {
    let limit = RateLimit { per_second: 30, burst: 60 };
    let rig = Rig::new(config().rate(Some(limit)), 1024, acknowledging());
    let mut cloud = rig.accept().await;
    rig.connected().await;
    let start = Instant::now();
    let sending = join_all((0..120).map(|count| rig.uplink.send(query(&count.to_string()))));
    let acked = async {
        for count in 0..100 {
            cloud.send(downlink(&count.to_string(), Operation::Update)).await;
        }
        let mut acks = 0;
        while acks < 100 {
            acks += usize::from(cloud.expect().await.operation == Operation::Response);
        }
        start.elapsed()
    };
    let (sent, acked) = within(async { tokio::join!(sending, acked) }).await;
    assert!(sent.iter().all(Result::is_ok));
    let took = start.elapsed().as_millis();
    assert!((1900..2300).contains(&took), "60 at once and 60 in 2 s: {took} ms");
    assert!(acked < Duration::from_millis(100), "acknowledgements do not wait: {acked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_what_is_being_stored_and_closes_the_link() {
    let (permits, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let rig = Rig::new(config(), 8, gated(&permits, &seen));
    let mut cloud = rig.accept().await;
    cloud.send(downlink("first", Operation::Update)).await;
    cloud.send(downlink("second", Operation::Update)).await;
    // The first is being served as soon as the keepalive was seen and everything is quiet.
    within(cloud.0.next()).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    rig.stop.cancel();
    tokio::time::sleep(Duration::from_millis(10)).await;
    permits.add_permits(10);
    assert_eq!(cloud.expect().await.resource.to_string(), "default/configmap/first");
    assert!(cloud.next().await.is_none(), "the link is closed, and the second message was not begun");
    within(rig.running).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["default/configmap/first"]);
    assert_eq!(*rig.uplink.state().borrow(), LinkState::Disconnected);
}

#[tokio::test(start_paused = true)]
async fn sessions_follow_their_configuration() {
    let session = SessionConfig::edge().keepalive(Keepalive::Send { every: Duration::from_secs(3) });
    let rig = Rig::new(config().session(session.reply(Duration::from_secs(2))), 64, acknowledging());
    let mut cloud = rig.accept().await;
    rig.connected().await;
    let start = Instant::now();
    assert!(matches!(rig.uplink.request(query("a")).await, Err(UplinkError::TimedOut)));
    assert_eq!(start.elapsed().as_secs(), 2);
    let mut keepalives = 0;
    while start.elapsed() < Duration::from_secs(10) {
        keepalives += usize::from(within(cloud.0.next()).await.unwrap().unwrap().operation == Operation::Keepalive);
    }
    assert!((4..=5).contains(&keepalives), "{keepalives}");
}

/// Counts what is told as a warning or worse.
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_week_without_a_cloud_is_one_warning() {
    let warnings = Arc::new(AtomicUsize::new(0));
    let _guard = tracing::subscriber::set_default(Warnings(Arc::clone(&warnings)));
    let rig = Rig::new(config(), 8, acknowledging());
    drop(rig.acceptor);
    tokio::time::sleep(Duration::from_hours(7 * 24)).await;
    assert_eq!(warnings.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_link_is_made_anew_on_demand_and_what_was_under_way_is_finished() {
    let (redial, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let slow = {
        let gate = gate.clone();
        Inbound::new(tower::service_fn(move |message: Message| {
            let gate = gate.clone();
            async move {
                gate.acquire().await?.forget();
                Ok::<_, BoxError>(Some(message.acknowledgement(UnixMillis(3))))
            }
        }))
    };
    // One from before the first dial is nothing to act upon.
    redial.notify_one();
    let rig = Rig::new(config().redial(redial.clone()), 8, slow);
    let mut old = rig.accept().await;
    rig.connected().await;
    let object = downlink("a", Operation::Update);
    old.send(object.clone()).await;
    let unanswered = rig.uplink.request(query("b"));
    let (unanswered, ()) = tokio::join!(unanswered, async {
        assert_eq!(old.expect().await.operation, Operation::Query);
        redial.notify_one();
        gate.add_permits(1);
        let ack = old.expect().await;
        assert_eq!(ack.parent.as_ref(), Some(&object.id), "what was being stored is acknowledged before the link ends");
        assert!(old.next().await.is_none());
    });
    assert!(matches!(unanswered, Err(UplinkError::Disconnected)));
    let begin = Instant::now();
    let mut new = rig.accept().await;
    assert_eq!(begin.elapsed(), Duration::ZERO, "no pause, nothing was wrong");
    let mut state = rig.uplink.state();
    within(state.wait_for(|state| *state == LinkState::Connected { session: 2 })).await.unwrap();
    let (answer, ()) = tokio::join!(rig.uplink.request(query("b")), async {
        let request = new.expect().await;
        new.reply(&request, Content::ok()).await;
    });
    assert!(answer.unwrap().content.is_ok());
    rig.stop.cancel();
    within(rig.running).await.unwrap();
}
