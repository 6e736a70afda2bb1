use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kubeedge_core::outbox::{Sequence, Stream};
use tokio::time::Instant;

use super::Pauses;

/// Entries of a stream that are sent one after the other before they are settled together.
const WINDOW: usize = 16;

/// Streams and the numbers of their entries. Of each stream one window is under way at a time, so its order is kept.
pub(in super::super) struct Lanes {
    all: BTreeMap<Stream, Lane>,
    /// Those to be served, in turn.
    ready: VecDeque<Stream>,
    under_way: usize,
    pauses: Pauses,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeSet<Sequence>,
    failures: u32,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Idle,
    Ready,
    Later(Instant),
    UnderWay,
}

impl Lanes {
    pub(super) fn new(pauses: Pauses) -> Self {
        Self { all: BTreeMap::new(), ready: VecDeque::new(), under_way: 0, pauses }
    }

    /// How many entries there are.
    pub(in super::super) fn len(&self) -> usize {
        self.all.values().map(|lane| lane.waiting.len()).sum()
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn put(&mut self, stream: &Stream, sequence: Sequence) {
        let lane = self.all.entry(stream.clone()).or_default();
        lane.waiting.insert(sequence);
        if lane.place == Place::Idle {
            lane.place = Place::Ready;
            self.ready.push_back(stream.clone());
        }
    }

    pub(super) fn remove(&mut self, stream: &Stream, sequence: Sequence) {
        if let Some(lane) = self.all.get_mut(stream) {
            lane.waiting.remove(&sequence);
        }
    }

    /// Forgets all entries, but not what is under way or paused.
    pub(super) fn clear(&mut self) {
        self.all.values_mut().for_each(|lane| lane.waiting.clear());
    }

    /// The next entries of the stream whose turn it is.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Stream, Vec<Sequence>)> {
        for (stream, lane) in &mut self.all {
            if matches!(lane.place, Place::Later(due) if due <= now) {
                lane.place = Place::Ready;
                self.ready.push_back(stream.clone());
            }
        }
        while let Some(stream) = self.ready.pop_front() {
            let Some(lane) = self.all.get_mut(&stream) else { continue };
            if lane.waiting.is_empty() {
                lane.place = Place::Idle;
                continue;
            }
            lane.place = Place::UnderWay;
            self.under_way += 1;
            return Some((stream, lane.waiting.iter().take(WINDOW).copied().collect()));
        }
        None
    }

    /// When the next stream that failed is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |lane: &Lane| if let Place::Later(due) = lane.place { Some(due) } else { None };
        self.all.values().filter_map(due).min()
    }

    /// A window has landed: `gone` is settled, and with the rest nothing went wrong.
    pub(in super::super) fn landed(&mut self, stream: &Stream, gone: &[Sequence]) {
        self.land(stream, gone, |lane, _| {
            lane.failures = 0;
            Place::Ready
        });
    }

    /// There was no link for what is not in `gone`.
    pub(in super::super) fn returned(&mut self, stream: &Stream, gone: &[Sequence]) {
        self.land(stream, gone, |_, _| Place::Ready);
    }

    /// The first entry that is not in `gone` failed: again after a pause, and nothing of the stream before it.
    pub(in super::super) fn failed(&mut self, stream: &Stream, gone: &[Sequence], now: Instant) {
        self.land(stream, gone, |lane, pauses| {
            if !gone.is_empty() {
                lane.failures = 0;
            }
            lane.failures += 1;
            Place::Later(now + pauses.after(lane.failures - 1))
        });
    }

    fn land(&mut self, stream: &Stream, gone: &[Sequence], place: impl FnOnce(&mut Lane, Pauses) -> Place) {
        let Some(lane) = self.all.get_mut(stream).filter(|lane| lane.place == Place::UnderWay) else { return };
        self.under_way -= 1;
        for sequence in gone {
            lane.waiting.remove(sequence);
        }
        lane.place = place(lane, self.pauses);
        if lane.place == Place::Ready {
            self.ready.push_back(stream.clone());
        }
    }

    pub(super) fn restart(&mut self) {
        for (stream, lane) in &mut self.all {
            lane.failures = 0;
            if matches!(lane.place, Place::Later(_)) {
                lane.place = Place::Ready;
                self.ready.push_back(stream.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    const PAUSES: Pauses = Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

    fn stream(name: &str) -> Stream {
        Stream::new(name).unwrap()
    }

    fn sequences(numbers: impl IntoIterator<Item = u64>) -> Vec<Sequence> {
        numbers.into_iter().map(Sequence).collect()
    }

    #[test]
    fn a_stream_goes_in_order_one_window_at_a_time_and_streams_take_turns() {
        let now = Instant::now();
        let mut lanes = Lanes::new(PAUSES);
        for number in (1..=40).rev() {
            lanes.put(&stream("a"), Sequence(number));
        }
        lanes.put(&stream("b"), Sequence(7));
        assert_eq!(lanes.take(now), Some((stream("a"), sequences(1..=16))));
        assert_eq!(lanes.take(now), Some((stream("b"), sequences([7]))));
        assert_eq!(lanes.take(now), None, "one window at a time");
        lanes.landed(&stream("b"), &sequences([7]));
        lanes.remove(&stream("b"), Sequence(7));
        lanes.landed(&stream("a"), &sequences(1..=16));
        assert_eq!(lanes.take(now), Some((stream("a"), sequences(17..=32))));
        assert_eq!((lanes.len(), lanes.take(now)), (24, None), "b is empty");
        lanes.put(&stream("b"), Sequence(8));
        assert_eq!(lanes.take(now), Some((stream("b"), sequences([8]))));
    }

    #[test]
    fn a_failure_holds_up_its_stream_until_a_pause_is_over_or_there_is_a_new_link() {
        let now = Instant::now();
        let mut lanes = Lanes::new(PAUSES);
        for number in 1..=3 {
            lanes.put(&stream("a"), Sequence(number));
        }
        lanes.take(now);
        lanes.failed(&stream("a"), &sequences([1]), now);
        assert_eq!(lanes.take(now), None);
        let due = lanes.next_due().unwrap();
        assert!(due >= now + PAUSES.first / 2 && due <= now + PAUSES.first);
        assert_eq!(lanes.take(due), Some((stream("a"), sequences([2, 3]))));
        lanes.failed(&stream("a"), &[], now);
        lanes.restart();
        // What makes room may be the very entry that is under way.
        assert_eq!(lanes.take(now), Some((stream("a"), sequences([2, 3]))));
        lanes.remove(&stream("a"), Sequence(2));
        lanes.returned(&stream("a"), &[]);
        assert_eq!(lanes.take(now), Some((stream("a"), sequences([3]))));
    }
}
