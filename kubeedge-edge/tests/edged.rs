//! Edged as a whole: store in, processes and outbox out.
#![allow(clippy::unwrap_used)]

#[path = "edged/crash.rs"]
mod crash;
#[path = "edged/fake.rs"]
mod fake;
#[path = "edged/hostile.rs"]
mod hostile;
#[path = "edged/node.rs"]
mod node;
#[path = "edged/pods.rs"]
mod pods;
#[path = "edged/process.rs"]
mod process;
#[path = "edged/restart.rs"]
mod restart;
#[path = "edged/stage.rs"]
mod stage;
