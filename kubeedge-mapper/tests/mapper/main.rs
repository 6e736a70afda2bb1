//! The mapper as its users see it: the host over a scripted driver, and Modbus over real sockets.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

#[cfg(feature = "modbus")]
mod faults;
mod host;
#[cfg(feature = "http-device")]
mod http;
#[cfg(feature = "simulator")]
mod modbus;
#[cfg(any(feature = "mqtt-device", feature = "push-mqtt"))]
mod mosquitto;
#[cfg(feature = "mqtt-device")]
mod mqtt;
mod plant;
#[cfg(all(feature = "push-http", feature = "push-mqtt"))]
mod publish;
mod push;
#[cfg(feature = "rest")]
mod rest;
#[cfg(all(feature = "simulator", feature = "modbus-rtu"))]
mod rtu;
mod twins;
#[cfg(any(feature = "http-device", feature = "push-http"))]
mod web;

/// Longer than anything here takes on a busy machine.
#[allow(dead_code, reason = "with some features nothing waits")]
const PATIENCE: Duration = Duration::from_secs(30);

#[allow(dead_code, reason = "with some features nothing waits")]
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}
