//! Sessions under a clock that the test moves: alone, and two of them over pipes that lose, double and reorder.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;
mod pipes;

use std::time::{Duration, Instant};

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

const WALL: UnixMillis = UnixMillis(0);

/// A clock that the test moves: so many seconds after `start`.
fn at(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

fn update(name: &str, value: u64) -> Message {
    let path = ObjectPath::namespaced("default", ResourceType::Pod, name).unwrap();
    Message::new(WALL, Source::EdgeController, Group::Resource, Operation::Update, path)
        .content(Content::json(&value).unwrap())
}

fn acked(message: Message) -> Outbound {
    Outbound { message, until: Until::Acked }
}

fn replied(message: Message) -> Outbound {
    Outbound { message, until: Until::Replied }
}

fn written(message: Message) -> Outbound {
    Outbound { message, until: Until::Written }
}

/// A cloud's session that no silence ends.
fn patient() -> SessionConfig {
    SessionConfig::cloud().keepalive(Keepalive::Expect { within: Duration::MAX })
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
    let mut cloud = Session::new(patient(), start);
    let message = update("web", 1);
    let ticket = cloud.submit(start, acked(message.clone())).unwrap();
    assert!(matches!(cloud.submit(start, acked(update("db", 1))), Err(SubmitError::Full(_))), "one at a time");
    let mut sent_at = vec![];
    for second in 0..=30 {
        let now = at(start, second);
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
    let ticket = edge.submit(now, replied(query.clone())).unwrap();
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
    edge.handle_timeout(at(start, 2), WALL);
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
        let now = at(start, second);
        edge.handle_timeout(now, WALL);
        let sent = transmits(&mut edge);
        assert!(matches!(&sent[..], [one] if one.operation == Operation::Keepalive), "at {second} s: {sent:?}");
        cloud.handle_timeout(now, WALL);
        cloud.handle_message(now, sent[0].clone());
    }
    assert_eq!(events(&mut cloud), []);
    // Other traffic does not count.
    cloud.handle_message(at(start, 74), update("web", 1));
    cloud.handle_timeout(at(start, 75), WALL);
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

#[test]
fn what_is_due_together_is_done_in_the_order_of_submission() {
    let start = Instant::now();
    let mut cloud = Session::new(patient().window(64), start);
    let messages: Vec<_> = (0..64).map(|n| update(&format!("o-{n}"), n)).collect();
    let tickets: Vec<_> = messages.iter().map(|message| cloud.submit(start, acked(message.clone())).unwrap()).collect();
    for second in [0, 5, 10, 15, 20] {
        cloud.handle_timeout(at(start, second), WALL);
        assert_eq!(transmits(&mut cloud), messages, "at {second} s");
    }
    cloud.handle_timeout(at(start, 25), WALL);
    let given_up: Vec<_> = settled(&mut cloud).into_iter().map(|(ticket, _)| ticket).collect();
    assert_eq!(given_up, tickets);
}

#[test]
fn what_was_never_written_was_not_sent() {
    let start = Instant::now();
    let mut cloud = Session::new(patient(), start);
    let message = update("web", 1);
    let ticket = cloud.submit(start, acked(message.clone())).unwrap();
    // The link takes nothing for an hour.
    for second in 0..3600 {
        cloud.handle_timeout(at(start, second), WALL);
        assert!(cloud.poll_timeout().unwrap() > at(start, second));
    }
    assert_eq!((events(&mut cloud), transmits(&mut cloud)), (vec![], vec![message.clone()]));
    cloud.handle_message(at(start, 3600), message.acknowledgement(WALL));
    assert_eq!(settled(&mut cloud), [(ticket, Ok(Receipt::Done))]);
}

#[test]
fn a_link_that_takes_nothing_does_not_collect_what_nobody_waits_for() {
    let start = Instant::now();
    let config = SessionConfig::edge().requests(4).reply(Duration::from_secs(1));
    let mut edge = Session::new(config.keepalive(Keepalive::Expect { within: Duration::MAX }), start);
    let kept = edge.submit(start, written(update("kept", 0))).unwrap();
    for second in 0..100 {
        for _ in 0..4 {
            edge.submit(at(start, second), replied(update("web", second))).unwrap();
        }
        assert_eq!(edge.transmit_len(), 5);
        edge.handle_timeout(at(start, second + 1), WALL);
        assert_eq!((edge.transmit_len(), settled(&mut edge).len()), (1, 4));
    }
    assert_eq!(transmits(&mut edge).len(), 1);
    assert_eq!(settled(&mut edge), [(kept, Ok(Receipt::Done))]);
}

#[test]
fn what_was_acknowledged_before_its_resend_was_written_is_not_sent_again() {
    let start = Instant::now();
    let mut cloud = Session::new(patient(), start);
    let message = update("web", 1);
    cloud.submit(start, acked(message.clone())).unwrap();
    assert_eq!(transmits(&mut cloud).len(), 1);
    cloud.handle_timeout(at(start, 5), WALL);
    assert_eq!(cloud.transmit_len(), 1);
    cloud.handle_message(at(start, 5), message.acknowledgement(WALL));
    assert_eq!((cloud.transmit_len(), transmits(&mut cloud)), (0, vec![]));
}

#[test]
fn an_id_in_flight_is_not_taken_twice() {
    let now = Instant::now();
    let mut edge = Session::new(SessionConfig::edge().window(8), now);
    for until in [Until::Acked, Until::Replied] {
        let message = update("web", 1);
        let ticket = edge.submit(now, Outbound { message: message.clone(), until }).unwrap();
        for again in [Until::Acked, Until::Replied, Until::Written] {
            let again = Outbound { message: message.clone(), until: again };
            assert_eq!(edge.submit(now, again.clone()), Err(SubmitError::Duplicate(again.into())));
        }
        edge.handle_message(now, message.acknowledgement(WALL));
        assert!(matches!(&settled(&mut edge)[..], [(settled, Ok(_))] if *settled == ticket));
        edge.submit(now, Outbound { message, until }).expect("after that it may be sent again");
    }
}

#[test]
fn a_cloud_asks_and_gets_the_answer_in_whatever_words_it_comes() {
    let start = Instant::now();
    let mut cloud = Session::new(patient().requests(3), start);
    let question = || {
        let operation = Operation::from_word("GET");
        let resource = Resource::parse("8080:/state", &Group::User);
        Message::new(WALL, Source::RouterServiceBus, Group::User, operation, resource)
    };
    let asked: Vec<_> = (0..3).map(|_| question()).collect();
    let tickets: Vec<_> = asked.iter().map(|asked| cloud.submit(start, replied(asked.clone())).unwrap()).collect();
    assert!(matches!(cloud.submit(start, replied(question())), Err(SubmitError::Full(_))));
    assert_eq!(cloud.window_left(), 1, "questions take no room from objects");
    assert_eq!(transmits(&mut cloud), asked);
    let upload = Message::new(WALL, Source::ServiceBus, Group::User, Operation::Upload, Resource::Absent)
        .content(Content::json(&serde_json::json!({"status_code": 200})).unwrap())
        .answering(&asked[0].id);
    cloud.handle_message(start, upload.clone());
    let refusal = asked[1].refusal(WALL, Source::ServiceBus, &"no such application");
    cloud.handle_message(start, refusal.clone());
    assert_eq!(
        settled(&mut cloud),
        [(tickets[0], Ok(Receipt::Reply(upload.clone()))), (tickets[1], Ok(Receipt::Reply(refusal)))]
    );
    // Questions are asked once; who asks decides whether to ask again.
    cloud.handle_timeout(at(start, 60), WALL);
    assert_eq!(transmits(&mut cloud), []);
    assert_eq!(settled(&mut cloud), [(tickets[2], Err(Unsettled::NoReply))]);
    cloud.handle_message(at(start, 61), upload);
    assert_eq!(events(&mut cloud), [], "nobody waits for a second answer");
}

/// An edge acknowledges what it did not ask for any more, or the cloud would send it again; a cloud has nothing to say.
#[test]
fn a_response_to_nothing_is_given_to_an_edge_and_passed_over_by_a_cloud() {
    let now = Instant::now();
    for operation in [Operation::Response, Operation::ApplicationResponse, Operation::Update] {
        let mut late = update("web", 1).acknowledgement(WALL);
        late.operation = operation;
        let mut edge = Session::new(SessionConfig::edge(), now);
        edge.handle_message(now, late.clone());
        assert_eq!(events(&mut edge), [SessionEvent::Late(late.clone())]);
        let mut cloud = Session::new(SessionConfig::cloud(), now);
        cloud.handle_message(now, late);
        assert_eq!(events(&mut cloud), []);
    }
}

#[test]
fn an_answer_that_is_no_response_acknowledges_nothing() {
    let now = Instant::now();
    let mut cloud = Session::new(patient(), now);
    let message = update("web", 1);
    cloud.submit(now, acked(message.clone())).unwrap();
    for operation in [Operation::Upload, Operation::Update, Operation::Absent] {
        let mut answer = message.acknowledgement(WALL);
        answer.operation = operation;
        cloud.handle_message(now, answer);
    }
    assert_eq!((events(&mut cloud), cloud.window_left()), (vec![], 0));
}

#[test]
fn transport_controls_go_before_data_in_order_and_have_a_bound() {
    let now = Instant::now();
    let mut cloud = Session::new(patient(), now);
    cloud.submit(now, acked(update("web", 1))).unwrap();
    let ping = || Message::new(WALL, Source::Absent, Group::Absent, Operation::Ping, Resource::Absent);
    let pings: Vec<_> = (0..10_000).map(|_| ping()).collect();
    for ping in &pings {
        cloud.handle_message(now, ping.clone());
    }
    let sent = transmits(&mut cloud);
    assert!((2..100).contains(&sent.len()), "{} for a peer that reads nothing", sent.len());
    let (data, answers) = sent.split_last().unwrap();
    assert_eq!(data.operation, Operation::Update);
    for (answer, ping) in answers.iter().zip(&pings) {
        assert_eq!(answer.parent.as_ref(), Some(&ping.id));
    }
}

#[test]
fn a_clock_that_jumps_brings_one_keepalive_and_one_resend() {
    let start = Instant::now();
    let mut edge = Session::new(SessionConfig::edge(), start);
    edge.handle_timeout(start, WALL);
    edge.submit(start, acked(update("web", 1))).unwrap();
    assert_eq!(transmits(&mut edge).len(), 2);
    let later = at(start, 86_400);
    edge.handle_timeout(later, WALL);
    assert_eq!(transmits(&mut edge).len(), 2);
    assert!(edge.poll_timeout().unwrap() > later);
}

#[test]
fn no_configuration_makes_the_driver_spin_or_the_clock_overflow() {
    for time in [Duration::ZERO, Duration::MAX] {
        let start = Instant::now();
        let every = Keepalive::Send { every: time };
        let mut edge =
            Session::new(SessionConfig::edge().keepalive(every).resend(time).reply(time).sends(u32::MAX), start);
        edge.submit(start, acked(update("web", 1))).unwrap();
        edge.submit(start, replied(update("db", 1))).unwrap();
        for second in 0..3 {
            edge.handle_timeout(at(start, second), WALL);
            assert!(edge.poll_timeout().unwrap() > at(start, second));
        }
    }
}
