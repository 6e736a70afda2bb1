//! The bounded queue between those who publish and one subscriber.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::stream;
use kubeedge_core::{
    bus::{BusEvent, Event, Overflow, Qos},
    service::Subscription,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// What happens to an event for which there is no room.
#[derive(Clone, Copy, Debug)]
pub(super) enum Policy {
    /// Its publisher waits.
    Hold,
    /// Its publisher waits, but not longer than this in all between two moments at which the queue was empty. After
    /// that QoS 0 is dropped, and an event that must arrive ends the queue: its reader must not believe to have all.
    #[cfg_attr(not(feature = "broker"), allow(dead_code, reason = "only remote clients are cut off"))]
    HoldFor(Duration),
    /// The oldest goes, and is counted.
    DropOldest,
    /// It replaces an event of its topic; if there is none, the oldest goes and is counted.
    KeepLatest,
}

impl From<Overflow> for Policy {
    fn from(overflow: Overflow) -> Self {
        match overflow {
            Overflow::DropOldest => Self::DropOldest,
            Overflow::KeepLatest => Self::KeepLatest,
            // What a later version adds must not lose events here.
            _ => Self::Hold,
        }
    }
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// `None` marks a reconnect.
    event: Option<Event>,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Entry>,
    numbered: u64,
    lagged: u64,
    closed: bool,
    abandoned: bool,
    /// What is left of [`Policy::HoldFor`], and since when it is being used.
    credit: Duration,
    holding_since: Option<Instant>,
}

/// A queue with one reader. Events beyond the capacity are those whose publishers are held.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    policy: Policy,
    state: Mutex<State>,
    filled: Notify,
    drained: Notify,
}

impl Queue {
    pub(super) fn new(capacity: usize, policy: Policy) -> Arc<Self> {
        let state = State {
            waiting: VecDeque::new(),
            numbered: 0,
            lagged: 0,
            closed: false,
            abandoned: false,
            credit: patience(policy),
            holding_since: None,
        };
        let (filled, drained) = (Notify::new(), Notify::new());
        Arc::new(Self { capacity: capacity.max(1), policy, state: Mutex::new(state), filled, drained })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, state: &mut State, event: Option<Event>) -> u64 {
        state.numbered += 1;
        state.waiting.push_back(Entry { number: state.numbered, event });
        self.filled.notify_one();
        state.numbered
    }

