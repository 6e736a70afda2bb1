use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::stream;
use kubeedge_core::{
    meta::{MetaEvent, Selector},
    service::Subscription,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Changes that wait for a watcher; when there are more, the oldest go and the watcher is told.
const WAITING: usize = 256;
/// Bytes of such changes, but for the newest one, which may be longer by itself.
const WAITING_BYTES: usize = 4 * 1024 * 1024;

/// The open watches of a store.
#[derive(Default)]
pub(super) struct Watchers(Vec<Watcher>);

struct Watcher {
    select: Selector,
    queue: Arc<Queue>,
    gone: CancellationToken,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    events: VecDeque<MetaEvent>,
    bytes: usize,
    lagged: u64,
    ended: bool,
}

impl State {
    fn pop(&mut self) -> Option<MetaEvent> {
        let event = self.events.pop_front()?;
        self.bytes -= bytes_of(&event);
        Some(event)
    }
}

fn bytes_of(event: &MetaEvent) -> usize {
    match event {
        MetaEvent::Put(record) => record.value.len(),
        _ => 0,
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: MetaEvent) {
        let mut state = self.lock();
        let bytes = bytes_of(&event);
        while state.events.len() >= WAITING || state.bytes + bytes > WAITING_BYTES {
            if state.pop().is_none() {
                break;
            }
            state.lagged += 1;
        }
        state.bytes += bytes;
        state.events.push_back(event);
        drop(state);
        self.arrived.notify_one();
    }

    async fn next(&self) -> Option<MetaEvent> {
        loop {
            {
                let mut state = self.lock();
                match std::mem::take(&mut state.lagged) {
                    0 => {}
                    missed => return Some(MetaEvent::Lagged(missed)),
                }
                if let Some(event) = state.pop() {
                    return Some(event);
                }
                if state.ended {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }
}

impl Watchers {
    /// Opens a watch that starts with `missed`.
    pub(super) fn add(&mut self, select: Selector, missed: Vec<MetaEvent>) -> Subscription<MetaEvent> {
        self.0.retain(|watcher| !watcher.gone.is_cancelled());
        let queue = Arc::new(Queue::default());
        let gone = CancellationToken::new();
        self.0.push(Watcher { select, queue: queue.clone(), gone: gone.clone() });
        // The first events lie outside of the queue's limit: the store had them in memory already.
        let state = (missed.into_iter(), queue);
        let items = stream::unfold(state, |(mut missed, queue)| async move {
            let event = match missed.next() {
                Some(event) => event,
                None => queue.next().await?,
            };
            Some((event, (missed, queue)))
        });
        Subscription::new(items, gone)
    }

    /// Tells everybody what was committed.
    pub(super) fn tell(&mut self, events: &[MetaEvent]) {
        self.0.retain(|watcher| !watcher.gone.is_cancelled());
        for event in events {
            let key = match event {
                MetaEvent::Put(record) => &record.key,
                MetaEvent::Deleted(key, _) => key,
                _ => continue,
            };
            for watcher in self.0.iter().filter(|watcher| watcher.select.matches(key)) {
                watcher.queue.push(event.clone());
            }
        }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for watcher in &self.0 {
            watcher.queue.lock().ended = true;
            watcher.queue.arrived.notify_one();
        }
    }
}
