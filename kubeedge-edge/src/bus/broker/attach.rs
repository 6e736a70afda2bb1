//! The broker as an event bus of its own process.

use std::sync::Arc;

use async_trait::async_trait;
use kubeedge_core::{
    bus::{BusError, BusEvent, Event, EventBus, Overflow, Qos},
    service::Subscription,
    topic::TopicFilter,
};

use super::Shared;
use crate::bus::{
    packet::encoded_len,
    queue::{Queue, subscription},
};

/// The event bus of the process that runs an [`EmbeddedBroker`](super::EmbeddedBroker). Cheap to clone.
///
/// Its subscribers and MQTT clients see the same messages. A publication resolves when every subscriber has it in its
/// queue, so a subscriber with [`Overflow::HoldPublisher`] holds MQTT clients too: the broker reads no more from them.
/// When the broker has stopped, subscriptions end and calls answer [`BusError::Disconnected`].
#[derive(Clone, Debug)]
pub struct BrokerBus {
    shared: Arc<Shared>,
}

impl BrokerBus {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl EventBus for BrokerBus {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        let (len, limit) = (encoded_len(&event), self.shared.config.max_packet);
        if len > limit {
            return Err(BusError::Refused(format!("an event of {len} bytes is over the limit of {limit}")));
        }
        let mut holds = self.shared.router.publish(&event).map_err(|_closed| BusError::Disconnected)?;
        holds.admitted().await;
        Ok(())
    }

    async fn subscribe(&self, filter: TopicFilter, overflow: Overflow) -> Result<Subscription<BusEvent>, BusError> {
        let queue = Queue::new(self.shared.config.session_queue, overflow.into());
        let id = self.shared.router.attach(Arc::clone(&queue)).map_err(|_closed| BusError::Disconnected)?;
        let shared = Arc::clone(&self.shared);
        let open = subscription(queue, move || shared.router.detach(id));
        if self.shared.router.subscribe(id, &filter, Qos::ExactlyOnce, 1) {
            Ok(open)
        } else {
            Err(BusError::Disconnected)
        }
    }
}
