#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, pin::Pin};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::{tally::size_of, *};
use crate::{
    message::{Content, Message},
    meta::{MetaHandle, Record},
    names::UnixMillis,
    outbox::{OutboxLimit, Sequence, Stream, StreamLimit, Subject, WhenFull, append, leave, settle, withdraw},
    resource::Resource,
    testing::MemoryStore,
    words::{Group, Operation, Source},
};

const SUBJECTS: usize = 4;
const ENTRIES: usize = 3;

fn limits() -> OutboxLimits {
    OutboxLimits::default().state(SUBJECTS, 1 << 20).each_stream(StreamLimit { entries: ENTRIES, bytes: 1 << 20 })
}

fn message(size: usize) -> Message {
    Message::new(UnixMillis(1), Source::Edged, Group::Meta, Operation::Insert, Resource::Membership)
        .content(Content::text(&"x".repeat(size)))
}

fn subject(number: u8) -> Subject {
    Subject::new(format!("test/{number}")).unwrap()
}

fn stream(number: u8) -> Stream {
    Stream::new(format!("s{number}")).unwrap()
}

fn layered(memory: &MemoryStore, limits: OutboxLimits) -> (OutboxLayer, MetaHandle) {
    let layer = OutboxLayer::new(limits);
    let store = MetaHandle::new(layer.layer(MetaHandle::of(memory.clone())));
    (layer, store)
}

async fn entries(store: &MetaHandle) -> Vec<Record> {
    store.list(outbox::selector()).await.unwrap()
}

async fn names(store: &MetaHandle) -> Vec<String> {
    entries(store).await.iter().map(|record| Entry::of(&record.key).unwrap().to_string()).collect()
}

fn limit_of(error: MetaError) -> OutboxLimit {
    let MetaError::OutboxFull(limit) = error else { panic!("another error: {error:?}") };
    limit
}

#[tokio::test]
async fn a_new_subject_beyond_the_limit_is_an_error_and_a_known_one_is_replaced() {
    let memory = MemoryStore::new();
    let (_, store) = layered(&memory, limits());
    for number in 0..4 {
        store.commit(vec![leave(&subject(number), &message(1))]).await.unwrap();
    }
    let other = Record::new(crate::meta::MetaKey::new(crate::meta::Collection::twins(), "", "x"), "1");
    let writes =
        vec![MetaWrite::Put(other.clone(), crate::meta::Precondition::Always), leave(&subject(9), &message(1))];
    let error = store.commit(writes).await.unwrap_err();
    assert!(error.is_transient() && error.changed_nothing());
    assert_eq!(limit_of(error), OutboxLimit::Subjects(4));
    assert_eq!(store.get(other.key.clone()).await.unwrap(), None, "nothing of the commit is done");
    store.put(other).await.unwrap();
    store.commit(vec![leave(&subject(0), &message(100_000))]).await.unwrap();
    store.commit(vec![withdraw(&subject(1))]).await.unwrap();
    store.commit(vec![leave(&subject(9), &message(1))]).await.unwrap();
    // A new life of the layer knows the same.
    let (_, store) = layered(&memory, limits());
    assert!(store.commit(vec![leave(&subject(1), &message(1))]).await.is_err());
    let newest = entries(&store).await.pop().unwrap();
    store.commit(vec![settle(&newest)]).await.unwrap();
    store.commit(vec![leave(&subject(1), &message(1))]).await.unwrap();
}

