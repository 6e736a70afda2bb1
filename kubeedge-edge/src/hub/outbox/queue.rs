//! Which entries there are, and which of them is next.

mod lanes;
mod subjects;

use std::time::Duration;

use kubeedge_core::{
    meta::{MetaKey, Record, Revision},
    outbox::{Entry, Sequence, Stream, Subject},
};
use tokio::time::Instant;

use self::{lanes::Lanes, subjects::Subjects};
use super::OutboxConfig;

/// What to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// The newest entry about a subject, which is of that revision or newer.
    State(Subject, Revision),
    /// The first entries of a stream, in order.
    Stream(Stream, Vec<Sequence>),
}

/// Streams that may be under way at a time: what they send holds up state, as the link has a rate.
const STREAMS: usize = 4;

/// Entries of state and of streams, and how many of each may be under way: streams take at most four slots and a quarter of
/// them, and state that failed before at most half, so that fresh state always has a quarter.
pub(super) struct Queue {
    pub(super) subjects: Subjects,
    pub(super) lanes: Lanes,
    concurrency: usize,
}

/// Pauses after failures.
#[derive(Clone, Copy, Debug)]
struct Pauses {
    first: Duration,
    longest: Duration,
}

impl Pauses {
    /// Between half and all of a pause that doubles with each failure.
    fn after(self, failures: u32) -> Duration {
        let pause = self.first.saturating_mul(1 << failures.min(16)).min(self.longest);
        pause.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

impl Queue {
    pub(super) fn new(config: &OutboxConfig) -> Self {
        let pauses = Pauses { first: config.first_pause, longest: config.longest_pause };
        let retries = config.concurrency / 2;
        Self { subjects: Subjects::new(retries, pauses), lanes: Lanes::new(pauses), concurrency: config.concurrency }
    }

    pub(super) fn put(&mut self, record: &Record) {
        match Entry::of(&record.key) {
            Some(Entry::State(subject)) => self.subjects.put(&subject, record.revision),
            Some(Entry::Stream(stream, sequence)) => self.lanes.put(&stream, sequence),
            _ => tracing::debug!(key = %record.key, "record in the outbox that is no entry"),
        }
    }

    pub(super) fn remove(&mut self, key: &MetaKey) {
        match Entry::of(key) {
            Some(Entry::State(subject)) => self.subjects.remove(&subject),
            Some(Entry::Stream(stream, sequence)) => self.lanes.remove(&stream, sequence),
            _ => {}
        }
    }

    /// Takes over all entries that there are.
    pub(super) fn replace_all(&mut self, mut records: Vec<Record>) {
        let entries: Vec<_> = records.iter().filter_map(|record| Entry::of(&record.key)).collect();
        self.subjects.retain(&entries);
        self.lanes.clear();
        // What waits longest goes first.
        records.sort_by_key(|record| record.revision);
        for record in &records {
            self.put(record);
        }
    }

    /// What to send next; it is under way from now on.
    pub(super) fn take(&mut self, now: Instant) -> Option<Job> {
        if self.is_full() {
            return None;
        }
        if self.has_lane()
            && let Some((stream, sequences)) = self.lanes.take(now)
        {
            return Some(Job::Stream(stream, sequences));
        }
        self.subjects.take(now).map(|(subject, revision)| Job::State(subject, revision))
    }

    /// When the next entry that failed is due. As long as there is no room for it, time alone changes nothing.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.is_full() {
            return None;
        }
        let lanes = self.lanes.next_due().filter(|_| self.has_lane());
        self.subjects.next_due().into_iter().chain(lanes).min()
    }

    fn is_full(&self) -> bool {
        self.subjects.under_way() + self.lanes.under_way() >= self.concurrency
    }

    /// Whether another stream may be under way.
    fn has_lane(&self) -> bool {
        self.lanes.under_way() < (self.concurrency / 4).min(STREAMS)
    }

    /// A new link: whatever failed on the old one may work now.
    pub(super) fn restart(&mut self) {
        self.subjects.restart();
        self.lanes.restart();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(entry: &Entry, revision: u64) -> Record {
        let mut record = Record::new(entry.key(), "{}");
        record.revision = Revision(revision);
        record
    }

    fn state(text: &str) -> Entry {
        Entry::State(Subject::new(text).unwrap())
    }

    fn stream(name: &str, sequence: u64) -> Entry {
        Entry::Stream(Stream::new(name).unwrap(), Sequence(sequence))
    }

    fn taken(queue: &mut Queue, now: Instant) -> (usize, usize) {
        let jobs: Vec<_> = std::iter::from_fn(|| queue.take(now)).collect();
        let streams = jobs.iter().filter(|job| matches!(job, Job::Stream(..))).count();
        (jobs.len() - streams, streams)
    }

    #[test]
    fn streams_state_that_fails_and_fresh_state_have_their_slots() {
        let now = Instant::now();
        let mut queue = Queue::new(&OutboxConfig::default().concurrency(8));
        for number in 1..=100 {
            queue.put(&record(&stream(&format!("s{}", number % 5), number), number));
            queue.put(&record(&state(&format!("dead/{number}")), number));
        }
        assert_eq!(taken(&mut queue, now), (6, 2), "a quarter for streams");
        let late = now + Duration::from_secs(60);
        for _ in 0..100 {
            for number in 1..=100 {
                queue.subjects.failed(&Subject::new(format!("dead/{number}")).unwrap(), now);
            }
            while let Some(Job::State(..)) = queue.take(now) {}
        }
        assert_eq!(taken(&mut queue, late), (4, 0), "half for what fails");
        for number in 0..10 {
            queue.put(&record(&state(&format!("fresh/{number}")), 200));
        }
        assert_eq!(taken(&mut queue, late), (2, 0), "and the rest for what is fresh");
    }

    #[test]
    fn all_entries_are_taken_over() {
        let now = Instant::now();
        let mut queue = Queue::new(&OutboxConfig::default());
        queue.put(&record(&stream("s", 1), 1));
        queue.put(&record(&state("a"), 2));
        queue.replace_all(vec![record(&stream("s", 2), 3), record(&stream("s", 3), 4), record(&state("b"), 5)]);
        assert_eq!((queue.subjects.len(), queue.lanes.len()), (1, 2));
        let Some(Job::Stream(_, sequences)) = queue.take(now) else { panic!("the stream is first") };
        assert_eq!(sequences, [Sequence(2), Sequence(3)]);
    }
}
