//! The hub over links in memory, under a clock that tests move, and the WebSocket over real sockets.
#![allow(clippy::unwrap_used)]
#![allow(clippy::large_futures, reason = "TLS streams on the stack of a test")]

#[path = "hub/cloud.rs"]
mod cloud;
#[path = "hub/dispatch.rs"]
mod dispatch;
#[path = "hub/link.rs"]
mod link;
#[path = "hub/outbox.rs"]
mod outbox;
#[path = "hub/outbox_crash.rs"]
mod outbox_crash;
#[path = "hub/outbox_streams.rs"]
mod outbox_streams;
#[path = "hub/server.rs"]
mod server;
#[path = "hub/websocket.rs"]
mod websocket;
