//! The edge's end of the channel: it dials, keeps the link alive, and comes back when it is lost.
//!
//! * [`HubDriver`] owns the link. It is a future that the caller runs; [`UplinkHandle`] is how others use the link.
//! * [`WebSocket`] dials as KubeEdge does: TLS with the node's certificate, one JSON message per text frame. With a cloud
//!   of ours there may be more in a frame. [`Unix`] and, with the feature `quic`, `Quic` dial a cloud of ours in other ways.
//! * [`OutboxSender`] sends what was left for the cloud in the metadata store, until it is answered.
//!
//! Nothing here spawns a task.
//!
//! Upstream: `edge/pkg/edgehub`.
//!
//! [`UplinkHandle`]: kubeedge_core::uplink::UplinkHandle

mod calls;
mod config;
mod connection;
mod dial;
mod driver;
mod outbox;
#[cfg(feature = "quic")]
mod quic;
mod unix;
mod websocket;

#[cfg(feature = "quic")]
pub use self::quic::{Quic, QuicSocket};
pub use self::{
    config::{HubConfig, RateLimit},
    dial::DialSettings,
    driver::HubDriver,
    outbox::{OutboxConfig, OutboxDepth, OutboxSender},
    unix::Unix,
    websocket::WebSocket,
};
