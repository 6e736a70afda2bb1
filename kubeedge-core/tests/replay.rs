//! Recorded conversations of the Go programs, with a session of ours in the place of either end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use kubeedge_core::{
    message::Message,
    names::{MessageId, UnixMillis},
    session::{Keepalive, Outbound, Receipt, Session, SessionConfig, SessionEvent, Ticket, Until},
    wire::json,
    words::{Group, Operation},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    flow: String,
    conn: u32,
    t: f64,
    dir: String,
    frame: String,
}

struct Step {
    at: Duration,
    from_edge: bool,
    message: Message,
}

/// The conversations: one per flow and connection.
fn conversations() -> BTreeMap<(String, u32), Vec<Step>> {
    let mut all = BTreeMap::<_, Vec<Step>>::new();
    for line in include_str!("golden/sequences.jsonl").lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        let message = json::decode(&line.frame).unwrap();
        let step = Step { at: Duration::from_secs_f64(line.t), from_edge: line.dir == "edge>cloud", message };
        all.entry((line.flow, line.conn)).or_default().push(step);
    }
    all
}

fn events(session: &mut Session) -> Vec<SessionEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// What the other side answers or acknowledges, by the id of what it answers.
fn answered(steps: &[Step], by_edge: bool) -> BTreeSet<&MessageId> {
    steps.iter().filter(|step| step.from_edge == by_edge).filter_map(|step| step.message.parent.as_ref()).collect()
}

#[test]
fn our_session_takes_the_place_of_the_go_edge() {
    for ((flow, _), steps) in conversations() {
        let start = Instant::now();
        let mut session = Session::new(SessionConfig::edge(), start);
        let (replies, acked) = (answered(&steps, false), answered(&steps, true));
        let mut waiting = HashMap::<Ticket, MessageId>::new();
        for Step { at, from_edge, message } in &steps {
            let now = start + *at;
            match (from_edge, &message.operation) {
                (true, Operation::Keepalive) => {}
                (true, _) => {
                    let replied = replies.contains(&message.id);
                    let until = if replied { Until::Replied } else { Until::Written };
                    let ticket = session.submit(now, Outbound { message: message.clone(), until }).unwrap();
                    if replied {
                        waiting.insert(ticket, message.id.clone());
                    }
                }
                (false, _) => session.handle_message(now, message.clone()),
            }
            while session.poll_transmit().is_some() {}
            for event in events(&mut session) {
                match event {
                    SessionEvent::Settled(ticket, Ok(Receipt::Reply(reply))) => {
                        assert_eq!(reply.parent, waiting.remove(&ticket), "{flow}: an answer finds its request");
                    }
                    SessionEvent::Settled(_, Ok(Receipt::Done)) => {}
                    SessionEvent::Deliver(message) => {
                        assert!(message.parent.is_none());
                        // What Go acknowledges is delivered to us, so that we can.
                        let is_object = message.group == Group::Resource && message.resource.object().is_some();
                        let later = steps.last().unwrap().at > *at + Duration::from_secs(1);
                        assert!(!is_object || !later || acked.contains(&message.id), "{flow}: {}", message.resource);
                    }
                    // The recording began, or the edge started anew, between request and answer.
                    SessionEvent::Late(message) => assert!(!replies.is_empty() && message.parent.is_some()),
                    other => panic!("{flow}: {other:?}"),
                }
            }
        }
        assert!(waiting.is_empty(), "{flow}: requests without an answer: {waiting:?}");
    }
}

#[test]
fn our_session_takes_the_place_of_the_go_cloud() {
    let mut confirmed = 0;
    for ((flow, _), steps) in conversations() {
        let start = Instant::now();
        let first = steps[0].at;
        // Flows were recorded one after another on few connections; the keepalives in between are in none of them.
        let patient = Keepalive::Expect { within: Duration::from_secs(3600) };
        let mut session = Session::new(SessionConfig::cloud().keepalive(patient).window(64), start + first);
        let acked = answered(&steps, true);
        let mut waiting = BTreeSet::new();
        for Step { at, from_edge, message } in &steps {
            let now = start + *at;
            session.handle_timeout(now, UnixMillis(0));
            if *from_edge {
                session.handle_message(now, message.clone());
            } else {
                let acked = acked.contains(&message.id);
                let until = if acked { Until::Acked } else { Until::Written };
                let ticket = session.submit(now, Outbound { message: message.clone(), until }).unwrap();
                if acked {
                    waiting.insert(ticket);
                }
            }
            while session.poll_transmit().is_some() {}
            for event in events(&mut session) {
                match event {
                    SessionEvent::Settled(ticket, Ok(Receipt::Done)) => {
                        confirmed += usize::from(waiting.remove(&ticket));
                    }
                    SessionEvent::Deliver(request) => {
                        assert!(request.operation != Operation::Response, "{flow}: an acknowledgement is no request");
                        assert!(request.operation != Operation::Keepalive);
                    }
                    other => panic!("{flow}: {other:?}"),
                }
            }
        }
        assert!(waiting.is_empty(), "{flow}: unacknowledged {waiting:?}");
    }
    assert!(confirmed > 100, "only {confirmed} acknowledgements were seen");
}
