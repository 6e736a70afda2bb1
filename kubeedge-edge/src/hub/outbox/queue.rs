use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use kubeedge_core::meta::{Record, Revision};
use tokio::time::Instant;

use super::OutboxConfig;

/// Which entries there are, and which of them is next.
///
/// An entry that is there is in exactly one place: `fresh`, `again`, `later`, or under way.
pub(super) struct Queue {
    entries: HashMap<Arc<str>, Entry>,
    /// Never failed, in order of arrival.
    fresh: VecDeque<Arc<str>>,
    /// Failed before, and due again.
    again: VecDeque<Arc<str>>,
    /// Failed, and not due yet.
    later: BTreeSet<(Instant, Arc<str>)>,
    under_way: usize,
    retrying: usize,
    concurrency: usize,
    first_pause: Duration,
    longest_pause: Duration,
}

#[derive(Debug)]
struct Entry {
    /// The newest that is known to be in the store; `None` if it was removed while under way.
    revision: Option<Revision>,
    failures: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Fresh,
    Again,
    Later(Instant),
    UnderWay { retry: bool },
}

impl Queue {
    pub(super) fn new(config: &OutboxConfig) -> Self {
        Self {
            entries: HashMap::new(),
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            later: BTreeSet::new(),
            under_way: 0,
            retrying: 0,
            concurrency: config.concurrency,
            first_pause: config.first_pause,
            longest_pause: config.longest_pause,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.values().filter(|entry| entry.revision.is_some()).count()
    }

    pub(super) fn put(&mut self, record: &Record) {
        let subject = &record.key.name;
        if let Some(entry) = self.entries.get_mut(subject) {
            // A pause goes on: what failed for the older one will mostly fail for the newer one.
            entry.revision = entry.revision.max(Some(record.revision));
        } else {
            let entry = Entry { revision: Some(record.revision), failures: 0, place: Place::Fresh };
            self.entries.insert(subject.clone(), entry);
            self.fresh.push_back(subject.clone());
        }
    }

    pub(super) fn remove(&mut self, subject: &str) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
        if matches!(entry.place, Place::UnderWay { .. }) {
            entry.revision = None;
        } else {
            self.forget(subject);
        }
    }

    /// Takes over all entries that there are.
    pub(super) fn replace_all(&mut self, mut records: Vec<Record>) {
        let gone: Vec<_> = {
            let there: BTreeSet<&str> = records.iter().map(|record| &*record.key.name).collect();
            self.entries.keys().filter(|subject| !there.contains(&***subject)).cloned().collect()
        };
        for subject in &gone {
            self.remove(subject);
        }
        // What waits longest goes first.
        records.sort_by_key(|record| record.revision);
        for record in &records {
            self.put(record);
        }
    }

