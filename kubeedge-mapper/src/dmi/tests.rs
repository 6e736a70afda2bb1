//! Both roles over real sockets in one process, and the recorded calls of the Go programs.
#![allow(clippy::unwrap_used)]

mod edge;
pub(super) mod fake;
mod golden;
mod lanes;
mod mapper;
mod traps;
