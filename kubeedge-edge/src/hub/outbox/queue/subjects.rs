use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use kubeedge_core::{
    meta::Revision,
    outbox::{Entry as Named, Subject},
};
use tokio::time::Instant;

use super::Pauses;

/// Entries of state, and which of them is next.
///
/// An entry that is there is in exactly one place: `fresh`, `again`, `later`, or under way.
pub(in super::super) struct Subjects {
    entries: HashMap<Subject, Entry>,
    /// Entries that were removed while they were under way.
    gone: usize,
    /// Never failed, in order of arrival.
    fresh: VecDeque<Subject>,
    /// Failed before, and due again.
    again: VecDeque<Subject>,
    /// Failed, and not due yet.
    later: BTreeSet<(Instant, Subject)>,
    under_way: usize,
    retrying: usize,
    most_retries: usize,
    pauses: Pauses,
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

impl Subjects {
    /// At most `retries` of those that failed before are under way at a time.
    pub(super) fn new(retries: usize, pauses: Pauses) -> Self {
        Self {
            entries: HashMap::new(),
            gone: 0,
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            later: BTreeSet::new(),
            under_way: 0,
            retrying: 0,
            most_retries: retries,
            pauses,
        }
    }

    /// How many entries there are.
    pub(in super::super) fn len(&self) -> usize {
        self.entries.len() - self.gone
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn put(&mut self, subject: &Subject, revision: Revision) {
        if let Some(entry) = self.entries.get_mut(subject) {
            self.gone -= usize::from(entry.revision.is_none());
            // A pause goes on: what failed for the older one will mostly fail for the newer one.
            entry.revision = entry.revision.max(Some(revision));
        } else {
            let entry = Entry { revision: Some(revision), failures: 0, place: Place::Fresh };
            self.entries.insert(subject.clone(), entry);
            self.fresh.push_back(subject.clone());
        }
    }

    pub(super) fn remove(&mut self, subject: &Subject) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
        if matches!(entry.place, Place::UnderWay { .. }) {
            self.gone += usize::from(entry.revision.take().is_some());
        } else {
            self.forget(subject);
        }
    }

    /// Removes what is not among `there`.
    pub(super) fn retain(&mut self, there: &[Named]) {
        let there: HashSet<&Subject> = there
            .iter()
            .filter_map(|entry| if let Named::State(subject) = entry { Some(subject) } else { None })
            .collect();
        let gone: Vec<_> = self.entries.keys().filter(|subject| !there.contains(subject)).cloned().collect();
        for subject in &gone {
            self.remove(subject);
        }
    }