    /// The next entry to send; it is under way from now on.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Arc<str>, Revision)> {
        while let Some((due, _)) = self.later.first()
            && *due <= now
        {
            let Some((_, subject)) = self.later.pop_first() else { break };
            self.place(&subject, Place::Again);
        }
        if self.under_way >= self.concurrency {
            return None;
        }
        let (subject, retry) = match self.fresh.pop_front() {
            Some(subject) => (subject, false),
            None if self.retrying < self.concurrency / 2 => (self.again.pop_front()?, true),
            None => return None,
        };
        self.under_way += 1;
        self.retrying += usize::from(retry);
        let entry = self.entries.get_mut(&subject)?;
        entry.place = Place::UnderWay { retry };
        Some((subject, entry.revision.unwrap_or_default()))
    }

    /// When the next entry that failed is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(due, _)| *due)
    }

    /// The entry of that revision is done; if there is a newer one it is next.
    pub(super) fn settled(&mut self, subject: &Arc<str>, sent: Revision) {
        let Some(entry) = self.landed(subject) else { return };
        match entry.revision {
            Some(newest) if newest > sent => {
                entry.failures = 0;
                self.place(subject, Place::Fresh);
            }
            _ => drop(self.entries.remove(subject)),
        }
    }

    /// The entry was not sent, through no fault of its own.
    pub(super) fn returned(&mut self, subject: &Arc<str>) {
        let Some(entry) = self.landed(subject) else { return };
        match (entry.revision, entry.failures) {
            (None, _) => drop(self.entries.remove(subject)),
            (_, 0) => {
                entry.place = Place::Fresh;
                self.fresh.push_front(subject.clone());
            }
            _ => self.place(subject, Place::Again),
        }
    }

    /// The entry failed: again after a pause.
    pub(super) fn failed(&mut self, subject: &Arc<str>, now: Instant) {
        let (first, longest) = (self.first_pause, self.longest_pause);
        let Some(entry) = self.landed(subject) else { return };
        if entry.revision.is_none() {
            self.entries.remove(subject);
            return;
        }
        let pause = first.saturating_mul(1 << entry.failures.min(16)).min(longest);
        entry.failures += 1;
        let due = now + pause.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.place(subject, Place::Later(due));
    }

    /// A new link: whatever failed on the old one may work now.
    pub(super) fn restart(&mut self) {
        let later = std::mem::take(&mut self.later);
        let paused: Vec<_> = later.into_iter().map(|(_, subject)| subject).chain(self.again.drain(..)).collect();
        for subject in paused {
            self.place(&subject, Place::Fresh);
        }
        self.entries.values_mut().for_each(|entry| entry.failures = 0);
    }

    fn place(&mut self, subject: &Arc<str>, place: Place) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
        entry.place = place;
        match place {
            Place::Fresh => self.fresh.push_back(subject.clone()),
            Place::Again => self.again.push_back(subject.clone()),
            Place::Later(due) => drop(self.later.insert((due, subject.clone()))),
            Place::UnderWay { .. } => {}
        }
    }

    /// The entry is no longer under way.
    fn landed(&mut self, subject: &str) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(subject)?;
        if let Place::UnderWay { retry } = entry.place {
            self.under_way -= 1;
            self.retrying -= usize::from(retry);
        }
        Some(entry)
    }

    fn forget(&mut self, subject: &str) {
        match self.entries.remove(subject).map(|entry| entry.place) {
            Some(Place::Fresh) => self.fresh.retain(|other| **other != *subject),
            Some(Place::Again) => self.again.retain(|other| **other != *subject),
            Some(Place::Later(due)) => self.later.retain(|(at, other)| *at != due || **other != *subject),
            Some(Place::UnderWay { .. }) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::outbox;

    use super::*;

    fn record(subject: &str, revision: u64) -> Record {
        let mut record = Record::new(outbox::key(subject), "{}");
        record.revision = Revision(revision);
        record
    }

    fn taken(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.take(now)).map(|(subject, _)| subject.to_string()).collect()
    }

    #[test]
    fn an_entry_that_was_replaced_under_way_is_sent_again() {
        let now = Instant::now();
        let mut queue = Queue::new(&OutboxConfig::default());
        queue.put(&record("a", 1));
        let (subject, revision) = queue.take(now).unwrap();
        queue.put(&record("a", 2));
        assert!(queue.take(now).is_none(), "one at a time per subject");
        queue.settled(&subject, revision);
        assert_eq!(queue.take(now).unwrap().1, Revision(2));
        queue.settled(&subject, Revision(2));
        assert_eq!((queue.len(), queue.take(now)), (0, None));
    }

    #[test]
    fn what_always_fails_leaves_room_for_the_rest() {
        let start = Instant::now();
        let mut queue = Queue::new(&OutboxConfig::default().concurrency(4));
        (0..10).for_each(|count| queue.put(&record(&format!("dead-{count}"), count + 1)));
        let mut now = start;
        // Every dead entry fails once.
        for _ in 0..3 {
            for subject in taken(&mut queue, now) {
                queue.failed(&subject.as_str().into(), now);
            }
        }
        now += Duration::from_secs(1);
        assert_eq!(taken(&mut queue, now).len(), 2, "half of the slots");
        queue.put(&record("live", 20));
        assert_eq!(taken(&mut queue, now), ["live"]);
        queue.restart();
        assert_eq!(taken(&mut queue, now).len(), 1, "after a restart all are fresh again, within the limit");
    }

    #[test]
    fn a_removed_entry_is_nowhere() {
        let now = Instant::now();
        let mut queue = Queue::new(&OutboxConfig::default());
        for subject in ["waiting", "under-way", "failed"] {
            queue.put(&record(subject, 1));
        }
        let all: Vec<Arc<str>> = taken(&mut queue, now).iter().map(|subject| subject.as_str().into()).collect();
        queue.failed(&all[2], now);
        queue.returned(&all[0]);
        queue.replace_all(Vec::new());
        assert_eq!(queue.len(), 0);
        assert_eq!((queue.take(now), queue.next_due()), (None, None));
        queue.failed(&all[1], now);
        assert_eq!(queue.next_due(), None, "a removed entry is not tried again");
        queue.put(&record("under-way", 2));
        assert_eq!(taken(&mut queue, now), ["under-way"]);
    }
}