#[tokio::test]
async fn bytes_are_limited_too() {
    let memory = MemoryStore::new();
    let one = size_of(&Record::new(outbox::key(&subject(0)), crate::wire::json::encode(&message(1000))));
    let lane = StreamLimit { entries: 100, bytes: 3 * one + 200 };
    let (layer, store) = layered(&memory, OutboxLimits::default().state(100, 2 * one).each_stream(lane));
    for number in 0..2 {
        store.commit(vec![leave(&subject(number), &message(1000))]).await.unwrap();
    }
    let error = store.commit(vec![leave(&subject(2), &message(0))]).await.unwrap_err();
    assert_eq!(limit_of(error), OutboxLimit::StateBytes(2 * one));
    for _ in 0..10 {
        store.commit(vec![append(&stream(0), &message(1000), WhenFull::DropOldest)]).await.unwrap();
    }
    assert_eq!(names(&store).await[2..], ["s0/8", "s0/9", "s0/10"]);
    assert_eq!(layer.drops().total(), 7);
    let error = store.commit(vec![append(&stream(0), &message(1000), WhenFull::Refuse)]).await.unwrap_err();
    assert!(matches!(limit_of(error), OutboxLimit::Bytes { .. }));
    let error = store.commit(vec![append(&stream(0), &message(5000), WhenFull::DropOldest)]).await.unwrap_err();
    assert!(matches!(limit_of(error), OutboxLimit::Bytes { .. }), "one that never fits drops nothing");
    // A large one takes the place of two.
    store.commit(vec![append(&stream(0), &message(2000), WhenFull::DropOldest)]).await.unwrap();
    assert_eq!(names(&store).await[2..], ["s0/10", "s0/11"]);
}

#[tokio::test]
async fn a_stream_drops_its_oldest_or_refuses_and_its_numbers_go_on_after_a_restart() {
    let memory = MemoryStore::new();
    let (layer, store) = layered(&memory, limits().streams(2));
    for _ in 0..5 {
        store.commit(vec![append(&stream(0), &message(1), WhenFull::DropOldest)]).await.unwrap();
    }
    store.commit(vec![append(&stream(1), &message(1), WhenFull::Refuse)]).await.unwrap();
    assert_eq!(names(&store).await, ["s0/3", "s0/4", "s0/5", "s1/1"]);
    assert_eq!(layer.drops().total(), 2);
    let error = store.commit(vec![append(&stream(0), &message(1), WhenFull::Refuse)]).await.unwrap_err();
    assert_eq!(limit_of(error), OutboxLimit::Entries { stream: stream(0), entries: 3 });
    let error = store.commit(vec![append(&stream(2), &message(1), WhenFull::DropOldest)]).await.unwrap_err();
    assert_eq!(limit_of(error), OutboxLimit::Streams(2));

    let (layer, store) = layered(&memory, limits());
    let two = || append(&stream(0), &message(1), WhenFull::DropOldest);
    store.commit(vec![two(), leave(&subject(1), &message(1)), two()]).await.unwrap();
    assert_eq!(names(&store).await, ["test/1", "s0/5", "s0/6", "s0/7", "s1/1"]);
    assert_eq!(layer.drops().total(), 2, "counted from the start");
    let error = store.commit((0..4).map(|_| two()).collect()).await.unwrap_err();
    assert_eq!(limit_of(error), OutboxLimit::Entries { stream: stream(0), entries: 3 }, "it alone is too much");
}

#[tokio::test]
async fn without_the_layer_nothing_is_lost_in_silence() {
    let store = MetaHandle::of(MemoryStore::new());
    store.commit(vec![append(&stream(0), &message(1), WhenFull::DropOldest)]).await.unwrap();
    let second = store.commit(vec![append(&stream(0), &message(1), WhenFull::DropOldest)]).await;
    assert!(matches!(second, Err(MetaError::Conflict { .. })));
}

#[tokio::test]
async fn a_full_disk_reaches_the_reporter_and_costs_no_room() {
    let memory = MemoryStore::new();
    let (layer, store) = layered(&memory, limits());
    for round in 0..20 {
        memory.fail_commits(true);
        let writes = vec![leave(&subject(round), &message(1)), append(&stream(0), &message(1), WhenFull::DropOldest)];
        assert!(matches!(store.commit(writes).await, Err(MetaError::Failed(_))));
        memory.fail_commits(false);
    }
    for number in 0..4 {
        store.commit(vec![leave(&subject(number), &message(1))]).await.unwrap();
    }
    assert_eq!((entries(&store).await.len(), layer.drops().total()), (4, 0));
}

