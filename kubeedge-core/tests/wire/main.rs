//! The wire: the codec, and the recorded conversations of the Go programs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod codec;
mod recorded;
mod replay;
