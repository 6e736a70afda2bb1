//! Who may come in, before anybody has proven who they are.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Shares a bounded number of places among the sources of connections.
///
/// A source is an IPv4 address, or a /64 network of IPv6. One source may have all the places as long as nobody else wants
/// any. When all are taken and a source comes that has at least two less than the greediest one, the oldest connection of
/// that one is cut. Otherwise the newcomer waits, without anything having been done for it but accepting it; the next
/// place goes to the waiting source that has the fewest. When too many wait, one of the source with the most is cut.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    queue: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By number, so oldest first.
    inside: BTreeMap<u64, (Source, CancellationToken)>,
    counts: HashMap<Source, usize>,
    /// By source, oldest first, with their numbers; never empty.
    waiting: HashMap<Source, VecDeque<(u64, oneshot::Sender<Place>)>>,
    queued: usize,
    next: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Self(Ipv6Addr::from(network).into())
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

/// A place; dropping it leaves.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    cut: CancellationToken,
}

impl Place {
    /// Cancelled when somebody else needs the place more: then the connection has to be dropped.
    pub(super) fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.leave(self.number);
    }
}

/// What a newcomer gets.
#[derive(Debug)]
pub(super) enum Entry {
    /// In.
    Place(Place),
    /// Not yet: the sender is dropped if it never will be.
    Wait(oneshot::Receiver<Place>),
    /// Neither.
    Full,
}

impl Entry {
    /// The place, if there will be one.
    pub(super) async fn place(self) -> Option<Place> {
        match self {
            Self::Place(place) => Some(place),
            Self::Wait(place) => place.await.ok(),
            Self::Full => None,
        }
    }
}

impl Places {
    /// `places` connections are in at a time, and `queue` wait.
    pub(super) fn new(places: usize, queue: usize) -> Arc<Self> {
        Arc::new(Self { limit: places, queue, state: Mutex::default() })
    }

