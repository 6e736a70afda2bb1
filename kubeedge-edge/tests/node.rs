//! Whole nodes: the smallest one, its restart, its devices, and the agent that a configuration describes.
#![allow(clippy::unwrap_used)]
#![allow(clippy::large_futures, reason = "TLS streams on the stack of a test")]

#[cfg(feature = "broker")]
#[path = "node/agent.rs"]
mod agent;
#[path = "node/cloud.rs"]
mod cloud;
#[path = "node/devices.rs"]
mod devices;
#[cfg(feature = "dmi")]
#[path = "node/dmi.rs"]
mod dmi;
#[path = "node/minimal.rs"]
mod minimal;
#[cfg(feature = "broker")]
#[path = "hub/server.rs"]
mod server;
