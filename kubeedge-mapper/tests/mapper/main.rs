//! The mapper as its users see it: the host over a scripted driver, and Modbus over real sockets.
#![allow(clippy::unwrap_used)]

mod host;
#[cfg(feature = "simulator")]
mod modbus;
mod plant;
mod twins;
