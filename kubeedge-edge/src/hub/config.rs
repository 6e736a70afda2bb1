use std::{sync::Arc, time::Duration};

use kubeedge_core::{session::SessionConfig, transport::CloudEndpoint};
use tokio::sync::Notify;

/// How many messages of our own may be sent; answers to the cloud and keepalives do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Messages per second over time. At least 1.
    pub per_second: u32,
    /// Messages at once after a silence. At least 1.
    pub burst: u32,
}

/// Limits and times of a [`HubDriver`](super::HubDriver).
///
/// Upstream: `modules.edgeHub` of `edgecore.yaml`.
#[derive(Clone, Debug)]
pub struct HubConfig {
    pub(super) endpoint: CloudEndpoint,
    pub(super) session: SessionConfig,
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
    pub(super) rate: Option<RateLimit>,
    pub(super) write_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) calls: usize,
    pub(super) inbox: usize,
    pub(super) redial: Option<Arc<Notify>>,
}

impl HubConfig {
    /// Upstream's settings, but for the reconnect: Go waits a fixed 30 s.
    pub fn new(endpoint: CloudEndpoint) -> Self {
        Self {
            endpoint,
            session: SessionConfig::edge(),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            rate: Some(RateLimit { per_second: 30, burst: 60 }),
            write_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(2),
            calls: 256,
            inbox: 16,
            redial: None,
        }
    }

    /// Times and limits of the session; default [`SessionConfig::edge`].
    pub fn session(mut self, session: SessionConfig) -> Self {
        self.session = session;
        self
    }

    /// Pauses between dials: a random part of `first` and the time waited so far, up to `longest`; so after an outage the
    /// link is back within about the time that it was away. Default 1 s and 30 s. They start over after a session that lasted as long as `longest` and in which the cloud sent something: a cloud that only
    /// accepts connections, or loses each of them soon, is not healthy.
    pub fn reconnect(mut self, first: Duration, longest: Duration) -> Self {
        (self.first_pause, self.longest_pause) = (first, longest);
        self
    }

    /// Makes the link anew when `signal` is notified, for a renewed certificate for instance. What is being stored and
    /// written is finished first, within the close timeout; then the link is closed and the cloud dialed at once. Calls that
    /// still wait for an answer fail with `Disconnected`, as they do when a link is lost. Default: never.
    pub fn redial(mut self, signal: Arc<Notify>) -> Self {
        self.redial = Some(signal);
        self
    }

    /// How many messages may be sent; `None` for as many as there are. Default 30 per second, 60 at once.
    pub fn rate(mut self, rate: Option<RateLimit>) -> Self {
        self.rate = rate;
        self
    }

    /// How long the link may refuse to take a message before it counts as lost; default 15 s.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// How long a shutdown waits for what is being written and stored; default 2 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How many calls of all handles together may wait for the driver; more wait in their callers. Default 256.
    pub fn calls(mut self, calls: usize) -> Self {
        self.calls = calls.max(1);
        self
    }

    /// How many messages of the cloud may wait for the inbound service; then the socket is not read. Default 16.
    pub fn inbox(mut self, messages: usize) -> Self {
        self.inbox = messages.max(1);
        self
    }
}
