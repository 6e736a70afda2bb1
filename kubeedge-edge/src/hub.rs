//! The edge's end of the channel: it dials, keeps the link alive, and comes back when it is lost.
//!
//! * [`HubDriver`] owns the link. It is a future that the caller runs; [`UplinkHandle`] is how others use the link.
//! * [`WebSocket`] dials as KubeEdge does: TLS with the node's certificate, one JSON message per text frame.
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
mod driver;
mod outbox;
mod websocket;

pub use self::{
    config::{HubConfig, RateLimit},
    driver::HubDriver,
    outbox::{OutboxConfig, OutboxDepth, OutboxSender},
    websocket::WebSocket,
};
