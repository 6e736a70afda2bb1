//! A cloud with objects and an edge with a store, over pipes that lose, double, delay and reorder, with commits that
//! fail and links that end. Whatever happens: what counts as acknowledged is stored, no version goes backwards, nothing
//! is settled twice, and once the pipes heal everything arrives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const QUEUE: usize = 6;
const REQUESTS: usize = 4;
/// Answers of the session's own; see `Session::transmit_len`.
const CONTROLS: usize = 16;

/// What becomes of a message: the delays, in seconds, of the copies that arrive.
type Fate = Vec<u64>;

#[derive(Clone, Debug)]
enum Act {
    /// An object changes.
    Change(u8),
    EdgeAsks,
    CloudAsks,
    /// The link ends and the next one stands, at both ends.
    Reconnect,
    /// One end begins an orderly end.
    Finish {
        cloud: bool,
    },
    /// One end closes its sending half without a word.
    HalfClose {
        cloud: bool,
    },
    Nothing,
}

#[derive(Clone, Debug)]
struct Plan {
    window: usize,
    down: Vec<Fate>,
    up: Vec<Fate>,
    commits: Vec<bool>,
    acts: Vec<Act>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let fate = || {
        prop_oneof![
            5 => Just(vec![0]),
            2 => Just(vec![]),
            2 => (0_u64..12).prop_map(|delay| vec![delay]),
            1 => prop::collection::vec(0_u64..40, 2..4),
        ]
    };
    let act = prop_oneof![
        8 => (0_u8..12).prop_map(Act::Change),
        3 => Just(Act::EdgeAsks),
        3 => Just(Act::CloudAsks),
        1 => Just(Act::Reconnect),
        1 => any::<bool>().prop_map(|cloud| Act::Finish { cloud }),
        1 => any::<bool>().prop_map(|cloud| Act::HalfClose { cloud }),
        8 => Just(Act::Nothing),
    ];
    (
        prop_oneof![Just(1_usize), 2_usize..=64],
        prop::collection::vec(fate(), 0..80),
        prop::collection::vec(fate(), 0..80),
        prop::collection::vec(prop::bool::weighted(0.7), 0..40),
        prop::collection::vec(act, 0..100),
    )
        .prop_map(|(window, down, up, commits, acts)| Plan { window, down, up, commits, acts })
}

/// A one-way pipe. When the fates are used up, everything arrives at once.
struct Pipe {
    fates: VecDeque<Fate>,
    travelling: Vec<(u64, Message)>,
}

impl Pipe {
    fn send(&mut self, second: u64, sent: Vec<Message>) {
        for message in sent {
            let delays = self.fates.pop_front().unwrap_or_else(|| vec![0]);
            self.travelling.extend(delays.into_iter().map(|delay| (second + delay, message.clone())));
        }
    }

    fn arrived(&mut self, second: u64) -> Vec<Message> {
        let due = |(at, _): &(u64, Message)| *at <= second;
        let arrived = self.travelling.iter().filter(|sent| due(sent)).map(|(_, message)| message.clone()).collect();
        self.travelling.retain(|sent| !due(sent));
        arrived
    }
}

#[derive(Clone, Debug)]
enum Input {
    Submit(Instant, Outbound),
    Message(Instant, Message),
    Timeout(Instant),
    Drain,
    Finish,
    PeerFinished,
    End,
}

#[derive(Debug, PartialEq)]
enum Output {
    Submitted(Result<Ticket, SubmitError>),
    Sent(Message),
    Event(SessionEvent),
    Timeout(Option<Instant>),
}

/// Gives one input, and everything that comes of it.
fn feed(session: &mut Session, input: Input) -> Vec<Output> {
    let mut outputs = vec![];
    match input {
        Input::Submit(now, outbound) => outputs.push(Output::Submitted(session.submit(now, outbound))),
        Input::Message(now, message) => session.handle_message(now, message),
        Input::Timeout(now) => session.handle_timeout(now, WALL),
        Input::Finish => session.finish(),
        Input::PeerFinished => session.peer_finished(),
        Input::End => session.end(),
        Input::Drain => loop {
            outputs.extend(events(session).into_iter().map(Output::Event));
            match session.poll_transmit() {
                Some(message) => outputs.push(Output::Sent(message)),
                None => break,
            }
        },
    }
    outputs.push(Output::Timeout(session.poll_timeout()));
    outputs
}

