//! How everything that goes over a bus is published.

use std::task::{Context, Poll};

use kubeedge_core::bus::{BusRequest, Qos};
use tower::{Layer, Service};

/// A layer that raises the QoS of all publications to at least [`qos`](Self::qos), and has them retained.
///
/// Upstream: keys `mqttQOS` and `mqttRetain`, which there hold for the internal broker only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishDefaults {
    /// The least QoS.
    pub qos: Qos,
    /// Whether brokers keep what is published for later subscribers.
    pub retain: bool,
}

impl<S> Layer<S> for PublishDefaults {
    type Service = Publish<S>;

    fn layer(&self, inner: S) -> Publish<S> {
        Publish { inner, defaults: *self }
    }
}

/// Service made by [`PublishDefaults`].
#[derive(Clone, Debug)]
pub struct Publish<S> {
    inner: S,
    defaults: PublishDefaults,
}

impl<S: Service<BusRequest>> Service<BusRequest> for Publish<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: BusRequest) -> S::Future {
        if let BusRequest::Publish(event) = &mut request {
            event.qos = event.qos.max(self.defaults.qos);
            event.retain |= self.defaults.retain;
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use kubeedge_core::{
        bus::{BusHandle, BusResponse, Event},
        service::BoxError,
        topic::Topic,
    };

    use super::*;

    #[tokio::test]
    async fn what_is_asked_for_is_raised_and_never_lowered() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let inner = tower::service_fn(move |request: BusRequest| {
            if let BusRequest::Publish(event) = request {
                record.lock().unwrap().push((event.qos, event.retain));
            }
            async { Ok::<_, BoxError>(BusResponse::Published) }
        });
        let bus = BusHandle::new(PublishDefaults { qos: Qos::AtLeastOnce, retain: true }.layer(inner));
        for qos in [Qos::AtMostOnce, Qos::ExactlyOnce] {
            let event = Event { qos, ..Event::new(Topic::new("a/b").unwrap(), "x") };
            bus.publish(event).await.unwrap();
        }
        assert_eq!(*seen.lock().unwrap(), [(Qos::AtLeastOnce, true), (Qos::ExactlyOnce, true)]);
    }
}
