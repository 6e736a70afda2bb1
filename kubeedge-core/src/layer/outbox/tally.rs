//! What is in the outbox, without its messages: decides what a commit may add, and learns from its outcome.

use std::collections::BTreeMap;

use crate::{
    meta::{MetaWrite, Precondition, Record, Revision},
    outbox::{Entry, OutboxLimit, OutboxLimits, Sequence, Stream, StreamLimit},
};

/// What is known of an entry. It is forgotten when the entry is not there and no commit is under way that touches it.
#[derive(Debug, Default)]
struct Slot {
    /// Size of the record, if it is there.
    size: Option<usize>,
    /// The newest commit that is known to have touched it.
    revision: Revision,
    /// Commits under way that touch it.
    touching: usize,
    /// Those that put it, and how much.
    putting: usize,
    bytes: usize,
    /// An append under way makes room with it. Appends go one at a time.
    leaving: bool,
}

impl Slot {
    fn is_taken(&self) -> bool {
        self.putting > 0 || (self.size.is_some() && !self.leaving)
    }

    /// The most that it may take once all that is under way has ended.
    fn taken(&self) -> usize {
        self.bytes + if self.leaving { 0 } else { self.size.unwrap_or_default() }
    }
}

/// Sums over slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Sum {
    fn exceeds(self, limit: StreamLimit, entry: usize) -> bool {
        self.entries + 1 > limit.entries || self.bytes + entry > limit.bytes
    }
}

#[derive(Debug, Default)]
struct Lane {
    sum: Sum,
    /// The number of the newest entry ever seen.
    last: u64,
    /// It has dropped entries and was not yet half empty again.
    dropping: bool,
}

/// A commit that may be made.
#[derive(Debug)]
pub(super) struct Plan {
    /// What to write, with numbers for the entries of streams and deletions of what makes room for them.
    pub(super) writes: Vec<MetaWrite>,
    touched: Vec<Touched>,
}

#[derive(Debug)]
struct Touched {
    entry: Entry,
    /// Size of what is put; `None` for a deletion.
    put: Option<usize>,
    /// It makes room.
    leaving: bool,
}

/// What a commit dropped from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) stream: Stream,
    pub(super) entries: u64,
    /// The first since the stream was half empty.
    pub(super) is_news: bool,
}

#[derive(Debug)]
pub(super) struct Tally {
    limits: OutboxLimits,
    slots: BTreeMap<Entry, Slot>,
    state: Sum,
    lanes: BTreeMap<Stream, Lane>,
    known: bool,
}

pub(super) fn size_of(record: &Record) -> usize {
    record.key.namespace.len() + record.key.name.len() + record.value.len()
}

impl Tally {
    pub(super) fn new(limits: OutboxLimits) -> Self {
        let (slots, lanes) = (BTreeMap::new(), BTreeMap::new());
        Self { limits, slots, state: Sum::default(), lanes, known: false }
    }

    /// Whether it knows what is in the store. If not, nothing may be planned before [`Self::load`].
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Takes over all records of the outbox. Nothing may be under way.
    pub(super) fn load(&mut self, records: &[Record]) {
        self.slots.clear();
        self.state = Sum::default();
        // Numbers are not used again, even if what had them is gone.
        self.lanes.values_mut().for_each(|lane| lane.sum = Sum::default());
        for record in records {
            let Some(entry) = Entry::of(&record.key) else { continue };
            if let Entry::Stream(stream, sequence) = &entry
                && *sequence < Sequence::NEXT_IF_ROOM
            {
                let lane = self.lanes.entry(stream.clone()).or_default();
                lane.last = lane.last.max(sequence.0);
            }
            self.change(&entry, |slot| (slot.size, slot.revision) = (Some(size_of(record)), record.revision));
        }
        self.known = true;
    }

    /// Reserves room for a commit; [`Self::done`], [`Self::undone`] or [`Self::doubt`] must follow.
    pub(super) fn plan(&mut self, writes: Vec<MetaWrite>) -> Result<Plan, OutboxLimit> {
        let mut plan = Plan { writes: Vec::with_capacity(writes.len()), touched: Vec::new() };
        for write in writes {
            if let Err(limit) = self.add(&mut plan, write) {
                self.undone(plan);
                return Err(limit);
            }
        }
        Ok(plan)
    }

