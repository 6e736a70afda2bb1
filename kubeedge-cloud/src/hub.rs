//! CloudHub: the end of the channel in the cloud.
//!
//! [`bootstrap`] is the HTTPS port, where a node gets its certificate. A [`Hub`] keeps a
//! [`Session`](kubeedge_core::session::Session) with each node, sends what is left for them with [`HubHandle::send`], and
//! passes what they send to [`Uplinks`]. Nodes come in through its [`HubDoor`], over WebSocket, QUIC, a Unix socket, or any
//! link of the embedder's, once they have proved who they are.
//!
//! One node cannot delay another: each connection is one future with bounded queues, and what it does not take waits in
//! its own [`DownlinkQueue`], where a newer version of an object replaces an older one.
//!
//! Upstream: `cloud/pkg/cloudhub` (v1.21 to v1.23).

mod authorize;
pub mod bootstrap;
mod connection;
mod door;
mod downlink;
mod feed;
mod handshake;
mod lanes;
mod lobby;
mod mailbox;
mod quic;
mod registry;
mod unix;
mod uplink;
mod websocket;

use std::{fmt, sync::Arc, time::Duration};

use kubeedge_core::{
    names::{NodeName, SharedClock},
    session::{Keepalive, SessionConfig},
    transport::Extensions,
};

pub(crate) use self::uplink::served_by;
pub use self::{
    authorize::Authorization,
    connection::ConversationEnd,
    door::{Admitted, HubDoor, Refusal},
    downlink::{Downlink, DownlinkQueue, ObjectChange, ObjectEvent, QueueFull},
    feed::SessionFeed,
    mailbox::AskError,
    registry::{CloseReason, HubHandle, NotConnected, SessionNumber},
    uplink::{Destination, FromNode, UplinkRouter, Uplinks},
};

/// Limits and times of a hub.
#[derive(Clone, Debug)]
pub struct HubConfig {
    session: SessionConfig,
    extensions: Extensions,
    node_limit: usize,
    sockets: usize,
    message_limit: usize,
    requests: usize,
    write_timeout: Duration,
    handshake_timeout: Duration,
    farewell: Duration,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            // Answers and notices that wait to be written; what is beyond waits in the lanes and in the mailbox.
            session: SessionConfig::cloud().queue(32),
            extensions: Extensions::all(),
            node_limit: 500,
            sockets: usize::MAX,
            message_limit: 16 * 1024 * 1024,
            requests: 64,
            write_timeout: Duration::from_secs(15),
            handshake_timeout: Duration::from_secs(10),
            farewell: Duration::from_secs(1),
        }
    }
}

impl HubConfig {
    /// Longest time without a keepalive of the node; default 30 s.
    pub fn keepalive(mut self, within: Duration) -> Self {
        self.session = self.session.keepalive(Keepalive::Expect { within });
        self
    }

    /// Times of acknowledgements; default 5 sends, 5 s apart.
    pub fn resend(mut self, after: Duration, sends: u32) -> Self {
        self.session = self.session.resend(after).sends(sends);
        self
    }

    /// What may be agreed on with peers of ours; default all. A Go peer agrees on nothing.
    pub fn extensions(mut self, extensions: Extensions) -> Self {
        self.extensions = extensions;
        self
    }

    /// Most nodes at a time; default 500. Others are answered 503.
    pub fn node_limit(mut self, nodes: usize) -> Self {
        self.node_limit = nodes;
        self
    }

    /// Most sockets of one listener at a time that accepts a socket for each node, handshakes included, at least 17; default
    /// no limit. The last 16 are kept for telling further nodes that there is no room. A process that runs out of descriptors cannot
    /// even reach Kubernetes, so set it to less than the process may have.
    pub fn sockets(mut self, sockets: usize) -> Self {
        self.sockets = sockets.max(17);
        self
    }

    /// Longest message of a node in bytes; default 16 MiB. A longer one ends the session.
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.message_limit = bytes;
        self
    }

    /// Most requests of one node that are carried out at a time; default 64. Eight times as many are held, as long as they
    /// are not larger than a message may be; then no more is read from it.
    pub fn requests(mut self, requests: usize) -> Self {
        self.requests = requests.max(1);
        self
    }

    /// Longest time for a node to take a frame; default 15 s.
    pub fn write_timeout(mut self, within: Duration) -> Self {
        self.write_timeout = within;
        self
    }

    /// Longest time for the handshakes of TLS and WebSocket together; default 10 s.
    pub fn handshake_timeout(mut self, within: Duration) -> Self {
        self.handshake_timeout = within;
        self
    }

    /// Longest time for all sessions to close at the end; default 1 s.
    pub fn farewell(mut self, within: Duration) -> Self {
        self.farewell = within;
        self
    }
}

/// Learns what nodes have acknowledged. Called from within connections, so it must not block.
pub trait Deliveries: Send + Sync + 'static {
    /// `node` has acknowledged `change`.
    fn delivered(&self, node: &NodeName, change: &ObjectChange);

    /// `node` was sent `change`, and its session has ended without an acknowledgement: it may have it or not, and cannot
    /// tell. Not called for nodes that can; see [`inventory`](kubeedge_core::inventory).
    fn uncertain(&self, _node: &NodeName, _change: &ObjectChange) {}
}

/// Forgets what was acknowledged.
impl Deliveries for () {
    fn delivered(&self, _: &NodeName, _: &ObjectChange) {}
}

/// What all connections share.
struct HubParts {
    config: HubConfig,
    handle: HubHandle,
    uplinks: Uplinks,
    deliveries: Arc<dyn Deliveries>,
    clock: SharedClock,
}

/// A hub that is not open yet.
#[must_use = "nobody gets in before it is opened"]
pub struct Hub {
    config: HubConfig,
    handle: HubHandle,
    deliveries: Arc<dyn Deliveries>,
    clock: SharedClock,
}

impl Hub {
    /// A hub; `clock` gives the timestamps of messages.
    pub fn new(config: HubConfig, clock: SharedClock) -> Self {
        let handle = HubHandle::new(config.node_limit);
        Self { config, handle, deliveries: Arc::new(()), clock }
    }

    /// Tells `deliveries` what nodes acknowledge.
    pub fn deliveries(mut self, deliveries: Arc<dyn Deliveries>) -> Self {
        self.deliveries = deliveries;
        self
    }

    /// The handle to it, which may be handed out before it is open.
    pub fn handle(&self) -> HubHandle {
        self.handle.clone()
    }

    /// Opens the hub: what nodes send goes to `uplinks`. Serve the door with one listener or with several.
    pub fn open(self, uplinks: Uplinks) -> HubDoor {
        let Self { config, handle, deliveries, clock } = self;
        HubDoor(Arc::new(HubParts { config, handle, uplinks, deliveries, clock }))
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("config", &self.config).field("handle", &self.handle).finish_non_exhaustive()
    }
}
