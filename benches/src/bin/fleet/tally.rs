//! What happens to all edges together.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use kubeedge_core::{message::Message, transport::LinkError};
use serde::Serialize;
use tokio::time::Instant;

use crate::{samples::Samples, shelf::Arrival};

/// Kinds of failures that are told apart; all others count as one.
const KINDS: usize = 16;

/// Counters of a fleet.
#[derive(Debug)]
pub(crate) struct Tally {
    start: Instant,
    connected: AtomicU64,
    dialed: AtomicU64,
    ended: AtomicU64,
    arrivals: [AtomicU64; 5],
    answers: AtomicU64,
    bytes: AtomicU64,
    /// Microseconds after `start` at which something came or somebody connected.
    active: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
    /// From the begin of a dial to the open session.
    pub(crate) handshakes: Samples,
    /// From a request to its answer.
    pub(crate) answered: Samples,
    /// From the write of an object to its arrival.
    pub(crate) delivered: Samples,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Sessions that are open.
    pub(crate) connected: u64,
    /// Sessions that were opened.
    pub(crate) dialed: u64,
    /// Sessions that ended without being asked to.
    pub(crate) ended: u64,
    /// Objects that were new to the edge.
    pub(crate) new: u64,
    /// Objects that the edge had already in that version.
    pub(crate) known: u64,
    /// Messages that came again although they were acknowledged.
    pub(crate) repeated: u64,
    /// Objects older than what the edge had: each is a fault of the cloud.
    pub(crate) stale: u64,
    /// Messages about no object.
    pub(crate) notices: u64,
    /// Answers.
    pub(crate) answers: u64,
    /// Bytes of the contents of all of them.
    pub(crate) bytes: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            connected: AtomicU64::new(0),
            dialed: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            arrivals: Default::default(),
            answers: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            active: AtomicU64::new(0),
            failures: Mutex::default(),
            handshakes: Samples::default(),
            answered: Samples::default(),
            delivered: Samples::default(),
        }
    }
}

impl Tally {
    pub(crate) fn connected(&self, handshake: Duration) {
        self.handshakes.add(handshake);
        self.connected.fetch_add(1, Relaxed);
        self.dialed.fetch_add(1, Relaxed);
        self.touch();
    }

    /// A session is over; `why` is absent if we ended it.
    pub(crate) fn disconnected(&self, why: Option<&LinkError>) {
        self.connected.fetch_sub(1, Relaxed);
        if let Some(why) = why {
            self.ended.fetch_add(1, Relaxed);
            self.failed("session", why);
        }
    }

    pub(crate) fn failed(&self, what: &str, error: &LinkError) {
        let mut text = format!("{what}: {error}");
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if failures.contains_key(&text) || failures.len() < KINDS { text } else { "others".to_owned() };
        *failures.entry(key).or_default() += 1;
    }

    pub(crate) fn arrived(&self, arrival: Arrival, message: &Message) {
        self.arrivals[arrival as usize].fetch_add(1, Relaxed);
        self.weigh(message);
    }

    pub(crate) fn answered(&self, message: &Message, after: Duration) {
        self.answers.fetch_add(1, Relaxed);
        self.answered.add(after);
        self.weigh(message);
    }

    fn weigh(&self, message: &Message) {
        self.bytes.fetch_add(message.content.as_json().len() as u64, Relaxed);
        self.touch();
    }

    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.active.fetch_max(now, Relaxed);
    }

    /// When something happened last.
    pub(crate) fn last_activity(&self) -> Instant {
        self.start + Duration::from_micros(self.active.load(Relaxed))
    }

    pub(crate) fn counts(&self) -> Counts {
        let [new, known, repeated, stale, notices] = std::array::from_fn(|kind| self.arrivals[kind].load(Relaxed));
        Counts {
            connected: self.connected.load(Relaxed),
            dialed: self.dialed.load(Relaxed),
            ended: self.ended.load(Relaxed),
            new,
            known,
            repeated,
            stale,
            notices,
            answers: self.answers.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    /// Failures of dials and sessions, and how often each came.
    pub(crate) fn failures(&self) -> BTreeMap<String, u64> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Counts {
    /// What came since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            connected: self.connected,
            dialed: self.dialed - before.dialed,
            ended: self.ended - before.ended,
            new: self.new - before.new,
            known: self.known - before.known,
            repeated: self.repeated - before.repeated,
            stale: self.stale - before.stale,
            notices: self.notices - before.notices,
            answers: self.answers - before.answers,
            bytes: self.bytes - before.bytes,
        }
    }

    /// Messages of all kinds.
    pub(crate) fn messages(&self) -> u64 {
        self.new + self.known + self.repeated + self.stale + self.notices + self.answers
    }
}