    fn add(&mut self, plan: &mut Plan, write: MetaWrite) -> Result<(), OutboxLimit> {
        let Some(entry) = Entry::of(write.key()) else {
            plan.writes.push(write);
            return Ok(());
        };
        match write {
            MetaWrite::Put(mut record, only_if) => {
                let size = size_of(&record);
                let entry = match entry {
                    Entry::State(_) => {
                        self.admit_state(&entry, size)?;
                        entry
                    }
                    Entry::Stream(stream, sequence) => {
                        let sequence = self.admit_stream(plan, &stream, sequence, size)?;
                        // In place of the key that asked for it.
                        let entry = Entry::Stream(stream, sequence);
                        record.key = entry.key();
                        entry
                    }
                };
                self.reserve(plan, entry, Some(size), false);
                plan.writes.push(MetaWrite::Put(record, only_if));
            }
            MetaWrite::Delete(..) => {
                self.reserve(plan, entry, None, false);
                plan.writes.push(write);
            }
        }
        Ok(())
    }

    fn admit_state(&self, entry: &Entry, size: usize) -> Result<(), OutboxLimit> {
        let limit = self.limits.state;
        if self.slots.get(entry).is_some_and(Slot::is_taken) {
            return Ok(());
        }
        if self.state.entries >= limit.entries {
            return Err(OutboxLimit::Subjects(limit.entries));
        }
        if self.state.bytes + size > limit.bytes {
            return Err(OutboxLimit::StateBytes(limit.bytes));
        }
        Ok(())
    }

    /// Makes room in a stream, and tells the number of the entry.
    fn admit_stream(
        &mut self,
        plan: &mut Plan,
        stream: &Stream,
        asked: Sequence,
        size: usize,
    ) -> Result<Sequence, OutboxLimit> {
        let limit = self.limits.of(stream);
        let too_large = || OutboxLimit::Bytes { stream: stream.clone(), bytes: limit.bytes };
        if size > limit.bytes {
            return Err(too_large());
        }
        if !self.lanes.contains_key(stream) {
            if self.lanes.len() >= self.limits.streams {
                return Err(OutboxLimit::Streams(self.limits.streams));
            }
            self.lanes.insert(stream.clone(), Lane::default());
        }
        if asked < Sequence::NEXT_IF_ROOM
            && self.slots.get(&Entry::Stream(stream.clone(), asked)).is_some_and(Slot::is_taken)
        {
            return Ok(asked);
        }
        while self.sum(stream).exceeds(limit, size) {
            let oldest = (asked == Sequence::NEXT).then(|| self.oldest(plan, stream)).flatten();
            let Some(oldest) = oldest else {
                let full = OutboxLimit::Entries { stream: stream.clone(), entries: limit.entries };
                return Err(if self.sum(stream).entries >= limit.entries { full } else { too_large() });
            };
            plan.writes.push(MetaWrite::Delete(oldest.key(), Precondition::Always));
            self.reserve(plan, oldest, None, true);
        }
        let Some(lane) = self.lanes.get_mut(stream) else { return Err(OutboxLimit::Streams(self.limits.streams)) };
        let sequence = if asked < Sequence::NEXT_IF_ROOM { asked } else { Sequence(lane.last.saturating_add(1)) };
        lane.last = lane.last.max(sequence.0);
        Ok(sequence)
    }

    /// The oldest entry that is there and stays so far. The search goes on behind the one that `plan` found last.
    fn oldest(&self, plan: &Plan, stream: &Stream) -> Option<Entry> {
        let last = plan.touched.iter().rev().find_map(|touched| match &touched.entry {
            Entry::Stream(of, sequence) if touched.leaving && of == stream => Some(*sequence),
            _ => None,
        });
        let from = Entry::Stream(stream.clone(), last.unwrap_or(Sequence(0)));
        let to = Entry::Stream(stream.clone(), Sequence(u64::MAX));
        self.slots
            .range(from..=to)
            .find(|(_, slot)| slot.size.is_some() && !slot.leaving)
            .map(|(entry, _)| entry.clone())
    }

