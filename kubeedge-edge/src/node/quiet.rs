use async_trait::async_trait;
use futures_util::stream;
use kubeedge_core::{
    bus::{BusError, BusEvent, Event, EventBus, Overflow},
    service::Subscription,
    topic::TopicFilter,
};
use tokio_util::sync::CancellationToken;

/// The bus of a node without one: nobody listens and nobody speaks.
pub(super) struct QuietBus;

#[async_trait]
impl EventBus for QuietBus {
    async fn publish(&self, _: Event) -> Result<(), BusError> {
        Ok(())
    }

    async fn subscribe(&self, _: TopicFilter, _: Overflow) -> Result<Subscription<BusEvent>, BusError> {
        Ok(Subscription::new(stream::pending(), CancellationToken::new()))
    }
}
