//! The cloud part of KubeEdge, as parts and as a whole.
//!
//! * [`cloud`]: all of it, started by a builder or from [`config`] (`cloudcore.yaml`).
//! * [`hub`]: the end of the channel: HTTPS bootstrap, WebSocket, a session and a queue per node.
//! * [`sync`]: what each node should have, and what it has acknowledged.
//! * [`ownership`]: which of several instances has a node.
//! * [`pki`]: certificate authority, join tokens and the TLS of the ports.
//! * [`crds`]: the custom resources.
//! * [`admission`]: the webhook that judges devices.
//! * [`apiserver`]: a Kubernetes API for one machine.
//! * [`object`]: objects of Kubernetes as nodes get them.
//!
//! The EdgeController (pods, configuration, nodes) and the DeviceController run inside [`cloud`]. Nothing but [`apiserver`]
//! knows which Kubernetes API it is: everything else has a [`kube::Client`].
//!
//! The crate spawns tasks only in [`cloud`], whose handle ends them. It installs no signal handler and no subscriber,
//! reads no environment variable, and never ends the process.

pub mod admission;
pub mod apiserver;
pub mod cloud;
pub mod commands;
pub mod config;
pub mod crds;
mod device;
mod edge;
pub mod hub;
pub mod object;
pub mod ownership;
pub mod pki;
mod sqlite;
pub mod sync;
