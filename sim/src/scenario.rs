//! What happens in a run, drawn from its seed.

use std::time::Duration;

use fastrand::Rng;
use kubeedge_core::transport::Extensions;

use crate::{api::Trouble, mutation::Mutation};

/// When all faults end and nobody changes anything any more.
pub(crate) const HEAL: Duration = Duration::from_secs(16);

/// How a connection is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// Nothing gets through.
    Cut,
    /// Nothing gets to the cloud.
    CutUp,
    /// Nothing gets to the edge.
    CutDown,
    /// Everything waits.
    Stalled,
    /// Everything takes so long.
    Slow(Duration),
}

/// A moment at which a host dies, told by what has just happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The edge has read an object and not stored it.
    Received,
    /// The object is durable, and the edge does not know it yet.
    Stored,
    /// The acknowledgement is on its way.
    Answered,
    /// A report is durable in the outbox, and nobody knows it yet.
    Left,
    /// The API has the status of a pod, and nobody knows it yet.
    StatusWritten,
    /// The API has taken a record of the ledger, and nobody knows it yet.
    RecordWritten,
    /// The API has deleted something, and nobody knows it yet.
    Removed,
}

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// The cloud.
    Cloud,
    /// The so-manieth edge.
    Edge(usize),
}

/// Something that is done to the world.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// The link of an edge gets into trouble, or out of it.
    Link(usize, Option<LinkFault>),
    /// A host dies; silently, if its peers are not told by its system.
    Crash(Host, bool),
    /// A host dies silently as soon as this has happened for the so-manieth time.
    CrashAt(Host, Moment, u32),
    /// A host that is dead starts.
    Start(Host),
    /// A disk is full, or no longer.
    DiskFull(usize, bool),
    /// Commits take so long at most.
    DiskLatency(usize, Duration),
    /// A wall clock jumps by milliseconds.
    Jump(Host, i64),
    /// What the API does to requests.
    Api(Trouble),
    /// All watches end.
    CutWatches,
    /// All versions so far are forgotten.
    Compact,
    /// Watches of a kind hear nothing.
    Stall(&'static str),
    /// All watches hear everything.
    Flow,
    /// An operator works: on which edge, on which of a few objects, and how.
    Operate(usize, usize, Work),
}

/// The work of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Makes a pod, or edits it if it is there.
    PutPod,
    /// Deletes a pod at once.
    RemovePod,
    /// Asks a pod to end.
    EndPod,
    /// Deletes a pod and makes another one of its name.
    ReplacePod,
    /// Makes a ConfigMap or Secret, or edits it.
    PutConfig,
    /// Deletes it.
    RemoveConfig,
    /// Deletes it and makes another one of its name.
    ReplaceConfig,
    /// Edits the labels of a node.
    EditNode,
}

/// A run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scenario {
    /// Where everything in it comes from.
    pub seed: u64,
    /// What each edge can do.
    pub edges: Vec<Extensions>,
    /// Longest time that a frame takes.
    pub latency: Duration,
    /// What is done, and when.
    pub actions: Vec<(Duration, Action)>,
    /// A part that is broken, for tests of the checker.
    pub mutation: Mutation,
}

struct Draft {
    rng: Rng,
    actions: Vec<(Duration, Action)>,
}

impl Scenario {
    /// The run of `seed`.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let edges: Vec<Extensions> = (0..rng.usize(1..=4)).map(|_| extensions(&mut rng)).collect();
        let latency = Duration::from_millis(rng.u64(2..80));
        let mut draft = Draft { rng, actions: Vec::new() };
        for edge in 0..edges.len() {
            draft.edge(edge);
        }
        draft.cloud();
        draft.api();
        draft.operators(edges.len());
        let mut actions = draft.actions;
        actions.sort_by_key(|(at, _)| *at);
        Self { seed, edges, latency, actions, mutation: Mutation::None }
    }

    /// The same run with a broken part.
    pub fn mutated(mut self, mutation: Mutation) -> Self {
        self.mutation = mutation;
        self
    }
}

/// As a Go edge, or with some of what ours can do.
fn extensions(rng: &mut Rng) -> Extensions {
    match rng.u8(..4) {
        0 => Extensions::none(),
        1 => Extensions::none().window(std::num::NonZeroU16::new(rng.u16(2..8))),
        _ => Extensions::all(),
    }
}

impl Draft {
    fn add(&mut self, at: u64, action: Action) {
        self.actions.push((Duration::from_millis(at), action));
    }

    /// Times of trouble, one after another: calls `fault` with the begin and the end of each.
    fn windows(&mut self, calm: u64, longest: u64, mut fault: impl FnMut(&mut Self, u64, u64)) {
        let heal = u64::try_from(HEAL.as_millis()).unwrap_or(u64::MAX);
        let mut at = self.rng.u64(500..calm);
        while at < heal {
            let end = (at + self.rng.u64(100..longest)).min(heal);
            fault(self, at, end);
            at = end + self.rng.u64(100..calm);
        }
    }