/// One end of a link, watched.
struct End {
    config: SessionConfig,
    start: Instant,
    session: Session,
    open: BTreeMap<Ticket, Until>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    /// Answers for which there was no room.
    held: VecDeque<Message>,
}

impl End {
    fn new(config: SessionConfig, start: Instant) -> Self {
        let session = Session::new(config.clone(), start);
        let (open, held) = (BTreeMap::new(), VecDeque::new());
        Self { config, start, session, open, inputs: vec![], outputs: vec![], held }
    }

    fn feed(&mut self, input: Input) -> usize {
        let from = self.outputs.len();
        self.outputs.extend(feed(&mut self.session, input.clone()));
        self.inputs.push(input);
        from
    }

    fn submit(&mut self, now: Instant, outbound: Outbound) -> Result<Ticket, SubmitError> {
        let until = outbound.until;
        let from = self.feed(Input::Submit(now, outbound));
        let Output::Submitted(outcome) = &self.outputs[from] else { unreachable!() };
        if let Ok(ticket) = outcome {
            assert_eq!(self.open.insert(*ticket, until), None, "tickets are never given twice");
            let count = |kind| self.open.values().filter(|until| **until == kind).count();
            assert!(count(Until::Replied) <= REQUESTS);
            assert!(self.session.transmit_len() <= QUEUE + 64 + REQUESTS + CONTROLS);
        }
        outcome.clone()
    }

    /// Answers are held until there is room.
    fn answer(&mut self, now: Instant, answer: Message) {
        self.held.push_back(answer);
        while let Some(answer) = self.held.pop_front() {
            if let Err(SubmitError::Full(back)) = self.submit(now, written(answer)) {
                return self.held.push_front(back.message);
            }
        }
    }

    /// What is to be written, and what happened.
    fn drain(&mut self) -> (Vec<Message>, Vec<SessionEvent>) {
        let from = self.feed(Input::Drain);
        let (mut sent, mut happened) = (vec![], vec![]);
        for output in &self.outputs[from..] {
            match output {
                Output::Sent(message) => sent.push(message.clone()),
                Output::Event(event) => happened.push(event.clone()),
                _ => {}
            }
        }
        for event in &happened {
            match event {
                SessionEvent::Settled(ticket, how) => {
                    let until = self.open.remove(ticket).expect("settled once, and only what was submitted");
                    if let Ok(receipt) = how {
                        assert_eq!(matches!(receipt, Receipt::Reply(_)), until == Until::Replied);
                    }
                }
                SessionEvent::Refused(ticket, _) => assert_eq!(self.open.get(ticket), Some(&Until::Acked)),
                _ => {}
            }
        }
        assert_eq!(self.session.transmit_len(), 0);
        (sent, happened)
    }

    fn tick(&mut self, now: Instant) {
        self.feed(Input::Timeout(now));
        assert!(self.session.poll_timeout().is_none_or(|due| due > now), "the driver would not sleep");
    }

    /// The link ends: everything is settled now. The same inputs, given again, lead to the same outputs.
    fn close(mut self) -> Vec<SessionEvent> {
        self.feed(Input::End);
        let (sent, happened) = self.drain();
        assert_eq!(sent, []);
        assert!(self.open.is_empty(), "never settled: {:?}", self.open);
        let mut again = Session::new(self.config, self.start);
        let outputs: Vec<_> = self.inputs.into_iter().flat_map(|input| feed(&mut again, input)).collect();
        // Keepalives are made by the session and have fresh ids.
        let same = |(was, is): (&Output, &Output)| match (was, is) {
            (Output::Sent(was), Output::Sent(is)) if was.operation == Operation::Keepalive => {
                was.operation == is.operation
            }
            _ => was == is,
        };
        assert_eq!(outputs.len(), self.outputs.len());
        assert!(self.outputs.iter().zip(&outputs).all(same), "equal inputs, other outputs");
        happened
    }
}