    /// Puts `event` in, in order. If the publisher has to wait for room, it gets a [`Hold`] to do so.
    pub(super) fn offer(self: &Arc<Self>, event: Event) -> Option<Hold> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        if matches!(self.policy, Policy::KeepLatest) {
            let same = |entry: &&mut Entry| entry.event.as_ref().is_some_and(|waiting| waiting.topic == event.topic);
            if let Some(entry) = state.waiting.iter_mut().find(same) {
                entry.event = Some(event);
                return None;
            }
        }
        if state.waiting.len() < self.capacity {
            self.push(&mut state, Some(event));
            return None;
        }
        match self.policy {
            Policy::Hold => {}
            Policy::HoldFor(_) if self.patience_ends(&state).is_none_or(|end| Instant::now() < end) => {
                state.holding_since.get_or_insert_with(Instant::now);
            }
            Policy::HoldFor(_) if event.qos == Qos::AtMostOnce => return None,
            Policy::HoldFor(_) => {
                self.end(&mut state);
                return None;
            }
            Policy::DropOldest | Policy::KeepLatest => {
                state.drop_oldest();
                self.push(&mut state, Some(event));
                return None;
            }
        }
        let number = self.push(&mut state, Some(event));
        Some(Hold { queue: Arc::clone(self), number })
    }

    /// Puts in a retained event, on top of the capacity but for no more than `extra`: a reader that asks for all of them
    /// again and again and takes none is cut off.
    #[cfg(feature = "broker")]
    pub(super) fn preload(&self, event: Event, extra: usize) {
        let mut state = self.state();
        if state.waiting.len() >= self.capacity.saturating_add(extra) {
            self.end(&mut state);
        }
        if !state.closed {
            self.push(&mut state, Some(event));
        }
    }

    /// Tells the reader that the connection to the broker was lost and is back.
    pub(super) fn resync(&self) {
        let mut state = self.state();
        if !state.closed {
            // One marker is enough for any number of reconnects that nobody has read of.
            state.waiting.retain(|entry| entry.event.is_some());
            self.push(&mut state, None);
        }
    }

    /// The next item; `None` when the queue is closed and read to its end.
    ///
    /// # Cancel safety
    /// No item is lost.
    pub(super) async fn next(&self) -> Option<BusEvent> {
        loop {
            {
                let mut state = self.state();
                if let Some(item) = self.pop(&mut state) {
                    return Some(item);
                }
                if state.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Waits until the queue is closed, for a reader that may not take items at present.
    #[cfg(feature = "broker")]
    pub(super) async fn ended(&self) {
        while !self.state().closed {
            self.filled.notified().await;
        }
    }

    fn pop(&self, state: &mut State) -> Option<BusEvent> {
        if state.lagged > 0 {
            return Some(BusEvent::Lagged(std::mem::take(&mut state.lagged)));
        }
        let entry = state.waiting.pop_front()?;
        self.settle(state);
        Some(entry.event.map_or(BusEvent::Resynced, BusEvent::Message))
    }

    /// After entries have gone: lets go those publishers whose events have come inside.
    fn settle(&self, state: &mut State) {
        if state.waiting.len() <= self.capacity
            && let Some(since) = state.holding_since.take()
        {
            state.credit = state.credit.saturating_sub(since.elapsed());
        }
        if state.waiting.is_empty() {
            state.credit = patience(self.policy);
        }
        self.drained.notify_waiters();
    }

    fn patience_ends(&self, state: &State) -> Option<Instant> {
        matches!(self.policy, Policy::HoldFor(_))
            .then(|| state.holding_since.unwrap_or_else(Instant::now) + state.credit)
    }

    fn end(&self, state: &mut State) {
        state.closed = true;
        state.waiting.clear();
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// Takes no more events; the reader gets what waits, then the end. Publishers are let go.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// The reader has gone.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.abandoned = true;
        self.end(&mut state);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.state().abandoned
    }
}

fn patience(policy: Policy) -> Duration {
    match policy {
        Policy::HoldFor(patience) => patience,
        _ => Duration::ZERO,
    }
}

impl State {
    fn drop_oldest(&mut self) {
        // A marker of a reconnect is no event: it stays, and is one at most.
        if let Some(oldest) = self.waiting.iter().position(|entry| entry.event.is_some()) {
            self.waiting.remove(oldest);
            self.lagged += 1;
        }
    }
}

/// The wait of a publisher for room. Dropped before its end, it takes the event back.
#[derive(Debug)]
pub(super) struct Hold {
    queue: Arc<Queue>,
    number: u64,
}

impl Hold {
    fn position(&self, state: &State) -> Option<usize> {
        state.waiting.iter().position(|entry| entry.number == self.number)
    }

    /// Waits until the event is inside of the capacity, or its reader is gone or cut off.
    ///
    /// # Cancel safety
    /// May be called again.
    pub(super) async fn admitted(&mut self) {
        loop {
            let mut drained = pin!(self.queue.drained.notified());
            drained.as_mut().enable();
            let deadline = {
                let state = self.queue.state();
                if state.closed || self.position(&state).is_none_or(|position| position < self.queue.capacity) {
                    return;
                }
                self.queue.patience_ends(&state)
            };
            let Some(deadline) = deadline else {
                drained.await;
                continue;
            };
            tokio::select! {
                () = drained => {}
                () = sleep_until(deadline) => self.give_up(),
            }
        }
    }

    fn give_up(&self) {
        let mut state = self.queue.state();
        if self.queue.patience_ends(&state).is_some_and(|end| Instant::now() < end) {
            return;
        }
        match self.position(&state) {
            Some(position) if state.waiting[position].event.as_ref().is_some_and(|e| e.qos == Qos::AtMostOnce) => {
                state.waiting.remove(position);
                self.queue.settle(&mut state);
            }
            Some(_) => self.queue.end(&mut state),
            None => {}
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        if let Some(position) = self.position(&state)
            && position >= self.queue.capacity
        {
            state.waiting.remove(position);
            self.queue.settle(&mut state);
        }
    }
}

/// The waits of a publisher for all subscribers without room.
#[derive(Debug, Default)]
pub(super) struct Holds(Vec<Hold>);

impl Holds {
    pub(super) fn push(&mut self, hold: Hold) {
        self.0.push(hold);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for all of them.
    ///
    /// # Cancel safety
    /// May be called again.
    pub(super) async fn admitted(&mut self) {
        while let Some(hold) = self.0.last_mut() {
            hold.admitted().await;
            self.0.pop();
        }
    }
}

/// The reading end; tells its source when it is dropped.
struct Reader<F: FnOnce()> {
    queue: Arc<Queue>,
    left: Option<F>,
}

impl<F: FnOnce()> Drop for Reader<F> {
    fn drop(&mut self) {
        self.queue.abandon();
        if let Some(left) = self.left.take() {
            left();
        }
    }
}

/// The subscription that reads `queue`, and calls `left` when it is dropped.
pub(super) fn subscription(queue: Arc<Queue>, left: impl FnOnce() + Send + 'static) -> Subscription<BusEvent> {
    let reader = Reader { queue, left: Some(left) };
    let items = stream::unfold(reader, |reader| async move { reader.queue.next().await.map(|item| (item, reader)) });
    Subscription::new(items, CancellationToken::new())
}

#[cfg(test)]
mod tests;
