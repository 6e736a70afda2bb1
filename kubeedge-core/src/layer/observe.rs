use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, Span, instrument::Instrumented};

/// Observes the calls of a seam: a span around each, its outcome and its latency when it ends.
///
/// Latency needs a clock, which the caller gives; without one only spans and outcomes are recorded.
#[derive(Clone)]
pub struct ObserveLayer {
    seam: &'static str,
    stopwatch: Option<Arc<dyn Fn() -> Duration + Send + Sync>>,
}

impl ObserveLayer {
    /// Observes under the name `seam`.
    pub fn new(seam: &'static str) -> Self {
        Self { seam, stopwatch: None }
    }

    /// Measures with `clock`, which tells the time since any fixed moment.
    pub fn clock(mut self, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        self.stopwatch = Some(Arc::new(clock));
        self
    }
}

impl fmt::Debug for ObserveLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveLayer").field("seam", &self.seam).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;
    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, layer: self.clone() }
    }
}

/// Service made by [`ObserveLayer`].
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

impl<S, Req> Service<Req> for Observe<S>
where
    S: Service<Req>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let span = tracing::debug_span!("call", seam = self.layer.seam);
        let started = self.layer.stopwatch.as_ref().map(|clock| clock());
        let inner = span.in_scope(|| self.inner.call(request));
        Observed { inner: Box::pin(inner.instrument(span.clone())), span, started, layer: self.layer.clone() }
    }
}

/// Future of an observed call.
pub struct Observed<F> {
    inner: Pin<Box<Instrumented<F>>>,
    span: Span,
    started: Option<Duration>,
    layer: ObserveLayer,
}

impl<F> fmt::Debug for Observed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("seam", &self.layer.seam).finish_non_exhaustive()
    }
}

impl<F, T, E> Future for Observed<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.inner.as_mut().poll(cx));
        let took =
            self.started.zip(self.layer.stopwatch.as_ref()).map(|(started, clock)| clock().saturating_sub(started));
        let latency_us = took.map(|took| took.as_micros());
        self.span.in_scope(|| tracing::debug!(ok = outcome.is_ok(), latency_us, "call ended"));
        Poll::Ready(outcome)
    }
}
