//! Our edge and our cloud over each transport, in one process: what they agree on, and what an edge gets again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod commands;
mod inventory;
mod transports;
mod world;
