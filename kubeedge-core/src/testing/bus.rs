use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{BusError, BusEvent, Event, EventBus, Overflow},
    service::Subscription,
    topic::{Topic, TopicFilter},
};

/// An event bus in memory, with bounded queues and retained events. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes publishers that wait for room.
    room: Notify,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    subscribers: Vec<Arc<Subscriber>>,
    retained: BTreeMap<Topic, Event>,
}

#[derive(Debug)]
struct Subscriber {
    filter: TopicFilter,
    overflow: Overflow,
    queue: Mutex<Queue>,
    arrived: Notify,
    gone: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    lagged: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subscriber {
    /// Takes `event`, or tells that there is no room.
    fn offer(&self, event: &Event, capacity: usize) -> bool {
        let mut queue = lock(&self.queue);
        if self.overflow == Overflow::KeepLatest
            && let Some(waiting) = queue.events.iter_mut().find(|waiting| waiting.topic == event.topic)
        {
            *waiting = event.clone();
        } else {
            if queue.events.len() >= capacity {
                if self.overflow == Overflow::HoldPublisher {
                    return false;
                }
                queue.events.pop_front();
                queue.lagged += 1;
            }
            queue.events.push_back(event.clone());
        }
        drop(queue);
        self.arrived.notify_one();
        true
    }

    fn take(&self) -> Option<BusEvent> {
        let mut queue = lock(&self.queue);
        match std::mem::take(&mut queue.lagged) {
            0 => queue.events.pop_front().map(BusEvent::Message),
            lagged => Some(BusEvent::Lagged(lagged)),
        }
    }
}

impl MemoryBus {
    /// A bus whose subscribers may fall behind by `capacity` events (at least 1).
    pub fn new(capacity: usize) -> Self {
        let shared = Shared { state: Mutex::default(), room: Notify::new(), capacity: capacity.max(1) };
        Self { shared: Arc::new(shared) }
    }
}

#[async_trait]
impl EventBus for MemoryBus {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        let mut waiting: Vec<Arc<Subscriber>> = {
            let mut state = lock(&self.shared.state);
            if event.retain {
                // An empty payload clears what is retained (MQTT 3.1.1, 3.3.1.3).
                if event.payload.is_empty() {
                    state.retained.remove(&event.topic);
                } else {
                    state.retained.insert(event.topic.clone(), event.clone());
                }
            }
            state.subscribers.retain(|subscriber| !subscriber.gone.is_cancelled());
            state.subscribers.iter().filter(|subscriber| subscriber.filter.matches(&event.topic)).cloned().collect()
        };
        let live = Event { retain: false, ..event };
        loop {
            let room = self.shared.room.notified();
            waiting.retain(|to| !to.gone.is_cancelled() && !to.offer(&live, self.shared.capacity));
            if waiting.is_empty() {
                return Ok(());
            }
            room.await;
        }
    }

    async fn subscribe(&self, filter: TopicFilter, overflow: Overflow) -> Result<Subscription<BusEvent>, BusError> {
        let gone = CancellationToken::new();
        let subscriber = Arc::new(Subscriber {
            filter,
            overflow,
            queue: Mutex::default(),
            arrived: Notify::new(),
            gone: gone.clone(),
        });
        {
            let mut state = lock(&self.shared.state);
            let retained = state.retained.values().filter(|event| subscriber.filter.matches(&event.topic));
            lock(&subscriber.queue).events.extend(retained.cloned());
            state.subscribers.push(Arc::clone(&subscriber));
        }
        let waker = Waker { shared: Arc::clone(&self.shared), gone: gone.clone() };
        let items = futures_util::stream::unfold((subscriber, waker), |(subscriber, waker)| async move {
            loop {
                if let Some(item) = subscriber.take() {
                    waker.shared.room.notify_waiters();
                    return Some((item, (subscriber, waker)));
                }
                subscriber.arrived.notified().await;
            }
        });
        Ok(Subscription::new(items, gone))
    }
}

/// Takes the subscription off the bus when its stream is dropped, and wakes publishers that it held.
struct Waker {
    shared: Arc<Shared>,
    gone: CancellationToken,
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.gone.cancel();
        lock(&self.shared.state).subscribers.retain(|subscriber| !subscriber.gone.is_cancelled());
        self.shared.room.notify_waiters();
    }
}
