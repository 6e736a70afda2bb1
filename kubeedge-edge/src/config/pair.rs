use async_trait::async_trait;
use futures_util::stream;
use kubeedge_core::{
    bus::{BusError, BusEvent, BusHandle, Event, EventBus, Overflow},
    service::Subscription,
    topic::TopicFilter,
};
use tokio_util::sync::CancellationToken;

use crate::bus::MqttBus;

/// The broker of the agent and another one as one bus: published on both, heard from both.
///
/// The broker of the agent decides how a call ends. The other one may be away for a long time: what is published
/// meanwhile does not reach it, and subscriptions on it stand once it is back.
pub(super) struct PairBus {
    inner: BusHandle,
    outer: BusHandle,
    outside: MqttBus,
}

impl PairBus {
    /// `outer` is `outside` with whatever layers.
    pub(super) fn new(inner: BusHandle, outer: BusHandle, outside: MqttBus) -> Self {
        Self { inner, outer, outside }
    }
}

#[async_trait]
impl EventBus for PairBus {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        if !self.outside.is_connected() {
            return self.inner.publish(event).await;
        }
        let (inner, outer) = tokio::join!(self.inner.publish(event.clone()), self.outer.publish(event));
        if let Err(error) = outer {
            tracing::debug!(%error, "not published on the external broker");
        }
        inner
    }

    async fn subscribe(&self, filter: TopicFilter, overflow: Overflow) -> Result<Subscription<BusEvent>, BusError> {
        let inner = self.inner.subscribe(filter.clone(), overflow).await?;
        let outer = later(self.outer.clone(), filter, overflow);
        Ok(Subscription::new(stream::select(inner, outer), CancellationToken::new()))
    }
}

/// Events of a bus that may not be there yet.
fn later(bus: BusHandle, filter: TopicFilter, overflow: Overflow) -> impl futures_util::Stream<Item = BusEvent> + Send {
    const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
    let open: Option<Subscription<BusEvent>> = None;
    stream::unfold((bus, open), move |(bus, mut open)| {
        let filter = filter.clone();
        async move {
            loop {
                match &mut open {
                    Some(subscription) => match subscription.next().await {
                        Some(event) => return Some((event, (bus, open))),
                        None => open = None,
                    },
                    None => match bus.subscribe(filter.clone(), overflow).await {
                        Ok(subscription) => open = Some(subscription),
                        Err(_) => tokio::time::sleep(PAUSE).await,
                    },
                }
            }
        }
    })
}