    /// The next entry to send; it is under way from now on.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Subject, Revision)> {
        while let Some((due, _)) = self.later.first()
            && *due <= now
        {
            let Some((_, subject)) = self.later.pop_first() else { break };
            self.place(&subject, Place::Again);
        }
        let (subject, retry) = match self.fresh.pop_front() {
            Some(subject) => (subject, false),
            None if self.retrying < self.most_retries => (self.again.pop_front()?, true),
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
    pub(in super::super) fn settled(&mut self, subject: &Subject, sent: Revision) {
        let Some(entry) = self.landed(subject) else { return };
        match entry.revision {
            Some(newest) if newest > sent => {
                entry.failures = 0;
                self.place(subject, Place::Fresh);
            }
            _ => self.drop_landed(subject),
        }
    }

    /// The entry was not sent, through no fault of its own.
    pub(in super::super) fn returned(&mut self, subject: &Subject) {
        let Some(entry) = self.landed(subject) else { return };
        match (entry.revision, entry.failures) {
            (None, _) => self.drop_landed(subject),
            (_, 0) => {
                entry.place = Place::Fresh;
                self.fresh.push_front(subject.clone());
            }
            _ => self.place(subject, Place::Again),
        }
    }

    /// The entry failed: again after a pause.
    pub(in super::super) fn failed(&mut self, subject: &Subject, now: Instant) {
        let pauses = self.pauses;
        let Some(entry) = self.landed(subject) else { return };
        if entry.revision.is_none() {
            self.drop_landed(subject);
            return;
        }
        let due = now + pauses.after(entry.failures);
        entry.failures += 1;
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

    fn place(&mut self, subject: &Subject, place: Place) {
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
    fn landed(&mut self, subject: &Subject) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(subject)?;
        let Place::UnderWay { retry } = entry.place else { return None };
        self.under_way -= 1;
        self.retrying -= usize::from(retry);
        Some(entry)
    }

    /// Forgets an entry that has just landed.
    fn drop_landed(&mut self, subject: &Subject) {
        if let Some(entry) = self.entries.remove(subject) {
            self.gone -= usize::from(entry.revision.is_none());
        }
    }

    fn forget(&mut self, subject: &Subject) {
        match self.entries.remove(subject).map(|entry| entry.place) {
            Some(Place::Fresh) => self.fresh.retain(|other| other != subject),
            Some(Place::Again) => self.again.retain(|other| other != subject),
            Some(Place::Later(due)) => self.later.retain(|(at, other)| *at != due || other != subject),
            Some(Place::UnderWay { .. }) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn subjects(retries: usize) -> Subjects {
        Subjects::new(retries, Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(60) })
    }

    fn subject(text: &str) -> Subject {
        Subject::new(text).unwrap()
    }

    fn taken(subjects: &mut Subjects, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| subjects.take(now)).map(|(subject, _)| subject.to_string()).collect()
    }

    #[test]
    fn an_entry_that_was_replaced_under_way_is_sent_again() {
        let now = Instant::now();
        let mut subjects = subjects(8);
        subjects.put(&subject("a"), Revision(1));
        let (subject, revision) = subjects.take(now).unwrap();
        subjects.put(&subject, Revision(2));
        assert!(subjects.take(now).is_none(), "one at a time per subject");
        subjects.settled(&subject, revision);
        assert_eq!(subjects.take(now).unwrap().1, Revision(2));
        subjects.settled(&subject, Revision(2));
        assert_eq!((subjects.len(), subjects.take(now)), (0, None));
    }

    #[test]
    fn what_always_fails_leaves_room_for_the_rest() {
        let start = Instant::now();
        let mut subjects = subjects(2);
        (0..10).for_each(|count| subjects.put(&subject(&format!("dead-{count}")), Revision(count + 1)));
        let mut now = start;
        for name in taken(&mut subjects, now) {
            subjects.failed(&subject(&name), now);
        }
        now += Duration::from_secs(1);
        assert_eq!(taken(&mut subjects, now).len(), 2, "as many as may be tried again");
        subjects.put(&subject("live"), Revision(20));
        assert_eq!(taken(&mut subjects, now), ["live"]);
        subjects.restart();
        assert_eq!(taken(&mut subjects, now).len(), 8, "after a restart all are fresh again");
    }

    #[test]
    fn a_removed_entry_is_nowhere() {
        let now = Instant::now();
        let mut subjects = subjects(8);
        for name in ["waiting", "under-way", "failed"] {
            subjects.put(&subject(name), Revision(1));
        }
        let all: Vec<_> = taken(&mut subjects, now).iter().map(|name| subject(name)).collect();
        subjects.failed(&all[2], now);
        subjects.returned(&all[0]);
        subjects.retain(&[]);
        assert_eq!(subjects.len(), 0);
        assert_eq!((subjects.take(now), subjects.next_due()), (None, None));
        subjects.failed(&all[1], now);
        assert_eq!((subjects.next_due(), subjects.len()), (None, 0), "a removed entry is not tried again");
        subjects.put(&subject("under-way"), Revision(2));
        assert_eq!((taken(&mut subjects, now), subjects.len()), (vec!["under-way".to_owned()], 1));
        subjects.remove(&subject("under-way"));
        subjects.put(&subject("under-way"), Revision(3));
        subjects.settled(&subject("under-way"), Revision(2));
        assert_eq!(subjects.len(), 1, "it came back while it was under way");
    }
}
