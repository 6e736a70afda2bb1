//! One object from the cloud's session to the edge's and its acknowledgement back, without sockets and without the codec.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kubeedge_core::{
    message::{Content, Message},
    names::{ResourceVersion, UnixMillis},
    resource::{ObjectPath, ResourceType},
    session::{Outbound, Session, SessionConfig, SessionEvent, Until},
    words::{Group, Operation, Source},
};

/// Messages per iteration, so that the window matters.
const MESSAGES: usize = 64;

fn object(number: usize) -> Message {
    let path = ObjectPath::namespaced("default", ResourceType::ConfigMap, &format!("map-{number}")).unwrap();
    Message::new(UnixMillis(0), Source::EdgeController, Group::Resource, Operation::Update, path)
        .version(ResourceVersion::new(number as u64 + 1))
        .content(Content::text(&"x".repeat(1024)))
}

/// Carries all messages from one end to the other, with as many under way as the window lets.
fn exchange(cloud: &mut Session, edge: &mut Session, messages: &[Message], now: Instant) -> usize {
    let (mut left, mut settled) = (messages.iter(), 0);
    while settled < messages.len() {
        for message in left.by_ref().take(cloud.window_left()) {
            cloud.submit(now, Outbound { message: message.clone(), until: Until::Acked }).unwrap();
        }
        while let Some(message) = cloud.poll_transmit() {
            edge.handle_message(now, message);
        }
        while let Some(event) = edge.poll_event() {
            if let SessionEvent::Deliver(message) = event {
                let message = message.acknowledgement(UnixMillis(0));
                edge.submit(now, Outbound { message, until: Until::Written }).unwrap();
            }
        }
        while let Some(message) = edge.poll_transmit() {
            cloud.handle_message(now, message);
        }
        while let Some(event) = cloud.poll_event() {
            settled += usize::from(matches!(event, SessionEvent::Settled(_, Ok(_))));
        }
    }
    settled
}

fn session(criterion: &mut Criterion) {
    let (now, messages) = (Instant::now(), (0..MESSAGES).map(object).collect::<Vec<_>>());
    let mut group = criterion.benchmark_group("session/acknowledge");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for window in [1, 64] {
        let mut cloud = Session::new(SessionConfig::cloud().window(window), now);
        let mut edge = Session::new(SessionConfig::edge(), now);
        group.bench_function(BenchmarkId::new("window", window), |bencher| {
            bencher.iter(|| exchange(&mut cloud, &mut edge, black_box(&messages), now));
        });
    }
    group.finish();

    // What a driver asks after each message: it must not grow with what waits.
    let mut group = criterion.benchmark_group("session/poll_timeout");
    for window in [1, 64] {
        let mut cloud = Session::new(SessionConfig::cloud().window(window), now);
        for message in &messages[..window] {
            cloud.submit(now, Outbound { message: message.clone(), until: Until::Acked }).unwrap();
        }
        group.bench_function(BenchmarkId::new("unacknowledged", window), |bencher| {
            bencher.iter(|| black_box(&cloud).poll_timeout().map(|due| due - now > Duration::ZERO));
        });
    }
    group.finish();
}

criterion_group!(benches, session);
criterion_main!(benches);
