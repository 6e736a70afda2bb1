//! An edge node put together from its parts.
//!
//! [`EdgeNode::builder`] takes the parts, [`EdgeNodeBuilder::spawn`] wires and starts them on the runtime of the caller,
//! and [`EdgeNodeHandle`] is the running node. The smallest node has a transport and a store, and with them hub, outbox
//! and twins; bus, drivers and pods are added one by one.
//!
//! ```no_run
//! use std::time::Duration;
//! use kubeedge_core::{meta::MetaHandle, service::BoxError, transport::TransportHandle};
//! use kubeedge_edge::{hub::WebSocket, meta::SqliteStore, node::EdgeNode, pki::Identity};
//!
//! # async fn run(identity: Identity, power_off: impl Future<Output = ()>) -> Result<(), BoxError> {
//! let store = SqliteStore::open("edge.db")?;
//! let node = EdgeNode::builder("gw-0042")
//!     .endpoint("cloud.example:10000")
//!     .transport(TransportHandle::of(WebSocket::new(identity)))
//!     .meta_store(MetaHandle::of(store.clone()))
//!     .spawn()
//!     .await?;
//! tokio::select! {
//!     () = power_off => {}
//!     why = node.stopped() => eprintln!("edge node stopped: {why}"),
//! }
//! node.shutdown(Duration::from_secs(10)).await?;
//! store.close().await;
//! # Ok(())
//! # }
//! ```

mod builder;
mod handle;
mod parts;
mod quiet;

pub use self::{
    builder::{EdgeNode, EdgeNodeBuilder, SpawnError},
    handle::EdgeNodeHandle,
    parts::{Stopped, Unfinished},
};
