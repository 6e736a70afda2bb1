//! A bounded queue in which each key has its own lane: one item of a key is under way at a time, in order, and a key
//! that is stuck holds up no other.

use std::collections::{BTreeSet, VecDeque};

/// See the module. Bounded by the number of waiting items and by their weight.
#[derive(Debug)]
pub(crate) struct Lanes<K, T> {
    waiting: VecDeque<(K, T, usize)>,
    busy: BTreeSet<K>,
    weight: usize,
    most_items: usize,
    most_weight: usize,
}

impl<K: Ord + Clone, T> Lanes<K, T> {
    /// Room for `most_items` (at least 1) that weigh no more than `most_weight` together.
    pub(crate) fn new(most_items: usize, most_weight: usize) -> Self {
        Self { waiting: VecDeque::new(), busy: BTreeSet::new(), weight: 0, most_items: most_items.max(1), most_weight }
    }

    /// Whether the next item fits without dropping one, however heavy it is.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < self.most_items && self.weight <= self.most_weight
    }

    /// Adds an item; the oldest ones go until there is room for it. Tells how many went.
    pub(crate) fn push(&mut self, key: K, item: T, weight: usize) -> u64 {
        let mut dropped = 0;
        while !self.waiting.is_empty()
            && (self.waiting.len() >= self.most_items || self.weight.saturating_add(weight) > self.most_weight)
        {
            if let Some((.., weight)) = self.waiting.pop_front() {
                self.weight -= weight;
            }
            dropped += 1;
        }
        self.weight += weight;
        self.waiting.push_back((key, item, weight));
        dropped
    }

    /// The oldest item whose key has nothing under way; its key is busy until [`Lanes::done`].
    pub(crate) fn take(&mut self) -> Option<(K, T)> {
        let next = self.waiting.iter().position(|(key, ..)| !self.busy.contains(key))?;
        let (key, item, weight) = self.waiting.remove(next)?;
        self.weight -= weight;
        self.busy.insert(key.clone());
        Some((key, item))
    }

    /// The item of `key` that was under way is finished.
    pub(crate) fn done(&mut self, key: &K) {
        self.busy.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_key_holds_up_only_itself() {
        let mut lanes = Lanes::new(8, usize::MAX);
        for (key, item) in [('a', 1), ('a', 2), ('b', 3)] {
            assert_eq!(lanes.push(key, item, 1), 0);
        }
        assert_eq!(lanes.take(), Some(('a', 1)));
        assert_eq!(lanes.take(), Some(('b', 3)));
        assert_eq!(lanes.take(), None);
        lanes.done(&'a');
        assert_eq!(lanes.take(), Some(('a', 2)));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_or_they_are_too_heavy() {
        let mut lanes = Lanes::new(2, 10);
        lanes.push('a', 1, 4);
        lanes.push('a', 2, 4);
        assert!(!lanes.has_room());
        assert_eq!(lanes.push('a', 3, 4), 1);
        assert_eq!(lanes.push('a', 4, 9), 2);
        // One that is heavier than all room together still gets through, alone.
        assert_eq!(lanes.push('a', 5, 99), 1);
        assert_eq!(lanes.take(), Some(('a', 5)));
    }
}
