//! The event bus seam: publish and subscribe by topic.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    service::{BoxError, Subscription, layered_error, seam},
    topic::{Topic, TopicFilter},
};

/// Delivery that a publisher asks of the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// At most once: resolved when written.
    #[default]
    AtMostOnce,
    /// At least once: resolved when the broker has confirmed.
    AtLeastOnce,
    /// Exactly once between publisher and broker.
    ExactlyOnce,
}

/// A message on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it is published.
    pub topic: Topic,
    /// What is published; any bytes.
    pub payload: Bytes,
    /// Delivery asked for.
    pub qos: Qos,
    /// Whether the bus keeps it for later subscribers.
    pub retain: bool,
}

impl Event {
    /// An event delivered at least once and not retained.
    pub fn new(topic: Topic, payload: impl Into<Bytes>) -> Self {
        Self { topic, payload: payload.into(), qos: Qos::AtLeastOnce, retain: false }
    }
}

/// What a subscriber wants when it is slower than the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Publishers wait. For what must not be lost; a stuck subscriber stops its publishers.
    HoldPublisher,
    /// The oldest waiting event goes, and [`BusEvent::Lagged`] tells how many went.
    DropOldest,
    /// Of each topic only the newest event waits.
    KeepLatest,
}

/// An item of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusEvent {
    /// An event whose topic matches.
    Message(Event),
    /// So many events were dropped before the next one.
    Lagged(u64),
    /// The connection to the broker was lost and is back, subscription included; events in between are gone.
    Resynced,
}

/// A bus of events with MQTT's topics and filters.
///
/// Upstream: `edge/pkg/eventbus`.
#[async_trait]
#[doc(alias = "eventbus")]
pub trait EventBus: Send + Sync + 'static {
    /// Publishes `event` and waits as its [`Qos`] says.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have published.
    async fn publish(&self, event: Event) -> Result<(), BusError>;

    /// Subscribes; resolves once the subscription stands.
    ///
    /// # Cancel safety
    /// A dropped future leaves no subscription behind.
    async fn subscribe(&self, filter: TopicFilter, overflow: Overflow) -> Result<Subscription<BusEvent>, BusError>;
}

/// A call on the bus, as layers see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BusRequest {
    /// See [`EventBus::publish`].
    Publish(Event),
    /// See [`EventBus::subscribe`].
    Subscribe(TopicFilter, Overflow),
}

/// An answer of the bus, as layers see it.
#[derive(Debug)]
#[non_exhaustive]
pub enum BusResponse {
    /// The event is where its [`Qos`] wants it.
    Published,
    /// The subscription stands.
    Subscribed(Subscription<BusEvent>),
}

/// Why the bus did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// There is no connection to the broker: try again later.
    #[error("not connected to the broker")]
    Disconnected,
    /// The broker or its rules refuse it; the same call will be refused again.
    #[error("the bus refused: {0}")]
    Refused(String),
    /// Too much is waiting already.
    #[error("event bus is busy")]
    Busy,
    /// No answer in time.
    #[error("no answer from the event bus in time")]
    TimedOut,
    /// The bus or a layer failed in its own way.
    #[error("event bus failed")]
    Failed(#[source] BoxError),
}
layered_error!(BusError);

impl BusError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Disconnected | Self::Busy | Self::TimedOut)
    }
}

seam! {
    /// [`EventBus`] as a tower service.
    service BusService of EventBus;
    /// Typed calls on an event bus. Cheap to clone.
    handle BusHandle;
    request BusRequest; response BusResponse; error BusError;
    call(bus, request) {
        match request {
            BusRequest::Publish(event) => bus.publish(event).await.map(|()| BusResponse::Published),
            BusRequest::Subscribe(filter, overflow) => {
                bus.subscribe(filter, overflow).await.map(BusResponse::Subscribed)
            }
        }
    }
}

impl BusHandle {
    /// Publishes `event`; see [`EventBus::publish`].
    pub async fn publish(&self, event: Event) -> Result<(), BusError> {
        match self.ask(BusRequest::Publish(event)).await? {
            BusResponse::Published => Ok(()),
            BusResponse::Subscribed(_) => Err(BusError::Failed("not an answer to publish".into())),
        }
    }

    /// Subscribes; see [`EventBus::subscribe`].
    pub async fn subscribe(&self, filter: TopicFilter, overflow: Overflow) -> Result<Subscription<BusEvent>, BusError> {
        match self.ask(BusRequest::Subscribe(filter, overflow)).await? {
            BusResponse::Subscribed(subscription) => Ok(subscription),
            BusResponse::Published => Err(BusError::Failed("not an answer to subscribe".into())),
        }
    }
}
