//! The event bus over an MQTT broker of somebody else.

mod connect;
mod keepalive;
mod lane;
mod options;
mod publisher;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use kubeedge_core::{
    bus::{BusError, BusEvent, Event, EventBus, Overflow},
    service::Subscription,
    topic::TopicFilter,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use self::options::{InvalidMqttOptions, MqttOptions};
use self::{lane::Lane, publisher::Job};
use super::{
    packet::encoded_len,
    queue::{Queue, subscription},
};

/// Connections for subscriptions, at most.
const MAX_LANES: usize = 16;

/// What the bus and its driver share.
#[derive(Debug)]
struct Shared {
    options: MqttOptions,
    /// The reason that the broker gave when it last refused the connection; `None` once it has let us in.
    refusal: Mutex<Option<String>>,
    connected: AtomicBool,
    lanes: Mutex<Lanes>,
}

#[derive(Debug, Default)]
struct Lanes {
    closed: bool,
    open: Vec<Arc<Lane>>,
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, why: Option<String>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The error of a call that has waited for its whole time.
    fn overdue(&self, connected: bool) -> BusError {
        match self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(why) => BusError::Refused(why),
            None if connected => BusError::TimedOut,
            None => BusError::Disconnected,
        }
    }
}

/// An event bus over any MQTT 3.1.1 broker. Cheap to clone.
///
/// Events are published over one connection, and received over another, so that a subscriber that holds its publishers
/// never stands between a publication and its confirmation. Two subscriptions whose filters overlap get connections of
/// their own, since brokers differ in how often they deliver to overlapping filters of one client.
///
/// Everything waits for the broker, but not for longer than [`MqttOptions::timeout`]. A publication of QoS 1 that was
/// not confirmed when the connection broke is sent again, so it may arrive twice; one of QoS 0 or 2 is answered with
/// [`BusError::Disconnected`]. Subscriptions outlive connections: after a reconnect they stand again, and say so with
/// [`BusEvent::Resynced`].
///
/// A received event is confirmed to the broker when its subscriber has it in its queue.
///
/// Upstream: `edge/pkg/eventbus/mqtt` (external broker).
#[derive(Clone, Debug)]
pub struct MqttBus {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    lanes: mpsc::Sender<Arc<Lane>>,
}

impl MqttBus {
    /// A bus, and the driver that does its work: nothing moves unless the caller runs it.
    pub fn new(options: MqttOptions) -> (Self, MqttDriver) {
        let (jobs, jobs_in) = mpsc::channel(options.queue.max(1));
        let (lanes, lanes_in) = mpsc::channel(MAX_LANES);
        let shared = Arc::new(Shared {
            options,
            refusal: Mutex::default(),
            connected: AtomicBool::new(false),
            lanes: Mutex::default(),
        });
        let driver = MqttDriver { shared: Closer(Arc::clone(&shared)), jobs: jobs_in, lanes: lanes_in };
        (Self { shared, jobs, lanes }, driver)
    }

    /// Whether the publishing connection stands at this moment.
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Finds a connection for `filter`: one whose filters are disjoint from it, or a new one.
    fn place(&self, filter: &TopicFilter, overflow: Overflow, queue: &Arc<Queue>) -> Result<Placed, BusError> {
        let mut lanes = self.shared.lanes();
        if lanes.closed {
            return Err(BusError::Disconnected);
        }
        let holds = overflow == Overflow::HoldPublisher;
        lanes.open.retain(|lane| !lane.is_retired());
        for lane in &lanes.open {
            if lane.holds == holds
                && let Some(ready) = lane.add(filter, queue)
            {
                return Ok((Arc::clone(lane), ready));
            }
        }
        let number = (0..MAX_LANES).find(|number| lanes.open.iter().all(|lane| lane.number != *number));
        let lane = Arc::new(Lane::new(number.ok_or(BusError::Busy)?, holds));
        let ready = lane.add(filter, queue).ok_or(BusError::Busy)?;
        self.lanes.try_send(Arc::clone(&lane)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BusError::Busy,
            mpsc::error::TrySendError::Closed(_) => BusError::Disconnected,
        })?;
        lanes.open.push(Arc::clone(&lane));
        Ok((lane, ready))
    }
}

/// The connection of a new subscription, and the answer of the broker.
type Placed = (Arc<Lane>, oneshot::Receiver<Result<(), BusError>>);

#[async_trait]
impl EventBus for MqttBus {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        let (len, limit) = (encoded_len(&event), self.shared.options.max_packet);
        if len > limit {
            return Err(BusError::Refused(format!("an event of {len} bytes is over the limit of {limit}")));
        }
        let (job, done) = Job::new(event);
        let sent = async {
            self.jobs.send(job).await.map_err(|_closed| BusError::Disconnected)?;
            done.await.unwrap_or(Err(BusError::Disconnected))
        };
        match timeout(self.shared.options.timeout, sent).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(self.shared.overdue(self.is_connected())),
        }
    }

    async fn subscribe(&self, filter: TopicFilter, overflow: Overflow) -> Result<Subscription<BusEvent>, BusError> {
        let queue = Queue::new(self.shared.options.queue, overflow.into());
        let (lane, ready) = self.place(&filter, overflow, &queue)?;
        let leaving = Arc::clone(&lane);
        let open = subscription(queue, move || leaving.wake());
        match timeout(self.shared.options.timeout, ready).await {
            Ok(Ok(answer)) => answer.map(|()| open),
            Ok(Err(_gone)) => Err(BusError::Disconnected),
            Err(_elapsed) => Err(self.shared.overdue(lane.is_connected())),
        }
    }
}

/// The connections of a [`MqttBus`].
///
/// Dropped, it ends all subscriptions, and further calls answer [`BusError::Disconnected`].
#[derive(Debug)]
pub struct MqttDriver {
    shared: Closer,
    jobs: mpsc::Receiver<Job>,
    lanes: mpsc::Receiver<Arc<Lane>>,
}

impl MqttDriver {
    /// Connects, reconnects and moves events until `shutdown`, or until every [`MqttBus`] and subscription is dropped.
    ///
    /// Reconnects wait with jitter, longer each time. Works on any Tokio runtime with I/O and time, and spawns nothing.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connections without a word.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { shared: closer, jobs, mut lanes } = self;
        let shared = &*closer.0;
        let publishing = publisher::run(shared, jobs, &shutdown);
        let receiving = async {
            let mut running = FuturesUnordered::new();
            let mut open = true;
            while open || !running.is_empty() {
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    lane = lanes.recv(), if open => match lane {
                        Some(lane) => running.push(lane::run(lane, shared, &shutdown)),
                        None => open = false,
                    },
                    Some(()) = running.next(), if !running.is_empty() => {}
                }
            }
            // Each says goodbye to the broker, which is bounded.
            while running.next().await.is_some() {}
        };
        tokio::join!(publishing, receiving);
    }
}

/// Ends what nobody drives any more.
#[derive(Debug)]
struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.connected.store(false, Ordering::Relaxed);
        let mut lanes = self.0.lanes();
        lanes.closed = true;
        for lane in lanes.open.drain(..) {
            lane.close();
        }
    }
}
