//! Who subscribes to what, and what is retained. Sans-IO.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kubeedge_core::{
    bus::{Event, Qos},
    topic::{Topic, TopicFilter},
};
use tokio_util::sync::CancellationToken;

use crate::bus::queue::{Holds, Queue};

/// How often all retained events may wait for one subscriber, whose filters may overlap.
const RETAINED_TIMES: usize = 8;

/// A subscriber: a connected client, or one subscription in process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SubscriberId(u64);

/// The broker is shutting down.
#[derive(Debug)]
pub(super) struct Closed;

#[derive(Debug)]
struct Subscriber {
    queue: Arc<Queue>,
    filters: Vec<(TopicFilter, Qos)>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    last_id: u64,
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    clients: HashMap<String, (SubscriberId, CancellationToken)>,
    retained: BTreeMap<Topic, Event>,
    retained_bytes: usize,
}

/// Routes events to the queues of their subscribers. No lock is held while somebody waits.
///
/// Filters are tried one by one: a node has tens of them, not thousands.
#[derive(Debug)]
pub(super) struct Router {
    max_retained: usize,
    state: Mutex<State>,
}

impl Router {
    pub(super) fn new(max_retained: usize) -> Self {
        Self { max_retained, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscriber without subscriptions, that reads `queue`.
    pub(super) fn attach(&self, queue: Arc<Queue>) -> Result<SubscriberId, Closed> {
        let mut state = self.state();
        if state.closed {
            return Err(Closed);
        }
        state.last_id += 1;
        let id = SubscriberId(state.last_id);
        state.subscribers.insert(id, Subscriber { queue, filters: Vec::new() });
        Ok(id)
    }

    /// Removes a subscriber with its subscriptions.
    pub(super) fn detach(&self, id: SubscriberId) {
        let mut state = self.state();
        state.subscribers.remove(&id);
        state.clients.retain(|_, (owner, _)| *owner != id);
    }

    /// Gives `client_id` to `id`; who had it before is told by its token (MQTT 3.1.1, 3.1.4).
    pub(super) fn claim(&self, client_id: &str, id: SubscriberId, evict: CancellationToken) {
        if let Some((_, evicted)) = self.state().clients.insert(client_id.to_owned(), (id, evict)) {
            evicted.cancel();
        }
    }

    /// Subscribes `id`, and puts the retained events that match into its queue. False when it has `limit` already.
    pub(super) fn subscribe(&self, id: SubscriberId, filter: &TopicFilter, qos: Qos, limit: usize) -> bool {
        let state = &mut *self.state();
        let Some(subscriber) = state.subscribers.get_mut(&id) else { return false };
        match subscriber.filters.iter().position(|(known, _)| known == filter) {
            Some(known) => subscriber.filters[known].1 = qos,
            None if subscriber.filters.len() >= limit => return false,
            None => subscriber.filters.push((filter.clone(), qos)),
        }
        let extra = state.retained.len().saturating_mul(RETAINED_TIMES);
        for event in state.retained.values().filter(|event| filter.matches(&event.topic)) {
            subscriber.queue.preload(Event { qos: event.qos.min(qos), ..event.clone() }, extra);
        }
        true
    }

    pub(super) fn unsubscribe(&self, id: SubscriberId, filter: &TopicFilter) {
        if let Some(subscriber) = self.state().subscribers.get_mut(&id) {
            subscriber.filters.retain(|(known, _)| known != filter);
        }
    }

    /// Hands `event` to every subscriber once, at the best QoS that it asked for, and retains it if it says so.
    ///
    /// The publisher has to wait for those who have no room.
    pub(super) fn publish(&self, event: &Event) -> Result<Holds, Closed> {
        let state = &mut *self.state();
        if state.closed {
            return Err(Closed);
        }
        if event.retain {
            state.retain(event, self.max_retained);
        }
        let mut holds = Holds::default();
        for Subscriber { queue, filters } in state.subscribers.values() {
            let granted = filters.iter().filter(|(filter, _)| filter.matches(&event.topic)).map(|(_, qos)| *qos).max();
            if let Some(granted) = granted
                && let Some(hold) = queue.offer(Event { qos: event.qos.min(granted), retain: false, ..event.clone() })
            {
                holds.push(hold);
            }
        }
        Ok(holds)
    }

    /// Ends all subscriptions and refuses new ones.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for subscriber in std::mem::take(&mut state.subscribers).into_values() {
            subscriber.queue.close();
        }
    }
}

impl State {
    fn retain(&mut self, event: &Event, limit: usize) {
        if let Some(old) = self.retained.remove(&event.topic) {
            self.retained_bytes -= retained_len(&old);
        }
        if event.payload.is_empty() {
            return;
        }
        let len = retained_len(event);
        if self.retained_bytes + len > limit {
            tracing::warn!(topic = %event.topic, limit, "mqtt message is not retained: too many bytes are already");
            return;
        }
        self.retained_bytes += len;
        // A copy: the payload may be a slice of a larger read buffer, which would stay as long.
        let payload = Bytes::copy_from_slice(&event.payload);
        self.retained.insert(event.topic.clone(), Event { payload, ..event.clone() });
    }
}