#[tokio::test]
async fn a_limit_of_the_store_below_does_not_stop_it() {
    // One call at a time, and what is ready holds the slot.
    let store = tower::ServiceBuilder::new().concurrency_limit(1).service(MetaHandle::of(MemoryStore::new()));
    let store = MetaHandle::new(OutboxLayer::new(limits()).layer(store));
    let appends = (0..8).map(|_| store.commit(vec![append(&stream(0), &message(1), WhenFull::DropOldest)]));
    let all = tokio::time::timeout(std::time::Duration::from_secs(5), futures_util::future::join_all(appends));
    assert!(all.await.expect("nobody waits for itself").iter().all(Result::is_ok));
    assert_eq!(names(&store).await, ["s0/6", "s0/7", "s0/8"]);
}

/// What becomes of a commit.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    Full,
    DoneInSilence,
    LostInSilence,
}

#[derive(Clone, Debug)]
enum Op {
    Leave(u8),
    Withdraw(u8),
    Settle { pick: usize, stale: bool },
    Append(u8, bool),
}

#[derive(Clone, Debug)]
enum Step {
    Start(Vec<Op>),
    /// Lets the store decide on one of the commits that it has.
    Decide(usize, Fate),
    /// Lets the store answer one on which it has decided.
    Answer(usize),
    /// Drops the future of one.
    GiveUp(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..7_u8).prop_map(Op::Leave),
        1 => (0..7_u8).prop_map(Op::Withdraw),
        3 => (any::<usize>(), prop::bool::weighted(0.2)).prop_map(|(pick, stale)| Op::Settle { pick, stale }),
        5 => (0..2_u8, prop::bool::weighted(0.7)).prop_map(|(stream, drop)| Op::Append(stream, drop)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        8 => Just(Fate::Done), 1 => Just(Fate::Full), 1 => Just(Fate::DoneInSilence), 1 => Just(Fate::LostInSilence)
    ];
    prop_oneof![
        6 => prop::collection::vec(op(), 1..4).prop_map(Step::Start),
        6 => (any::<usize>(), fate).prop_map(|(which, fate)| Step::Decide(which, fate)),
        6 => any::<usize>().prop_map(Step::Answer),
        1 => any::<usize>().prop_map(Step::GiveUp),
    ]
}

async fn writes(memory: &MetaHandle, ops: &[Op]) -> Vec<MetaWrite> {
    let there = entries(memory).await;
    let write = |op: &Op| {
        Some(match op {
            Op::Leave(number) => leave(&subject(*number), &message(usize::from(*number))),
            Op::Withdraw(number) => withdraw(&subject(*number)),
            Op::Settle { pick, stale } => {
                let mut record = there.get(pick % there.len().max(1))?.clone();
                record.revision.0 -= u64::from(*stale);
                settle(&record)
            }
            Op::Append(number, drop) => {
                append(&stream(*number), &message(1), if *drop { WhenFull::DropOldest } else { WhenFull::Refuse })
            }
        })
    };
    ops.iter().filter_map(write).collect()
}

/// How many entries of each class there are.
fn counted(records: &[Record]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts.entry(record.key.namespace.to_string()).or_default() += 1;
    }
    counts
}

fn within_limits(records: &[Record]) {
    for (class, count) in counted(records) {
        let limit = if class.is_empty() { SUBJECTS } else { ENTRIES };
        assert!(count <= limit, "{count} of class {class:?}");
    }
}