struct World {
    start: Instant,
    plan: Plan,
    commits: VecDeque<bool>,
    cloud: End,
    edge: End,
    down: Pipe,
    up: Pipe,
    /// Versions of the objects as they are, as the edge has stored them, and as the cloud knows them to be stored.
    truth: BTreeMap<u8, u64>,
    store: BTreeMap<u8, u64>,
    ledger: BTreeMap<u8, u64>,
    /// Objects that wait for being sent: the keyed queue.
    waiting: BTreeSet<u8>,
    flying: BTreeMap<Ticket, (u8, u64)>,
    versions: u64,
    /// Whether the link is about to end, because one of its ends wants so.
    ending: bool,
}

fn cloud_end(window: usize, now: Instant) -> End {
    End::new(SessionConfig::cloud().window(window).queue(QUEUE).requests(REQUESTS), now)
}

fn edge_end(now: Instant) -> End {
    End::new(SessionConfig::edge().queue(QUEUE).requests(REQUESTS), now)
}

fn object(message: &Message) -> (u8, u64) {
    let name = message.resource.object().unwrap().name.clone().unwrap();
    (name.as_str().strip_prefix("o-").unwrap().parse().unwrap(), message.content.parse().unwrap())
}

impl World {
    fn new(plan: Plan) -> Self {
        let start = Instant::now();
        let pipe = |fates: &Vec<Fate>| Pipe { fates: fates.clone().into(), travelling: vec![] };
        Self {
            start,
            commits: plan.commits.clone().into(),
            cloud: cloud_end(plan.window, start),
            edge: edge_end(start),
            down: pipe(&plan.down),
            up: pipe(&plan.up),
            truth: BTreeMap::new(),
            store: BTreeMap::new(),
            ledger: BTreeMap::new(),
            waiting: BTreeSet::new(),
            flying: BTreeMap::new(),
            versions: 0,
            ending: false,
            plan,
        }
    }

    fn act(&mut self, act: &Act, now: Instant) {
        match act {
            Act::Change(object) => {
                self.versions += 1;
                self.truth.insert(*object, self.versions);
                self.waiting.insert(*object);
            }
            Act::EdgeAsks => {
                let query = Message::new(WALL, Source::Edged, Group::Meta, Operation::Query, Resource::KubernetesCa);
                let _ = self.edge.submit(now, replied(query));
            }
            Act::CloudAsks => {
                let get = Message::new(WALL, Source::RouterServiceBus, Group::User, Operation::Query, Resource::Absent);
                let _ = self.cloud.submit(now, replied(get));
            }
            Act::Reconnect => self.reconnect(now),
            Act::Finish { cloud } => {
                let end = if *cloud { &mut self.cloud } else { &mut self.edge };
                end.feed(Input::Finish);
                self.ending = true;
            }
            Act::HalfClose { cloud } => {
                // Whoever closes has nothing more to say; the other end hears of it.
                let (end, other) =
                    if *cloud { (&mut self.cloud, &mut self.edge) } else { (&mut self.edge, &mut self.cloud) };
                end.feed(Input::Finish);
                other.feed(Input::PeerFinished);
                self.ending = true;
            }
            Act::Nothing => {}
        }
    }

    fn reconnect(&mut self, now: Instant) {
        let cloud = std::mem::replace(&mut self.cloud, cloud_end(self.plan.window, now));
        self.cloud_events(cloud.close(), now);
        std::mem::replace(&mut self.edge, edge_end(now)).close();
        self.down.travelling.clear();
        self.up.travelling.clear();
        self.ending = false;
        assert_eq!(self.flying, BTreeMap::new());
    }

    /// Newest versions first come, first served; of each object one at a time.
    fn send_objects(&mut self, now: Instant) {
        while self.cloud.session.window_left() > 0 {
            let flying: BTreeSet<_> = self.flying.values().map(|(object, _)| *object).collect();
            let Some(object) = self.waiting.iter().copied().find(|object| !flying.contains(object)) else { return };
            self.waiting.remove(&object);
            let version = self.truth[&object];
            let ticket = self.cloud.submit(now, acked(update(&format!("o-{object}"), version))).unwrap();
            self.flying.insert(ticket, (object, version));
            assert!(self.flying.len() <= self.plan.window);
        }
    }