/// What a retained event counts for, its place in the map included.
fn retained_len(event: &Event) -> usize {
    event.topic.as_str().len() + event.payload.len() + 128
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::bus::BusEvent;
    use tokio_test::{assert_pending, assert_ready, task::spawn};

    use super::*;
    use crate::bus::queue::Policy;

    fn event(topic: &str, payload: &'static str) -> Event {
        Event { retain: true, ..Event::new(Topic::new(topic).unwrap(), payload) }
    }

    fn subscriber(router: &Router) -> (SubscriberId, Arc<Queue>) {
        let queue = Queue::new(8, Policy::Hold);
        (router.attach(Arc::clone(&queue)).unwrap(), queue)
    }

    fn subscribe(router: &Router, id: SubscriberId, filter: &str, qos: Qos) -> bool {
        router.subscribe(id, &TopicFilter::new(filter).unwrap(), qos, 2)
    }

    fn next(queue: &Queue) -> Event {
        match assert_ready!(spawn(queue.next()).poll()) {
            Some(BusEvent::Message(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn overlapping_filters_deliver_once_at_the_best_qos() {
        let router = Router::new(1000);
        let (id, queue) = subscriber(&router);
        subscribe(&router, id, "a/+", Qos::AtMostOnce);
        subscribe(&router, id, "a/#", Qos::AtLeastOnce);
        assert!(router.publish(&event("a/b", "1")).unwrap().is_empty());
        let got = next(&queue);
        assert_eq!((got.qos, got.retain), (Qos::AtLeastOnce, false));
        assert_pending!(spawn(queue.next()).poll());
        router.unsubscribe(id, &TopicFilter::new("a/#").unwrap());
        router.publish(&event("a/b", "2")).unwrap();
        assert_eq!(next(&queue).qos, Qos::AtMostOnce);
    }

    #[test]
    fn who_asks_for_retained_events_and_takes_none_is_cut_off() {
        let router = Router::new(1000);
        router.publish(&event("a/b", "1")).unwrap();
        let (id, queue) = subscriber(&router);
        let filter = TopicFilter::new("a/#").unwrap();
        for _ in 0..100 {
            router.unsubscribe(id, &filter);
            subscribe(&router, id, "a/#", Qos::AtLeastOnce);
        }
        assert_ready!(spawn(queue.ended()).poll());
        assert!(assert_ready!(spawn(queue.next()).poll()).is_none(), "and nothing is kept for it");
    }

    #[test]
    fn retained_events_come_first_until_they_are_cleared() {
        let router = Router::new(1000);
        router.publish(&event("$hw/x", "old")).unwrap();
        router.publish(&event("$hw/x", "new")).unwrap();
        let (id, queue) = subscriber(&router);
        subscribe(&router, id, "$hw/#", Qos::AtMostOnce);
        let got = next(&queue);
        assert_eq!((&got.payload[..], got.retain, got.qos), (&b"new"[..], true, Qos::AtMostOnce));
        subscribe(&router, id, "#", Qos::AtMostOnce);
        assert_pending!(spawn(queue.next()).poll(), "a leading wildcard does not see $ topics");

        router.publish(&event("$hw/x", "")).unwrap();
        assert!(next(&queue).payload.is_empty());
        subscribe(&router, id, "$hw/#", Qos::AtMostOnce);
        assert_pending!(spawn(queue.next()).poll());
    }

    #[test]
    fn retained_bytes_are_bounded_and_given_back() {
        let router = Router::new(300);
        router.publish(&event("a", "1")).unwrap();
        router.publish(&event("b", "2")).unwrap();
        router.publish(&event("c", "3")).unwrap();
        assert_eq!(router.state().retained.len(), 2, "the third does not fit");
        router.publish(&event("a", "")).unwrap();
        router.publish(&event("c", "3")).unwrap();
        assert_eq!(router.state().retained.len(), 2);
    }

    #[test]
    fn subscriptions_are_limited_and_renewed() {
        let router = Router::new(0);
        let (id, _queue) = subscriber(&router);
        assert!(subscribe(&router, id, "a", Qos::AtMostOnce));
        assert!(subscribe(&router, id, "b", Qos::AtMostOnce));
        assert!(!subscribe(&router, id, "c", Qos::AtMostOnce));
        assert!(subscribe(&router, id, "a", Qos::AtLeastOnce), "a renewal is no further one");
    }

    #[test]
    fn a_client_id_belongs_to_the_last_who_claims_it() {
        let router = Router::new(0);
        let ((first, _), (second, _)) = (subscriber(&router), subscriber(&router));
        let (old, new) = (CancellationToken::new(), CancellationToken::new());
        router.claim("c", first, old.clone());
        router.claim("c", second, new.clone());
        assert!(old.is_cancelled() && !new.is_cancelled());
        router.detach(first);
        router.claim("c", second, CancellationToken::new());
        assert!(new.is_cancelled(), "the end of the first has not taken the id from the second");
    }

    #[test]
    fn a_closed_router_ends_its_queues_and_refuses() {
        let router = Router::new(0);
        let (id, queue) = subscriber(&router);
        router.close();
        assert!(assert_ready!(spawn(queue.next()).poll()).is_none());
        assert!(router.publish(&event("a", "1")).is_err());
        assert!(router.attach(queue).is_err());
        assert!(!subscribe(&router, id, "a", Qos::AtMostOnce));
    }
}
