//! Two sessions over pipes that lose, double and reorder, under a clock that the test moves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kubeedge_core::{
    message::{Content, Message},
    names::UnixMillis,
    resource::{ObjectPath, Resource, ResourceType},
    session::{
        Keepalive, Outbound, Receipt, Session, SessionConfig, SessionEnd, SessionEvent, SubmitError, Ticket, Unsettled,
        Until,
    },
    words::{Group, Operation, Source},
};
use proptest::prelude::*;

const WALL: UnixMillis = UnixMillis(0);

fn update(name: &str, value: u64) -> Message {
    let path = ObjectPath::namespaced("default", ResourceType::Pod, name).unwrap();
    Message::new(WALL, Source::EdgeController, Group::Resource, Operation::Update, path)
        .content(Content::json(&value).unwrap())
}

fn acked(message: Message) -> Outbound {
    Outbound { message, until: Until::Acked }
}

fn events(session: &mut Session) -> Vec<SessionEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn transmits(session: &mut Session) -> Vec<Message> {
    std::iter::from_fn(|| session.poll_transmit()).collect()
}

fn settled(session: &mut Session) -> Vec<(Ticket, Result<Receipt, Unsettled>)> {
    let settled = |event| if let SessionEvent::Settled(ticket, how) = event { Some((ticket, how)) } else { None };
    events(session).into_iter().filter_map(settled).collect()
}

#[test]
fn an_unacknowledged_message_is_sent_as_upstream_sends_it() {
    let start = Instant::now();
    let mut cloud =
        Session::new(SessionConfig::cloud().keepalive(Keepalive::Expect { within: Duration::from_secs(3600) }), start);
    let message = update("web", 1);
    let ticket = cloud.submit(start, acked(message.clone())).unwrap();
    assert!(matches!(cloud.submit(start, acked(update("db", 1))), Err(SubmitError::Full(_))), "one at a time");
    let mut sent_at = vec![];
    for second in 0..=30 {
        let now = start + Duration::from_secs(second);
        cloud.handle_timeout(now, WALL);
        for sent in transmits(&mut cloud) {
            assert_eq!(sent, message, "a resend is the identical message");
            sent_at.push(second);
        }
    }
    assert_eq!(sent_at, [0, 5, 10, 15, 20]);
    assert_eq!(settled(&mut cloud), [(ticket, Err(Unsettled::NotAcked { sends: 5 }))]);
    assert_eq!(cloud.window_left(), 1);
}

#[test]
fn only_a_response_is_an_acknowledgement() {
    let now = Instant::now();
    let mut cloud = Session::new(SessionConfig::cloud(), now);
    let message = update("web", 1);
    let ticket = cloud.submit(now, acked(message.clone())).unwrap();
    cloud.handle_message(now, message.refusal(WALL, Source::MetaStore, &"disk full"));
    assert_eq!(events(&mut cloud), [SessionEvent::Refused(ticket, "disk full".into())]);
    cloud.handle_message(now, message.acknowledgement(WALL));
    cloud.handle_message(now, message.acknowledgement(WALL));
    assert_eq!(settled(&mut cloud), [(ticket, Ok(Receipt::Done))], "settled once, duplicates are harmless");
}

#[test]
fn a_request_gets_its_answer_and_only_once() {
    let now = Instant::now();
    let mut edge = Session::new(SessionConfig::edge(), now);
    let path = ObjectPath::namespaced("default", ResourceType::ConfigMap, "app").unwrap();
    let query = Message::new(WALL, Source::Edged, Group::Meta, Operation::Query, path.clone());
    let ticket = edge.submit(now, Outbound { message: query.clone(), until: Until::Replied }).unwrap();
    let answer =
        Message::new(WALL, Source::EdgeController, Group::Resource, Operation::Response, path).answering(&query.id);
    edge.handle_message(now, answer.clone());
    edge.handle_message(now, answer.clone());
    let expected = [SessionEvent::Settled(ticket, Ok(Receipt::Reply(answer.clone()))), SessionEvent::Late(answer)];
    assert_eq!(events(&mut edge), expected, "the second must still be acknowledged by somebody");
}

#[test]
fn an_unanswered_request_times_out_and_a_dead_link_tells_everyone() {
    let start = Instant::now();
    let mut edge = Session::new(SessionConfig::edge().reply(Duration::from_secs(2)), start);
    let request = |until| Outbound { message: update("web", 1), until };
    let first = edge.submit(start, request(Until::Replied)).unwrap();
    edge.handle_timeout(start + Duration::from_secs(2), WALL);
    assert_eq!(settled(&mut edge), [(first, Err(Unsettled::NoReply))]);
    let rest: Vec<_> =
        [Until::Replied, Until::Acked, Until::Written].map(|until| edge.submit(start, request(until)).unwrap()).into();
    edge.end();
    edge.end();
    let lost: Vec<_> = rest.iter().map(|ticket| (*ticket, Err(Unsettled::LinkEnded))).collect();
    assert_eq!(settled(&mut edge), lost);
    assert!(matches!(edge.submit(start, request(Until::Written)), Err(SubmitError::Ended(_))));
    assert_eq!(edge.poll_timeout(), None);
}

