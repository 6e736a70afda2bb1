//! The cloud over real sockets, with the embedded API behind it and an edge of a few lines in front of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod authorization;
mod balancer;
mod configuration;
mod devices;
mod golden;
mod hub;
mod outage;
mod pods;
mod requests;
mod several;
mod support;
mod sync;
mod tap;
