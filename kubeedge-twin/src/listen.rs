//! Listening to a bus, however often it goes away.

use std::time::Duration;

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kubeedge_core::{
    bus::{BusEvent, BusHandle, Event, Overflow},
    service::Subscription,
    topic::TopicFilter,
};

/// Time between attempts to subscribe: the first, doubled each time up to the last.
const BACKOFF: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(15)];

/// The events that pass `filter`, for ever: subscribes again whenever the bus fails or ends, with pauses that grow up to
/// 15 s. Publishers wait while nobody takes the next event, so that none is lost.
///
/// # Cancel safety
/// Dropping the stream ends the subscription; events that wait in it are lost.
pub fn listen(bus: BusHandle, filter: TopicFilter) -> BoxStream<'static, Event> {
    let open: Option<Subscription<BusEvent>> = None;
    stream::unfold((bus, open, BACKOFF[0]), move |(bus, mut open, mut backoff)| {
        let filter = filter.clone();
        async move {
            loop {
                match &mut open {
                    Some(subscription) => match subscription.next().await {
                        Some(BusEvent::Message(event)) => return Some((event, (bus, open, BACKOFF[0]))),
                        Some(BusEvent::Lagged(count)) => tracing::warn!(%filter, count, "events were missed"),
                        Some(_) => {}
                        None => {
                            open = None;
                            tokio::time::sleep(backoff).await;
                            backoff = BACKOFF[1].min(backoff * 2);
                        }
                    },
                    None => match bus.subscribe(filter.clone(), Overflow::HoldPublisher).await {
                        Ok(subscription) => open = Some(subscription),
                        Err(error) => {
                            if backoff == BACKOFF[0] {
                                tracing::warn!(%filter, %error, "not subscribed, trying again");
                            }
                            tokio::time::sleep(backoff).await;
                            backoff = BACKOFF[1].min(backoff * 2);
                        }
                    },
                }
            }
        }
    })
    .boxed()
}
