//! Recorded conversations of the Go programs, with a session of ours in the place of either end.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use kubeedge_core::{
    answer::Answer,
    message::Message,
    names::{MessageId, UnixMillis},
    session::{
        Keepalive, Outbound, Receipt, Session, SessionConfig, SessionEvent, SubmitError, Ticket, Unsettled, Until,
    },
    words::{Group, Operation, Source},
};

use crate::recorded::{self, Recorded};

const WALL: UnixMillis = UnixMillis(0);

/// The conversations: one per flow and connection.
fn conversations() -> BTreeMap<(String, u32), Vec<Recorded>> {
    let mut all = BTreeMap::<_, Vec<Recorded>>::new();
    for recorded in recorded::all() {
        all.entry((recorded.flow.clone(), recorded.conn)).or_default().push(recorded);
    }
    all
}

fn drain(session: &mut Session) -> Vec<SessionEvent> {
    while session.poll_transmit().is_some() {}
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// What the other side answers or acknowledges, by the id of what it answers.
fn answered(steps: &[Recorded], by_edge: bool) -> BTreeMap<&MessageId, &Message> {
    let answers = steps.iter().filter(|step| step.from_edge == by_edge).map(|step| &step.message);
    answers.filter_map(|answer| Some((answer.parent.as_ref()?, answer))).collect()
}

/// What an end that sends `message` waits for: as the other one behaved in the recording.
fn until(message: &Message, answers: &BTreeMap<&MessageId, &Message>) -> Until {
    match answers.get(&message.id) {
        Some(answer) if answer.operation == Operation::Response && answer.content.is_ok() => Until::Acked,
        Some(_) => Until::Replied,
        None => Until::Written,
    }
}

/// Plays one side of a conversation, and gives what the session said about each message of the other one.
struct Replay {
    session: Session,
    waiting: HashMap<Ticket, MessageId>,
    given: BTreeSet<MessageId>,
    settled: usize,
}

impl Replay {
    fn new(config: SessionConfig, now: Instant) -> Self {
        Self { session: Session::new(config, now), waiting: HashMap::new(), given: BTreeSet::new(), settled: 0 }
    }

    fn say(&mut self, now: Instant, message: &Message, until: Until) {
        match self.session.submit(now, Outbound { message: message.clone(), until }) {
            Ok(_) if until == Until::Written => {}
            Ok(ticket) => assert_eq!(self.waiting.insert(ticket, message.id.clone()), None),
            // Go edges repeat a message of the twin under the same id until it is confirmed.
            Err(SubmitError::Duplicate(again)) => assert_eq!(again.message.source, Source::Twin),
            Err(error) => panic!("{error}: {message:?}"),
        }
    }

    /// Hands out what the session says, each message of the peer once.
    fn happened(&mut self, flow: &str) {
        for event in drain(&mut self.session) {
            match event {
                SessionEvent::Settled(ticket, Ok(receipt)) => {
                    let Some(id) = self.waiting.remove(&ticket) else { continue };
                    self.settled += 1;
                    if let Receipt::Reply(reply) = receipt {
                        assert_eq!(reply.parent, Some(id), "{flow}: an answer finds its request");
                        self.given.insert(reply.id);
                    }
                }
                SessionEvent::Deliver(message) => {
                    assert_eq!(message.parent, None, "{flow}");
                    self.given.insert(message.id);
                }
                SessionEvent::Late(message) => {
                    self.given.insert(message.id);
                }
                other => panic!("{flow}: {other:?}"),
            }
        }
    }
}

#[test]
fn our_session_takes_the_place_of_the_go_edge() {
    let (mut settled, mut acknowledged) = (0, 0);
    for ((flow, _), steps) in conversations() {
        let start = Instant::now();
        let (replies, ours) = (answered(&steps, false), answered(&steps, true));
        let mut edge = Replay::new(SessionConfig::edge(), start + steps[0].at);
        for step in &steps {
            let (now, message) = (start + step.at, &step.message);
            edge.session.handle_timeout(now, WALL);
            match (step.from_edge, &message.operation) {
                (true, Operation::Keepalive) => {}
                // What the Go edge acknowledges or answers, ours has been given by then.
                (true, _) if message.parent.is_some() => {
                    let parent = message.parent.as_ref().unwrap();
                    let seen = steps.iter().any(|step| !step.from_edge && step.message.id == *parent);
                    assert!(!seen || edge.given.contains(parent), "{flow}: {message:?} answers what was not given");
                    acknowledged += usize::from(seen);
                    edge.say(now, message, Until::Written);
                }
                (true, _) => {
                    let until = if replies.contains_key(&message.id) { Until::Replied } else { Until::Written };
                    edge.say(now, message, until);
                }
                (false, _) => edge.session.handle_message(now, message.clone()),
            }
            edge.happened(&flow);
        }
        assert!(edge.waiting.is_empty(), "{flow}: requests without an answer: {:?}", edge.waiting);
        for step in steps.iter().filter(|step| !step.from_edge) {
            assert!(edge.given.contains(&step.message.id), "{flow}: lost {:?}", step.message);
        }
        // What Go acknowledges as an object comes without a question, and the other way round.
        for step in steps.iter().filter(|step| !step.from_edge && step.message.parent.is_none()) {
            let message = &step.message;
            let acked = ours.get(&message.id).is_some_and(|answer| answer.operation == Operation::Response);
            let is_object = message.group == Group::Resource && message.resource.object().is_some();
            let cut = steps.last().unwrap().at < step.at + Duration::from_secs(1);
            assert!(acked == is_object || cut, "{flow}: {message:?}");
        }
        settled += edge.settled;
    }
    assert!(settled > 150 && acknowledged > 250, "{settled} answers, {acknowledged} acknowledgements");
}

#[test]
fn our_session_takes_the_place_of_the_go_cloud() {
    let (mut confirmed, mut delivered) = (0, 0);
    for ((flow, _), steps) in conversations() {
        let start = Instant::now();
        // Of some flows a part of the messages was recorded, keepalives not among them.
        let patient = Keepalive::Expect { within: Duration::from_secs(3600) };
        let config = SessionConfig::cloud().keepalive(patient).window(64);
        let mut cloud = Replay::new(config, start + steps[0].at);
        let acks = answered(&steps, true);
        for step in &steps {
            let (now, message) = (start + step.at, &step.message);
            cloud.session.handle_timeout(now, WALL);
            if step.from_edge {
                cloud.session.handle_message(now, message.clone());
            } else {
                cloud.say(now, message, until(message, &acks));
            }
            cloud.happened(&flow);
            if !step.from_edge
                && let Some(request) = &message.parent
            {
                let seen = steps.iter().any(|step| step.from_edge && step.message.id == *request);
                assert!(!seen || cloud.given.contains(request), "{flow}: {message:?} answers what was not given");
            }
        }
        assert!(cloud.waiting.is_empty(), "{flow}: unsettled {:?}", cloud.waiting);
        confirmed += cloud.settled;
        for Recorded { message, .. } in steps.iter().filter(|step| step.from_edge) {
            let request = message.parent.is_none() && message.operation != Operation::Keepalive;
            let answer_to_ours = message.parent.is_some() && message.operation != Operation::Response;
            assert_eq!(cloud.given.contains(&message.id), request || answer_to_ours, "{flow}: {message:?}");
            delivered += usize::from(request);
        }
    }
    assert!(confirmed > 250 && delivered > 300, "{confirmed} confirmed, {delivered} delivered");
}

/// The Go edge took the empty lease for a success, and renewed a lease without a name from then on.
#[test]
fn an_answer_with_an_error_that_is_no_status_is_no_success() {
    let conversation = conversations().remove(&("02b-apiserver-restart".into(), 5)).unwrap();
    let start = Instant::now();
    let quiet = Keepalive::Expect { within: Duration::from_secs(3600) };
    let mut edge = Session::new(SessionConfig::edge().keepalive(quiet), start);
    let mut outcomes = vec![];
    for step in &conversation {
        let now = start + step.at;
        edge.handle_timeout(now, WALL);
        match (step.from_edge, &step.message.parent) {
            (true, None) => {
                edge.submit(now, Outbound { message: step.message.clone(), until: Until::Replied }).unwrap();
            }
            (true, Some(_)) => {}
            (false, _) => edge.handle_message(now, step.message.clone()),
        }
        for event in drain(&mut edge) {
            if let SessionEvent::Settled(_, outcome) = event {
                outcomes.push(outcome);
            }
        }
    }
    let replies: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    let [Receipt::Reply(first), Receipt::Reply(second), Receipt::Reply(broken)] = replies[..] else {
        panic!("{replies:?}")
    };
    for renewed in [first, second] {
        assert!(matches!(Answer::read(&renewed.content), Answer::Object(_)));
    }
    let Answer::Refused(why) = Answer::read(&broken.content) else { panic!("taken for a lease") };
    assert_eq!(why.code, 503);
    // The cloud never answers the updates of no lease. Each is given up after a minute; that is how often it came.
    assert_eq!(outcomes[3..], vec![Err(Unsettled::NoReply); 5]);
}

/// The Go cloud cannot read an answer without an operation, and its caller waits for ever.
#[test]
fn an_answer_without_an_operation_is_an_answer() {
    let conversation = conversations().remove(&("09-router".into(), 120)).unwrap();
    let nameless = |step: &&Recorded| {
        step.from_edge && step.message.operation == Operation::Absent && step.message.parent.is_some()
    };
    let answer = &conversation.iter().find(nameless).unwrap().message;
    let question = conversation.iter().find(|step| Some(&step.message.id) == answer.parent.as_ref()).unwrap();
    let now = Instant::now();
    let mut cloud = Session::new(SessionConfig::cloud(), now);
    let question = Outbound { message: question.message.clone(), until: Until::Replied };
    let ticket = cloud.submit(now, question).unwrap();
    drain(&mut cloud);
    cloud.handle_message(now, answer.clone());
    assert_eq!(drain(&mut cloud), [SessionEvent::Settled(ticket, Ok(Receipt::Reply(answer.clone())))]);
}
