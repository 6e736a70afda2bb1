//! Cloud and edge as two processes over real sockets, as in the field.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod field;
mod restart;
mod tools;