    fn sum(&self, stream: &Stream) -> Sum {
        self.lanes.get(stream).map(|lane| lane.sum).unwrap_or_default()
    }

    fn reserve(&mut self, plan: &mut Plan, entry: Entry, put: Option<usize>, leaving: bool) {
        self.change(&entry, |slot| {
            slot.touching += 1;
            slot.putting += usize::from(put.is_some());
            slot.bytes += put.unwrap_or_default();
            slot.leaving |= leaving;
        });
        plan.touched.push(Touched { entry, put, leaving });
    }

    /// Ends what was reserved for one write.
    fn release(&mut self, touched: &Touched, then: impl FnOnce(&mut Slot)) {
        self.change(&touched.entry, |slot| {
            slot.touching -= 1;
            slot.putting -= usize::from(touched.put.is_some());
            slot.bytes -= touched.put.unwrap_or_default();
            slot.leaving &= !touched.leaving;
            then(slot);
        });
    }

    /// The commit was done. Outcomes may come in any order: the newest commit of an entry decides.
    pub(super) fn done(&mut self, plan: Plan, revision: Revision) -> Vec<Dropped> {
        let mut dropped: Vec<Dropped> = Vec::new();
        for touched in plan.touched {
            let mut was_there = false;
            self.release(&touched, |slot| {
                was_there = slot.size.is_some();
                if revision >= slot.revision {
                    (slot.size, slot.revision) = (touched.put, revision);
                }
            });
            let Entry::Stream(stream, _) = touched.entry else { continue };
            if !(touched.leaving && was_there) {
                continue;
            }
            match dropped.iter_mut().find(|known| known.stream == stream) {
                Some(known) => known.entries += 1,
                None => dropped.push(Dropped { stream, entries: 1, is_news: false }),
            }
        }
        for dropped in &mut dropped {
            if let Some(lane) = self.lanes.get_mut(&dropped.stream) {
                dropped.is_news = !std::mem::replace(&mut lane.dropping, true);
            }
        }
        dropped
    }

    /// The commit changed nothing.
    pub(super) fn undone(&mut self, plan: Plan) {
        for touched in plan.touched {
            self.release(&touched, |_| {});
        }
    }

    /// Nobody knows whether the commit was done.
    pub(super) fn doubt(&mut self, plan: Plan) {
        self.undone(plan);
        self.known = false;
    }

    /// Sums of state and of each stream that is not empty, and how many entries are known.
    #[cfg(test)]
    pub(super) fn sums(&self) -> (Sum, Vec<(Stream, Sum)>, usize) {
        let lanes = self.lanes.iter().filter(|(_, lane)| lane.sum != Sum::default());
        (self.state, lanes.map(|(stream, lane)| (stream.clone(), lane.sum)).collect(), self.slots.len())
    }

    fn change(&mut self, entry: &Entry, change: impl FnOnce(&mut Slot)) {
        let slot = self.slots.entry(entry.clone()).or_default();
        let before = (usize::from(slot.is_taken()), slot.taken());
        change(slot);
        let after = (usize::from(slot.is_taken()), slot.taken());
        if slot.size.is_none() && slot.touching == 0 {
            self.slots.remove(entry);
        }
        let sum = match entry {
            Entry::State(_) => &mut self.state,
            Entry::Stream(stream, _) => &mut self.lanes.entry(stream.clone()).or_default().sum,
        };
        sum.entries = sum.entries + after.0 - before.0;
        sum.bytes = sum.bytes + after.1 - before.1;
        if let Entry::Stream(stream, _) = entry
            && after.0 < before.0
        {
            let limit = self.limits.of(stream);
            if let Some(lane) = self.lanes.get_mut(stream)
                && lane.sum.entries <= limit.entries / 2
                && lane.sum.bytes <= limit.bytes / 2
            {
                lane.dropping = false;
            }
        }
    }
}
