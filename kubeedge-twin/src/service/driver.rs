//! The task that connects the twins with the bus.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use kubeedge_core::{
    bus::{BusHandle, Event},
    topic::{DeviceTopic, TopicFilter},
};
use tokio_util::sync::CancellationToken;

use super::{DeviceTwins, Shared, outgoing::Lane, serve::lane};
use crate::{lanes::Lanes, listen::listen};

/// What applications publish. Results have one more segment than `twin/+`, so our own are not among it.
const FILTERS: [&str; 3] =
    ["$hw/events/device/+/+/twin/+", "$hw/events/device/+/+/state/update", "$hw/events/node/+/membership/get"];

/// Most bytes of requests that wait.
const MAX_WAITING: usize = 4 * 1024 * 1024;
/// Time for what was begun when the driver is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Serves the topics of devices and of membership, and publishes what changed.
///
/// Requests of one device are served in their order, and so are its publications; devices do not wait for each other.
/// A bus that is away is tried again and again, with growing pauses up to 15 s.
#[must_use = "nothing is served or published until it runs"]
pub struct TwinsDriver {
    twins: DeviceTwins,
    bus: BusHandle,
    requests: usize,
    width: usize,
    publish_timeout: Duration,
}

impl std::fmt::Debug for TwinsDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TwinsDriver").finish_non_exhaustive()
    }
}

/// Requests and publications, waiting and under way.
struct Work {
    shared: Arc<Shared>,
    bus: BusHandle,
    width: usize,
    publish_timeout: Duration,
    requests: Lanes<Lane, (DeviceTopic, Bytes)>,
    serving: FuturesUnordered<BoxFuture<'static, Lane>>,
    publishing: FuturesUnordered<BoxFuture<'static, Lane>>,
}

impl TwinsDriver {
    pub(super) fn new(
        twins: DeviceTwins,
        bus: BusHandle,
        requests: usize,
        width: usize,
        publish_timeout: Duration,
    ) -> Self {
        Self { twins, bus, requests, width: width.max(1), publish_timeout }
    }

    /// Serves until `shutdown`. Then takes in nothing more, finishes what it has for at most 2 s, and returns.
    ///
    /// # Cancel safety
    /// A dropped future loses requests that were taken in and not yet served, and publications under way; twins stay
    /// whole.
    pub async fn run(self, shutdown: CancellationToken) {
        let filters = FILTERS.iter().filter_map(|filter| TopicFilter::new(filter).ok());
        let mut intake = stream::select_all(filters.map(|filter| listen(self.bus.clone(), filter)));
        let shared = Arc::clone(&self.twins.shared);
        let mut work = Work {
            shared: Arc::clone(&shared),
            bus: self.bus,
            width: self.width,
            publish_timeout: self.publish_timeout,
            requests: Lanes::new(self.requests, MAX_WAITING),
            serving: FuturesUnordered::new(),
            publishing: FuturesUnordered::new(),
        };
        loop {
            work.begin();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = intake.next(), if work.requests.has_room() => work.accept(event),
                () = work.finish_one(), if work.is_under_way() => {}
                () = shared.outgoing.arrived() => {}
            }
        }
        drop(intake);
        let rest = async {
            work.begin();
            while work.is_under_way() {
                work.finish_one().await;
                work.begin();
            }
        };
        if tokio::time::timeout(GRACE, rest).await.is_err() {
            tracing::warn!("twins stop with publications under way");
        }
    }
}

impl Work {
    fn accept(&mut self, event: Event) {
        let Some(topic) = DeviceTopic::parse(&event.topic) else { return };
        if let Some(lane) = lane(&topic) {
            let weight = event.payload.len();
            // There is room, or nobody would have asked for more; only a giant can push others out.
            if self.requests.push(lane, (topic, event.payload), weight) > 0 {
                tracing::warn!("requests dropped: one of them is too large");
            }
        }
    }

    /// Begins all that may begin.
    fn begin(&mut self) {
        while self.serving.len() < self.width
            && let Some((lane, (topic, body))) = self.requests.take()
        {
            let shared = Arc::clone(&self.shared);
            self.serving.push(Box::pin(async move {
                shared.serve(topic, &body).await;
                lane
            }));
        }
        while self.publishing.len() < self.width
            && let Some((lane, event)) = self.shared.outgoing.take()
        {
            let (bus, timeout) = (self.bus.clone(), self.publish_timeout);
            self.publishing.push(Box::pin(async move {
                let topic = event.topic.clone();
                match tokio::time::timeout(timeout, bus.publish(event)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%topic, %error, "not published"),
                    Err(_) => tracing::debug!(%topic, "not published in time"),
                }
                lane
            }));
        }
    }

    fn is_under_way(&self) -> bool {
        !self.serving.is_empty() || !self.publishing.is_empty()
    }

    /// Waits for one of what is under way. Cancel safe.
    async fn finish_one(&mut self) {
        tokio::select! {
            Some(lane) = self.serving.next() => self.requests.done(&lane),
            Some(lane) = self.publishing.next() => self.shared.outgoing.done(&lane),
            else => {}
        }
    }
}