    fn cloud_events(&mut self, happened: Vec<SessionEvent>, now: Instant) {
        for event in happened {
            match event {
                SessionEvent::Settled(ticket, how) => {
                    let Some((object, version)) = self.flying.remove(&ticket) else { continue };
                    if how.is_ok() {
                        let stored = self.store.get(&object).copied().unwrap_or(0);
                        assert!(stored >= version, "object {object}: {version} acknowledged, {stored} stored");
                        let known = self.ledger.insert(object, version).unwrap_or(0);
                        assert!(known <= version, "the ledger goes backwards");
                    } else {
                        self.waiting.insert(object);
                    }
                }
                SessionEvent::Deliver(request) => {
                    assert!(request.parent.is_none());
                    let answer = request.acknowledgement(WALL);
                    self.cloud.answer(now, answer);
                }
                SessionEvent::Refused(..) => {}
                SessionEvent::Ended(SessionEnd::KeepaliveMissed) => self.ending = true,
                other => panic!("{other:?}"),
            }
        }
    }

    fn edge_events(&mut self, happened: Vec<SessionEvent>, now: Instant) {
        for event in happened {
            match event {
                SessionEvent::Deliver(message) if message.operation == Operation::Update => {
                    let (object, version) = object(&message);
                    let answer = if self.commits.pop_front().unwrap_or(true) {
                        let stored = self.store.entry(object).or_default();
                        *stored = version.max(*stored);
                        message.acknowledgement(WALL)
                    } else {
                        message.refusal(WALL, Source::MetaStore, &"disk full")
                    };
                    self.edge.answer(now, answer);
                }
                SessionEvent::Deliver(question) => {
                    let mut answer = question.acknowledgement(WALL);
                    answer.operation = Operation::Upload;
                    self.edge.answer(now, answer);
                }
                SessionEvent::Late(message) => self.edge.answer(now, message.acknowledgement(WALL)),
                SessionEvent::Settled(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn step(&mut self, second: u64) {
        let now = at(self.start, second);
        self.cloud.tick(now);
        self.edge.tick(now);
        self.drain_cloud(second, now);
        self.send_objects(now);
        self.drain_cloud(second, now);
        for message in self.down.arrived(second) {
            self.edge.feed(Input::Message(now, message));
        }
        // Once for what arrived, and once for the answers to it.
        for _ in 0..2 {
            let (sent, happened) = self.edge.drain();
            self.edge_events(happened, now);
            self.up.send(second, sent);
        }
        for message in self.up.arrived(second) {
            self.cloud.feed(Input::Message(now, message));
        }
        self.drain_cloud(second, now);
    }

    fn drain_cloud(&mut self, second: u64, now: Instant) {
        let (sent, happened) = self.cloud.drain();
        self.cloud_events(happened, now);
        self.down.send(second, sent);
    }

    /// Whether both ends have nothing more to do.
    fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.cloud.open.is_empty() && self.edge.open.is_empty() && !self.ending
    }
}

proptest! {
    #[test]
    fn acknowledged_objects_are_stored_and_all_arrive_once_the_pipe_heals(plan in plans()) {
        let mut world = World::new(plan);
        let acts = std::mem::take(&mut world.plan.acts);
        let mut second = 0;
        let mut ending_since = None;
        let mut run = |world: &mut World, act: Option<&Act>| {
            second += 1;
            if let Some(act) = act {
                world.act(act, at(world.start, second));
            }
            world.step(second);
            // An orderly end is waited for, for a while.
            let since = *ending_since.get_or_insert(second);
            if !world.ending {
                ending_since = None;
            } else if second > since + 20 || (world.cloud.session.is_finished() && world.edge.session.is_finished()) {
                world.reconnect(at(world.start, second));
                ending_since = None;
            }
        };
        for act in &acts {
            run(&mut world, Some(act));
        }
        world.commits.clear();
        world.down.fates.clear();
        world.up.fates.clear();
        // Once around for each: the longest orderly end, a delay, all resends, and a request without an answer.
        let mut patience = 20 + 40 + 25 * 12 + 60;
        while !world.is_settled() {
            prop_assert!(patience > 0, "not settled: {:?} {:?} {:?}", world.waiting, world.flying, world.edge.open);
            patience -= 1;
            run(&mut world, None);
        }
        prop_assert_eq!(&world.store, &world.truth);
        prop_assert_eq!(&world.ledger, &world.truth);
        world.cloud.close();
        world.edge.close();
    }
}
