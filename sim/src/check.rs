//! The checker: rules over whole histories.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
};

use kubeedge_core::{meta::MetaKey, names::NodeName};

use crate::history::{Copy, Entry, Event};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub promise: &'static str,
    /// When.
    pub at: Duration,
    /// How.
    pub how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} s: {}: {}", self.at.as_secs_f64(), self.promise, self.how)
    }
}

pub(crate) const LOSS: &str = "no acknowledged loss";
pub(crate) const STALE: &str = "no stale overwrite";
pub(crate) const DUPLICATE: &str = "no duplicate effect";
pub(crate) const CONVERGENCE: &str = "convergence";

/// A message that an edge has read.
struct Message<'a> {
    first: usize,
    stores: bool,
    key: &'a MetaKey,
    uid: Option<&'a str>,
    version: u64,
}

/// What a record was, since which entry.
type Past<'a> = Vec<(usize, Option<&'a Copy>)>;

#[derive(Default)]
struct Checker<'a> {
    violations: Vec<Violation>,
    messages: HashMap<usize, Message<'a>>,
    /// What each record of each edge was, since which entry.
    copies: BTreeMap<(&'a NodeName, &'a MetaKey), Past<'a>>,
    /// The highest version that an edge has ever had.
    highest: HashMap<(String, &'a str), u64>,
    /// What objects of the API show, as long as they are there.
    shown: HashMap<&'a str, u64>,
}

/// Looks at a whole history.
pub fn check(history: &[Entry]) -> Vec<Violation> {
    let mut checker = Checker::default();
    for (index, entry) in history.iter().enumerate() {
        checker.look(index, entry);
    }
    checker.violations
}

impl<'a> Checker<'a> {
    fn look(&mut self, index: usize, entry: &'a Entry) {
        let at = entry.at;
        match &entry.event {
            Event::Written { place, uid, version, shows } => {
                if place.plural == "pods" {
                    self.status(at, uid, *version, *shows);
                } else if let Some(shows) = shows
                    && place.plural.ends_with("objectsyncs")
                {
                    self.record(at, &place.name, *shows);
                }
            }
            Event::Removed { uid, .. } => {
                self.shown.remove(uid.as_str());
            }
            Event::Received { message, stores, key, uid, version, .. } => {
                let (uid, stores, version) = (uid.as_deref(), *stores, *version);
                self.messages.entry(*message).or_insert(Message { first: index, stores, key, uid, version });
            }
            Event::Answered { edge, message, acknowledged: true } => self.acknowledgement(at, edge, *message),
            Event::Stored { edge, key, object } => self.stored(index, at, edge, key, object.as_ref()),
            Event::Settled { edge, subject, uid, number } => {
                if self.shown.get(uid.as_str()).is_some_and(|shown| shown < number) {
                    let how = format!("{edge} takes report {number} of {subject} for delivered, and the API lacks it");
                    self.violated(LOSS, at, how);
                }
            }
            Event::Answered { .. } | Event::Left { .. } | Event::Note(_) => {}
        }
    }

    fn violated(&mut self, promise: &'static str, at: Duration, how: String) {
        self.violations.push(Violation { promise, at, how });
    }

    /// The status of a pod in the API.
    fn status(&mut self, at: Duration, uid: &'a str, version: u64, shows: Option<u64>) {
        let shows = shows.unwrap_or(0);
        let before = self.shown.insert(uid, shows);
        if before.is_some_and(|before| before > shows) {
            let how = format!("pod {uid} shows report {shows} at version {version}, and showed {before:?} before");
            self.violated(STALE, at, how);
        }
    }

    /// A record of the ledger is written after the commit of what it tells. Version 0 tells of nothing.
    fn record(&mut self, at: Duration, name: &'a str, version: u64) {
        if version == 0 {
            return;
        }
        let Some((node, uid)) = name.rsplit_once('.') else { return };
        let had = self.highest.get(&(node.to_owned(), uid)).copied();
        if had.is_none_or(|had| had < version) {
            let how = format!("the ledger has {uid} at {version} for {node}, where {had:?} is durable");
            self.violated(LOSS, at, how);
        }
    }

    /// What an edge acknowledges was true of its disk at some time since it got the message.
    fn acknowledgement(&mut self, at: Duration, edge: &'a NodeName, message: usize) {
        let Some(told) = self.messages.get(&message) else { return };
        let none = Vec::new();
        let copies = self.copies.get(&(edge, told.key)).unwrap_or(&none);
        let begin = copies.partition_point(|(since, _)| *since <= told.first);
        let before = if begin == 0 { None } else { copies[begin - 1].1 };
        let mut since = std::iter::once(before).chain(copies[begin..].iter().map(|(_, copy)| *copy));
        if !since.any(|copy| told.holds(copy)) {
            let (key, uid, version) = (told.key, told.uid, told.version);
            let how = format!("{edge} acknowledges {key} uid {uid:?} at {version}, which is not durable");
            self.violated(LOSS, at, how);
        }
    }

    fn stored(&mut self, index: usize, at: Duration, edge: &'a NodeName, key: &'a MetaKey, object: Option<&'a Copy>) {
        let copies = self.copies.entry((edge, key)).or_default();
        let before = copies.last().and_then(|(_, copy)| *copy);
        let newest = copies.iter().filter_map(|(_, copy)| copy.map(age)).max();
        copies.push((index, object));
        let Some(object) = object else { return };
        if before == Some(object) {
            self.violated(DUPLICATE, at, format!("{edge} stores {key} again, which has not changed"));
        }
        if newest.is_some_and(|newest| newest > age(object)) {
            let how = format!("{edge} stores {key} uid {}, and had a younger object before", object.uid);
            self.violated(STALE, at, how);
        }
        let highest = self.highest.entry((edge.to_string(), &object.uid)).or_default();
        if *highest > object.version {
            let how = format!("{edge} stores {key} at {}, and had {highest} before", object.version);
            self.violated(STALE, at, how);
        } else {
            *highest = object.version;
        }
    }
}

impl Message<'_> {
    /// Whether a record is as this message wants it, or newer.
    fn holds(&self, copy: Option<&Copy>) -> bool {
        match (copy, self.uid) {
            (None, _) => !self.stores,
            (Some(copy), Some(uid)) if copy.uid == uid => self.stores && copy.version >= self.version,
            (Some(copy), Some(uid)) => !self.stores || age(copy) > number(uid),
            (Some(_), None) => false,
        }
    }
}

/// UIDs of this API are numbered.
fn number(uid: &str) -> u64 {
    uid.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn age(copy: &Copy) -> u64 {
    number(&copy.uid)
}