#[test]
fn the_edge_keeps_alive_and_the_cloud_gives_up_without() {
    let start = Instant::now();
    let mut edge = Session::new(SessionConfig::edge(), start);
    let mut cloud = Session::new(SessionConfig::cloud(), start);
    for second in [0, 15, 30, 45] {
        let now = start + Duration::from_secs(second);
        edge.handle_timeout(now, WALL);
        let sent = transmits(&mut edge);
        assert!(matches!(&sent[..], [one] if one.operation == Operation::Keepalive), "at {second} s: {sent:?}");
        cloud.handle_timeout(now, WALL);
        cloud.handle_message(now, sent[0].clone());
    }
    assert_eq!(events(&mut cloud), []);
    // Other traffic does not count.
    cloud.handle_message(start + Duration::from_secs(74), update("web", 1));
    cloud.handle_timeout(start + Duration::from_secs(75), WALL);
    assert_eq!(events(&mut cloud).pop(), Some(SessionEvent::Ended(SessionEnd::KeepaliveMissed)));
}

#[test]
fn transport_controls_are_answered_below_the_session() {
    let now = Instant::now();
    let mut cloud = Session::new(SessionConfig::cloud(), now);
    let ping = Message::new(WALL, Source::Absent, Group::Absent, Operation::Ping, Resource::Absent);
    cloud.handle_message(now, ping.clone());
    let sent = transmits(&mut cloud);
    assert!(matches!(&sent[..], [one] if one.parent == Some(ping.id) && one.content == Content::text("ack")));
    assert_eq!(events(&mut cloud), []);
}

/// What happens to a message on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrive,
    Lose,
    Double,
    Delay,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate =
        prop_oneof![4 => Just(Fate::Arrive), 2 => Just(Fate::Lose), 1 => Just(Fate::Double), 1 => Just(Fate::Delay)];
    prop::collection::vec(fate, 0..60)
}

/// A one-way pipe that does to messages what it is told, and later lets all arrive.
struct Pipe {
    fates: std::vec::IntoIter<Fate>,
    delayed: Vec<Message>,
}

impl Pipe {
    fn pass(&mut self, sent: Vec<Message>) -> Vec<Message> {
        let mut arrived = std::mem::take(&mut self.delayed);
        for message in sent {
            match self.fates.next().unwrap_or(Fate::Arrive) {
                Fate::Arrive => arrived.push(message),
                Fate::Lose => {}
                Fate::Double => arrived.extend([message.clone(), message]),
                Fate::Delay => self.delayed.push(message),
            }
        }
        arrived
    }
}

proptest! {
    /// Everything that the cloud takes for acknowledged is at the edge, and everything arrives in the end.
    #[test]
    fn all_objects_arrive_over_a_bad_pipe(down in fates(), up in fates(), window in 1_usize..4, objects in 1_u64..12) {
        let start = Instant::now();
        let patient = Keepalive::Expect { within: Duration::from_secs(1_000_000) };
        let mut cloud = Session::new(SessionConfig::cloud().window(window).keepalive(patient), start);
        let mut edge = Session::new(SessionConfig::edge(), start);
        let (mut down, mut up) = (
            Pipe { fates: down.into_iter(), delayed: vec![] },
            Pipe { fates: up.into_iter(), delayed: vec![] },
        );
        let mut stored = BTreeMap::<String, u64>::new();
        let mut queue: Vec<u64> = (0..objects).rev().collect();
        let mut in_flight = BTreeMap::<Ticket, u64>::new();
        let mut confirmed = vec![];
        for second in 0..4000 {
            let now = start + Duration::from_secs(second);
            while cloud.window_left() > 0 && let Some(object) = queue.pop() {
                let ticket = cloud.submit(now, acked(update(&format!("o-{object}"), object))).unwrap();
                in_flight.insert(ticket, object);
            }
            cloud.handle_timeout(now, WALL);
            for message in down.pass(transmits(&mut cloud)) {
                edge.handle_message(now, message);
            }
            for event in events(&mut edge) {
                if let SessionEvent::Deliver(message) = event {
                    let name = message.resource.object().unwrap().name.clone().unwrap().to_string();
                    stored.insert(name, message.content.parse().unwrap());
                    let ack = Outbound { message: message.acknowledgement(WALL), until: Until::Written };
                    edge.submit(now, ack).unwrap();
                }
            }
            edge.handle_timeout(now, WALL);
            for message in up.pass(transmits(&mut edge)) {
                cloud.handle_message(now, message);
            }
            for (ticket, how) in settled(&mut cloud) {
                let object = in_flight.remove(&ticket).unwrap();
                match how {
                    Ok(_) => {
                        prop_assert!(stored.contains_key(&format!("o-{object}")), "acknowledged, yet not stored");
                        confirmed.push(object);
                    }
                    Err(_) => queue.insert(0, object),
                }
            }
            if confirmed.len() as u64 == objects {
                break;
            }
        }
        confirmed.sort_unstable();
        prop_assert_eq!(confirmed, (0..objects).collect::<Vec<_>>());
    }
}