    /// Asks for a place for a connection from `address`.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Entry {
        let source = Source::of(address);
        let mut state = self.state();
        if state.inside.len() < self.limit || state.make_room(source) {
            return Entry::Place(self.admit(&mut state, source));
        }
        if state.queued >= self.queue && !state.thin_out(source) {
            return Entry::Full;
        }
        let ((sender, receiver), number) = (oneshot::channel(), state.number());
        state.waiting.entry(source).or_default().push_back((number, sender));
        state.queued += 1;
        Entry::Wait(receiver)
    }

    fn admit(self: &Arc<Self>, state: &mut State, source: Source) -> Place {
        let (number, cut) = (state.number(), CancellationToken::new());
        state.inside.insert(number, (source, cut.clone()));
        *state.counts.entry(source).or_default() += 1;
        Place { places: self.clone(), number, cut }
    }

    fn leave(self: &Arc<Self>, number: u64) {
        let mut unwanted = Vec::new();
        let mut state = self.state();
        state.remove(number);
        while state.inside.len() < self.limit {
            let Some((source, waiting)) = state.next_waiting() else { break };
            let place = self.admit(&mut state, source);
            if let Err(place) = waiting.send(place) {
                state.remove(place.number);
                unwanted.push(place);
            }
        }
        // They would lock the state when they are dropped.
        drop(state);
        drop(unwanted);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn count(&self, source: Source) -> usize {
        self.counts.get(&source).copied().unwrap_or(0)
    }

    fn remove(&mut self, number: u64) -> Option<CancellationToken> {
        let (source, cut) = self.inside.remove(&number)?;
        if let Some(count) = self.counts.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&source);
            }
        }
        Some(cut)
    }

    /// Cuts a connection of the greediest source, if that leaves it no worse off than `source`.
    fn make_room(&mut self, source: Source) -> bool {
        let greediest = self.counts.iter().max_by_key(|(_, count)| **count).map(|(source, count)| (*source, *count));
        let Some((greedy, _)) = greediest.filter(|(_, count)| *count >= self.count(source) + 2) else { return false };
        let oldest = self.inside.iter().find(|(_, (of, _))| *of == greedy).map(|(number, _)| *number);
        let cut = oldest.and_then(|number| self.remove(number));
        cut.as_ref().inspect(|cut| cut.cancel()).is_some()
    }

    /// Makes room in the queue by one of the source that has the most there: one that has given up, or its oldest, unless
    /// `source` has as many.
    fn thin_out(&mut self, source: Source) -> bool {
        let most = self.waiting.iter().max_by_key(|(_, queue)| queue.len());
        let Some((greedy, oldest, most)) = most.and_then(|(of, queue)| Some((*of, queue.front()?, queue.len()))) else {
            return false;
        };
        let own = self.waiting.get(&source).map_or(0, VecDeque::len);
        (oldest.1.is_closed() || most >= own + 2) && self.take_waiting(greedy).is_some()
    }

    /// The one that waits longest of the source that has the fewest places.
    fn next_waiting(&mut self) -> Option<(Source, oneshot::Sender<Place>)> {
        let oldest = |queue: &VecDeque<(u64, _)>| queue.front().map(|(number, _)| *number);
        let (source, _) = self.waiting.iter().min_by_key(|(source, queue)| (self.count(**source), oldest(queue)))?;
        let source = *source;
        self.take_waiting(source).map(|waiting| (source, waiting))
    }

    fn take_waiting(&mut self, source: Source) -> Option<oneshot::Sender<Place>> {
        let queue = self.waiting.get_mut(&source)?;
        let (_, waiting) = queue.pop_front()?;
        self.queued -= 1;
        if queue.is_empty() {
            self.waiting.remove(&source);
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn placed(entry: Entry) -> Place {
        match entry {
            Entry::Place(place) => place,
            other => panic!("no place: {other:?}"),
        }
    }

    fn waits(entry: Entry) -> oneshot::Receiver<Place> {
        match entry {
            Entry::Wait(receiver) => receiver,
            other => panic!("does not wait: {other:?}"),
        }
    }

    #[test]
    fn one_source_may_have_all_until_another_comes() {
        let places = Places::new(4, 4);
        let greedy: Vec<_> = (0..4).map(|_| placed(places.enter(address(1)))).collect();
        let mut waiting = waits(places.enter(address(1)));
        let cut = |greedy: &[Place]| greedy.iter().map(|place| place.cut().is_cancelled()).collect::<Vec<_>>();
        let modest = [placed(places.enter(address(2))), placed(places.enter(address(2)))];
        assert_eq!(cut(&greedy), [true, true, false, false], "the oldest go first");
        // Now both have the same.
        let mut second = waits(places.enter(address(2)));
        let [one, other] = modest;
        drop(one);
        assert!(waiting.try_recv().is_err(), "the one with fewer goes before the one that came first");
        let second = second.try_recv().unwrap();
        drop(other);
        let first = waiting.try_recv().unwrap();
        drop((first, second, greedy));
        assert!(places.state().inside.is_empty() && places.state().counts.is_empty());
    }

    #[test]
    fn the_queue_is_bounded_and_fair() {
        let places = Places::new(1, 3);
        let inside = placed(places.enter(address(1)));
        let mut greedy: Vec<_> = (0..3).map(|_| waits(places.enter(address(1)))).collect();
        assert!(matches!(places.enter(address(1)), Entry::Full));
        let mut modest = waits(places.enter(address(2)));
        assert!(matches!(greedy[0].try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        drop(inside);
        let inside = modest.try_recv().unwrap_or_else(|_| greedy[1].try_recv().unwrap());
        // Whoever has given up is not let in.
        greedy.clear();
        drop(modest);
        let mut last = waits(places.enter(address(3)));
        drop(inside);
        assert!(last.try_recv().is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let six = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(six("2001:db8::1"), six("2001:db8::ffff:1"));
        assert_ne!(six("2001:db8::1"), six("2001:db8:0:1::1"));
        assert_eq!(six("::ffff:192.0.2.1"), Source::of(address(1)));
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_places_and_nobody_is_forgotten(
            steps in prop::collection::vec((any::<bool>(), 0..5u8, any::<prop::sample::Index>()), 1..200),
        ) {
            let all = Places::new(6, 8);
            let (mut places, mut queue) = (Vec::new(), Vec::new());
            for (comes, from, index) in steps {
                if comes || places.is_empty() {
                    match all.enter(address(from)) {
                        Entry::Place(place) => places.push(place),
                        Entry::Wait(receiver) => queue.push(receiver),
                        Entry::Full => {}
                    }
                } else {
                    places.swap_remove(index.index(places.len()));
                }
                queue.retain_mut(|receiver| match receiver.try_recv() {
                    Ok(place) => {
                        places.push(place);
                        false
                    }
                    Err(err) => err == oneshot::error::TryRecvError::Empty,
                });
                let uncut = places.iter().filter(|place| !place.cut().is_cancelled()).count();
                let state = all.state();
                prop_assert_eq!(uncut, state.inside.len());
                prop_assert_eq!(uncut, state.counts.values().sum::<usize>());
                prop_assert!(uncut <= 6 && state.queued <= 8);
                prop_assert_eq!(state.queued, state.waiting.values().map(VecDeque::len).sum::<usize>());
                prop_assert!(state.waiting.is_empty() || uncut == 6, "a place is free and somebody waits");
            }
        }
    }
}
