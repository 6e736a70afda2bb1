//! The assembly of the cloud: [`CloudCore`] puts the public parts together, as the reference binary does.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use kubeedge_cloud::{cloud::CloudCore, pki::PkiConfig};
//!
//! let client = kube::Client::try_default().await?;
//! let cloud = CloudCore::builder(client)
//!     .pki(PkiConfig::new(vec![[192, 0, 2, 1].into()]))
//!     .websocket("0.0.0.0:10000".parse()?)
//!     .https("0.0.0.0:10002".parse()?)
//!     .spawn()
//!     .await?;
//! println!("nodes connect to {}", cloud.websocket_addr());
//! let why = cloud.stopped().await;
//! cloud.shutdown(Duration::from_secs(2)).await;
//! # Err(why.into())
//! # }
//! ```

mod api;
mod assembly;
mod builder;
mod error;
mod handle;
mod stage;

pub use self::{
    builder::{CloudCore, CloudCoreBuilder},
    error::CloudCoreError,
    handle::CloudCoreHandle,
};
