//! The certificate of an edge node: how it is obtained, kept in files, shown, and renewed in time.
//!
//! - [`JoinToken`] is what an operator hands to a new node;
//! - [`EdgeCertificates::obtain`] uses the certificate in the files, or gets one with the token;
//! - [`Identity`] is the result: a [`rustls::ClientConfig`] that shows the certificate and trusts only the cloud's CA;
//! - [`Renewal`] replaces the certificate long before it ends, and tells of each new [`Identity`].
//!
//! # What is verified
//! A node that joins knows of the cloud only the SHA-256 of its CA certificate, which is in the token; the servers of
//! KubeEdge show their own certificate without that of the CA. So the CA is fetched from `/ca.crt` over a connection on
//! which nothing can be verified yet, on which nothing secret is sent, and of which nothing is believed but a body with
//! exactly that hash. Every other connection, the one that carries the token included, is verified against that CA.
//! There is no switch for it.
//!
//! ```no_run
//! # async fn example() -> Result<(), kubeedge_edge::pki::CertificateError> {
//! use std::sync::Arc;
//! use kubeedge_core::names::{NodeName, SystemClock};
//! use kubeedge_edge::pki::{CertificateConfig, CertificateFiles, EdgeCertificates};
//! use tokio_util::sync::CancellationToken;
//!
//! let node = NodeName::new("gw-0042").expect("a node name");
//! let files = CertificateFiles::in_dir("/var/lib/gateway/pki");
//! let mut config = CertificateConfig::new(node, "https://cloud.example:10002", files);
//! config.token_file = Some("/etc/kubeedge/bootstrap-edgecore.conf".into());
//! let certificates = EdgeCertificates::new(config, Arc::new(SystemClock))?;
//! let identity = certificates.obtain_patiently().await?;
//! let renewal = certificates.renewal(identity);
//! let identities = renewal.watch(); // the hub dials with what is in it, and again when it changes
//! renewal.run(CancellationToken::new()).await;
//! # drop(identities);
//! # Ok(())
//! # }
//! ```
//!
//! Upstream: `edge/pkg/edgehub/certificate` (v1.21 to v1.23).

mod endpoint;
mod error;
mod fetch;
mod files;
mod identity;
mod key;
mod obtain;
mod renewal;
mod tls;
#[cfg(feature = "broker")]
pub(crate) use self::tls::server_config;
mod token;

#[cfg(test)]
pub(crate) mod fake_cloud;
#[cfg(test)]
mod tests;

pub use self::{
    error::CertificateError,
    files::CertificateFiles,
    identity::{Identity, IdentityError},
    obtain::{CertificateConfig, EdgeCertificates},
    renewal::Renewal,
    token::{InvalidToken, JoinToken},
};