/// What a layer that knows everything does with `ops` on a store that holds `before`: the names afterwards, or `None`
/// if it refuses.
fn expected(before: &[String], last: &mut BTreeMap<u8, u64>, ops: &[MetaWrite]) -> Option<Vec<String>> {
    let mut state: Vec<String> = before.iter().filter(|name| name.starts_with("test/")).cloned().collect();
    let mut streams: BTreeMap<u8, Vec<(u64, bool)>> = BTreeMap::new();
    for name in before.iter().filter_map(|name| name.strip_prefix('s')) {
        let (stream, number) = name.split_once('/').unwrap();
        streams.entry(stream.parse().unwrap()).or_default().push((number.parse().unwrap(), true));
    }
    let mut removed = Vec::new();
    for write in ops {
        match (write, Entry::of(write.key()).unwrap()) {
            (MetaWrite::Put(..), Entry::State(subject)) => {
                let name = subject.to_string();
                removed.retain(|gone| *gone != name);
                if !state.contains(&name) {
                    if state.len() == SUBJECTS {
                        return None;
                    }
                    state.push(name);
                }
            }
            (MetaWrite::Put(..), Entry::Stream(stream, asked)) => {
                let number = stream.as_str()[1..].parse().unwrap();
                let lane = streams.entry(number).or_default();
                if lane.len() == ENTRIES {
                    // Entries of the same commit cannot go again.
                    let oldest = lane.iter().position(|(_, stored)| *stored).filter(|_| asked == Sequence::NEXT)?;
                    lane.remove(oldest);
                }
                let last = last.entry(number).or_default();
                *last += 1;
                lane.push((*last, false));
            }
            (MetaWrite::Delete(..), entry) => removed.push(entry.to_string()),
        }
    }
    let streams = streams
        .into_iter()
        .flat_map(|(stream, lane)| lane.into_iter().map(move |(number, _)| format!("s{stream}/{number}")));
    let mut names: Vec<String> = state.into_iter().chain(streams).filter(|name| !removed.contains(name)).collect();
    names.sort();
    Some(names)
}

/// A commit that the store holds: its fate, and leave to answer.
type Gate = (oneshot::Sender<Fate>, Option<oneshot::Sender<()>>);

/// Things that tests take as they come.
type Collected<T> = Arc<Mutex<Vec<T>>>;

/// A store that decides and answers when it is told to.
fn held(memory: &MetaHandle) -> (MetaHandle, Collected<Gate>, Collected<oneshot::Sender<()>>) {
    let (deciding, answering) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (gates, memory) = (Arc::clone(&deciding), memory.clone());
    let service = tower::service_fn(move |request: MetaRequest| {
        let (gates, memory) = (Arc::clone(&gates), memory.clone());
        async move {
            if !matches!(&request, MetaRequest::Commit(writes) if !writes.is_empty()) {
                return memory.oneshot(request).await;
            }
            let ((decide, fate), (answer, leave)) = (oneshot::channel(), oneshot::channel());
            gates.lock().unwrap().push((decide, Some(answer)));
            let outcome = match fate.await {
                Ok(Fate::Done) => memory.oneshot(request).await,
                Ok(Fate::Full) => Err(MetaError::Full.into()),
                Ok(Fate::DoneInSilence) => {
                    let _ = memory.oneshot(request).await;
                    Err(MetaError::TimedOut.into())
                }
                Ok(Fate::LostInSilence) | Err(_) => Err(MetaError::TimedOut.into()),
            };
            let _ = leave.await;
            outcome
        }
    });
    (MetaHandle::new(service), deciding, answering)
}

type Running = Pin<Box<dyn Future<Output = Result<Revision, MetaError>>>>;

