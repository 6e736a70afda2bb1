use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use kubeedge_core::{
    mapper::DriverError,
    names::{DeviceId, PropertyName},
    service::Causes,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Pushed, Route, Target};
use crate::backoff::{Backoff, Retry};

/// The targets in use. A target goes, with its task, when the last property that leads there does.
#[derive(Default)]
pub(crate) struct Targets(Mutex<HashMap<String, Weak<Lane>>>);

/// The way of one property to one target.
#[derive(Clone)]
pub(crate) struct Way {
    lane: Arc<Lane>,
    route: Arc<dyn Route>,
}

struct Lane {
    queue: Arc<Queue>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    news: Notify,
}

/// The newest value of each property, in the order in which the properties came.
#[derive(Default)]
struct Waiting {
    order: VecDeque<(DeviceId, PropertyName)>,
    values: BTreeMap<(DeviceId, PropertyName), (Pushed, Arc<dyn Route>)>,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `again` is a value that failed: it gives way to a newer one.
    fn put(&self, value: Pushed, route: Arc<dyn Route>, again: bool) {
        let key = (value.device.clone(), value.property.clone());
        let mut waiting = self.waiting();
        if waiting.values.contains_key(&key) {
            if again {
                return;
            }
        } else {
            waiting.order.push_back(key.clone());
        }
        waiting.values.insert(key, (value, route));
        drop(waiting);
        self.news.notify_one();
    }

    fn take(&self) -> Option<(Pushed, Arc<dyn Route>)> {
        let mut waiting = self.waiting();
        let key = waiting.order.pop_front()?;
        waiting.values.remove(&key)
    }
}

impl Targets {
    /// The way to `target`, over the client that is there already or a new one, in a task of the present runtime.
    pub(crate) fn way(&self, target: Target, limit: Duration, backoff: Backoff) -> Way {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let known = lanes.get(&target.key).and_then(Weak::upgrade);
        let lane = known.unwrap_or_else(|| {
            let queue = Arc::new(Queue::default());
            let task = tokio::spawn(carry(target.key.clone(), Arc::clone(&queue), limit, backoff));
            let lane = Arc::new(Lane { queue, _task: AbortOnDropHandle::new(task) });
            lanes.insert(target.key, Arc::downgrade(&lane));
            lane
        });
        Way { lane, route: target.route }
    }
}

impl std::fmt::Debug for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Targets").finish_non_exhaustive()
    }
}

impl Way {
    /// Queues a value in the place of an older one of its property.
    pub(crate) fn offer(&self, value: Pushed) {
        self.lane.queue.put(value, Arc::clone(&self.route), false);
    }
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}

/// Brings values to one target, one after the other.
async fn carry(target: String, queue: Arc<Queue>, limit: Duration, backoff: Backoff) {
    let mut retry = Retry::default();
    loop {
        let Some((value, route)) = queue.take() else {
            queue.news.notified().await;
            continue;
        };
        let outcome = timeout(limit, route.publish(&value)).await.unwrap_or(Err(DriverError::TimedOut));
        match outcome {
            Ok(()) => retry.clear(),
            Err(error) => {
                let error_text = Causes(&error).to_string();
                if retry.is_running() {
                    tracing::debug!(target, error = error_text, "still not pushed");
                } else {
                    tracing::warn!(target, device = %value.device, property = %value.property, error = error_text, "value is not pushed");
                }
                if error.is_transient() {
                    queue.put(value, route, true);
                }
                retry.failed(backoff, Instant::now().into_std());
                sleep_until(retry.at(Instant::now().into_std()).into()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_trait::async_trait;
    use kubeedge_core::names::UnixMillis;
    use tokio::time::sleep;

    use super::*;

    /// Notes what gets there; away while `away`.
    #[derive(Default)]
    struct Sink {
        got: Mutex<Vec<String>>,
        tries: Mutex<u32>,
        away: Mutex<bool>,
    }

    #[async_trait]
    impl Route for Sink {
        async fn publish(&self, value: &Pushed) -> Result<(), DriverError> {
            *self.tries.lock().unwrap() += 1;
            if *self.away.lock().unwrap() {
                return Err(DriverError::Offline("away".into()));
            }
            if value.value == "bad" {
                return Err(DriverError::Refused("bad".into()));
            }
            self.got.lock().unwrap().push(format!("{}={}", value.property, value.value));
            Ok(())
        }
    }

    fn value(property: &str, value: &str) -> Pushed {
        let (device, property) = ("default/d".parse().unwrap(), property.parse().unwrap());
        Pushed { device, property, value: value.to_owned(), at: UnixMillis(0) }
    }

    #[tokio::test(start_paused = true)]
    async fn of_each_property_the_newest_waits_and_arrives() {
        let (sink, targets) = (Arc::new(Sink::default()), Targets::default());
        *sink.away.lock().unwrap() = true;
        let way = |sink: &Arc<Sink>| {
            let target = Target { key: "one".into(), route: Arc::clone(sink) as Arc<dyn Route> };
            targets.way(target, Duration::from_secs(1), Backoff::default())
        };
        let (a, b) = (way(&sink), way(&sink));
        for round in 0..100 {
            a.offer(value("a", &round.to_string()));
            b.offer(value("b", &round.to_string()));
            sleep(Duration::from_millis(10)).await;
        }
        *sink.away.lock().unwrap() = false;
        sleep(Duration::from_secs(20)).await;
        assert_eq!(*sink.got.lock().unwrap(), ["b=99", "a=99"].map(String::from), "one lane, the newest of each");
        a.offer(value("a", "bad"));
        a.offer(value("a", "bad"));
        sleep(Duration::from_secs(20)).await;
        a.offer(value("a", "7"));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(sink.got.lock().unwrap().last().unwrap(), "a=7", "what is refused is given up");
        assert!(*sink.tries.lock().unwrap() < 20, "with pauses");
        drop((a, b));
        let lanes = targets.0.lock().unwrap();
        assert!(lanes.values().all(|lane| lane.strong_count() == 0));
    }
}