    fn edge(&mut self, edge: usize) {
        if self.rng.u8(..4) > 0 {
            self.windows(8000, 9000, |draft, begin, end| {
                let fault = match draft.rng.u8(..6) {
                    0 | 1 => LinkFault::Cut,
                    2 => LinkFault::CutUp,
                    3 => LinkFault::CutDown,
                    4 => LinkFault::Stalled,
                    _ => LinkFault::Slow(Duration::from_millis(draft.rng.u64(100..1500))),
                };
                draft.add(begin, Action::Link(edge, Some(fault)));
                draft.add(end, Action::Link(edge, None));
            });
        }
        if self.rng.u8(..3) > 0 {
            self.windows(10_000, 4000, |draft, begin, end| draft.crash(Host::Edge(edge), begin, end));
        }
        if self.rng.u8(..3) == 0 {
            self.windows(9000, 6000, |draft, begin, end| {
                draft.add(begin, Action::DiskFull(edge, true));
                draft.add(end, Action::DiskFull(edge, false));
            });
        }
        if self.rng.u8(..3) == 0 {
            self.windows(9000, 6000, |draft, begin, end| {
                let latency = Duration::from_millis(draft.rng.u64(50..1500));
                draft.add(begin, Action::DiskLatency(edge, latency));
                draft.add(end, Action::DiskLatency(edge, Duration::from_millis(10)));
            });
        }
        self.jumps(Host::Edge(edge));
    }

    fn cloud(&mut self) {
        if self.rng.u8(..3) > 0 {
            self.windows(10_000, 4000, |draft, begin, end| draft.crash(Host::Cloud, begin, end));
        }
        self.jumps(Host::Cloud);
    }

    fn crash(&mut self, host: Host, begin: u64, end: u64) {
        let moments = match host {
            Host::Edge(_) => &[Moment::Received, Moment::Stored, Moment::Answered, Moment::Left][..],
            Host::Cloud => &[Moment::Answered, Moment::StatusWritten, Moment::RecordWritten, Moment::Removed][..],
        };
        let action = if self.rng.bool() {
            let moment = moments[self.rng.usize(..moments.len())];
            Action::CrashAt(host, moment, self.rng.u32(1..4))
        } else {
            Action::Crash(host, self.rng.bool())
        };
        self.add(begin, action);
        self.add(end, Action::Start(host));
    }

    fn jumps(&mut self, host: Host) {
        if self.rng.u8(..3) == 0 {
            self.windows(9000, 5000, |draft, begin, _| {
                let by = draft.rng.i64(-86_400_000..86_400_000);
                draft.add(begin, Action::Jump(host, by));
            });
        }
    }

    fn api(&mut self) {
        if self.rng.u8(..3) > 0 {
            self.windows(9000, 5000, |draft, begin, end| {
                let (refuses, loses_answers) = (draft.rng.u8(..40), draft.rng.u8(..40));
                let down = draft.rng.u8(..3) == 0;
                let latency = Duration::from_millis(draft.rng.u64(1..1500));
                draft.add(begin, Action::Api(Trouble { down, refuses, loses_answers, latency }));
                draft.add(end, Action::Api(calm()));
            });
        }
        if self.rng.bool() {
            self.windows(6000, 2000, |draft, begin, _| {
                let action = if draft.rng.bool() { Action::CutWatches } else { Action::Compact };
                draft.add(begin, action);
            });
        }
        if self.rng.bool() {
            self.windows(8000, 4000, |draft, begin, end| {
                let kinds = ["pods", "configmaps", "secrets", "nodes", "objectsyncs"];
                let kind = kinds[draft.rng.usize(..kinds.len())];
                draft.add(begin, Action::Stall(kind));
                draft.add(end, Action::Flow);
            });
        }
    }

    fn operators(&mut self, edges: usize) {
        for edge in 0..edges {
            for slot in 0..2 {
                self.add(100, Action::Operate(edge, slot, Work::PutConfig));
                self.add(200, Action::Operate(edge, slot, Work::PutPod));
            }
        }
        let heal = u64::try_from(HEAL.as_millis()).unwrap_or(u64::MAX);
        let pace = self.rng.u64(100..1200);
        let mut at = 500;
        while at < heal {
            let work = match self.rng.u8(..16) {
                0..4 => Work::PutPod,
                4 => Work::RemovePod,
                5 => Work::EndPod,
                6 | 7 => Work::ReplacePod,
                8..12 => Work::PutConfig,
                12 => Work::RemoveConfig,
                13 | 14 => Work::ReplaceConfig,
                _ => Work::EditNode,
            };
            let (edge, slot) = (self.rng.usize(..edges), self.rng.usize(..SLOTS));
            self.add(at, Action::Operate(edge, slot, work));
            at += self.rng.u64(10..pace * 2);
        }
    }
}

/// Pods of a node, and objects of configuration.
pub(crate) const SLOTS: usize = 4;

/// An API in its best days.
pub(crate) fn calm() -> Trouble {
    Trouble { latency: Duration::from_millis(15), ..Trouble::default() }
}