/// Polls all until nothing moves.
fn advance(running: &mut Vec<Running>) {
    for _ in 0..3 {
        running.retain_mut(|call| call.now_or_never().is_none());
    }
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a store in memory answers at once")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// One commit after the other, with failures: the layer decides as if it looked into the store each time.
    #[test]
    fn commits_one_by_one_follow_the_model(
        rounds in prop::collection::vec((prop::collection::vec(op(), 1..5), 0..8_u8), 1..40),
    ) {
        let memory = MetaHandle::of(MemoryStore::new());
        let (store, deciding, _) = held(&memory);
        let layer = OutboxLayer::new(limits());
        let store = MetaHandle::new(layer.layer(store));
        let mut last = BTreeMap::new();
        for (ops, fate) in rounds {
            let writes = ready(writes(&memory, &ops));
            let before = ready(names(&memory));
            let mut numbers = last.clone();
            let expected = expected(&before, &mut numbers, &writes);
            let fate = match fate { 0 => Fate::Full, 1 => Fate::DoneInSilence, 2 => Fate::LostInSilence, _ => Fate::Done };
            let mut call = Box::pin(store.commit(writes));
            let outcome = if let Some(outcome) = call.as_mut().now_or_never() {
                outcome
            } else {
                let (decide, answer) = deciding.lock().unwrap().pop().unwrap();
                decide.send(fate).unwrap();
                drop(answer);
                ready(call)
            };
            let mut after = ready(names(&memory));
            after.sort();
            let same = { let mut before = before.clone(); before.sort(); before == after };
            match (expected, outcome) {
                (None, Err(MetaError::OutboxFull(_))) => { prop_assert!(same); last = numbers; }
                (None, other) => prop_assert!(false, "not refused: {other:?}"),
                // Numbers of a commit that was not done are not used again.
                (Some(_), Err(MetaError::Conflict { .. } | MetaError::Full)) => { prop_assert!(same); last = numbers; }
                (Some(expected), Err(MetaError::TimedOut)) => { prop_assert!(same || after == expected); last = numbers; }
                (Some(expected), Ok(_)) => { prop_assert_eq!(after, expected); last = numbers; }
                (Some(_), Err(other)) => prop_assert!(false, "refused: {other:?}"),
            }
        }
    }

    /// Many commits at a time, decided and answered in any order, or given up: the store never holds more than the
    /// limits, and when all is quiet the layer knows what is there.
    #[test]
    fn commits_side_by_side_never_break_a_limit_and_leave_no_debt(steps in prop::collection::vec(step(), 1..80)) {
        let memory = MetaHandle::of(MemoryStore::new());
        let (store, deciding, answering) = held(&memory);
        let layer = OutboxLayer::new(limits());
        let store = MetaHandle::new(layer.layer(store));
        let mut running: Vec<Running> = Vec::new();
        let mut steps = steps.into_iter();
        for turn in 0.. {
            let step = match steps.next() {
                Some(step) => step,
                None if running.is_empty() => break,
                None if turn % 2 == 0 => Step::Decide(0, Fate::Done),
                None => Step::Answer(0),
            };
            prop_assert!(turn < 1000, "{} commits wait for ever", running.len());
            match step {
                Step::Start(ops) => {
                    let (store, writes) = (store.clone(), ready(writes(&memory, &ops)));
                    running.push(Box::pin(async move { store.commit(writes).await }));
                }
                Step::Decide(which, fate) => {
                    let mut gates = deciding.lock().unwrap();
                    if !gates.is_empty() {
                        let which = which % gates.len();
                        let (decide, answer) = gates.remove(which);
                        if decide.send(fate).is_ok() {
                            answering.lock().unwrap().extend(answer);
                        }
                    }
                }
                Step::Answer(which) => {
                    let mut gates = answering.lock().unwrap();
                    if !gates.is_empty() {
                        let which = which % gates.len();
                        drop(gates.remove(which));
                    }
                }
                Step::GiveUp(which) if !running.is_empty() => drop(running.remove(which % running.len())),
                Step::GiveUp(_) => {}
            }
            advance(&mut running);
            within_limits(&ready(entries(&memory)));
        }
        drop(ready(layer.0.knowing(&memory)).unwrap());
        let mut fresh = Tally::new(limits());
        fresh.load(&ready(entries(&memory)));
        prop_assert_eq!(layer.0.tally().sums(), fresh.sums());
    }
}
