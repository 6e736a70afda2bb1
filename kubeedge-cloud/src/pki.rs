//! The public key infrastructure of CloudHub: certificate authority, join tokens and the TLS of its ports.
//!
//! - [`CertificateAuthority`] signs the server certificate and the client certificates of edge nodes;
//! - [`JoinToken`] lets a node without a certificate ask for one;
//! - [`Pki`] keeps all of it in the Secrets `casecret`, `cloudcoresecret` and `tokensecret`, as Go cloudcore does, and
//!   makes the [`rustls::ServerConfig`]s of the HTTPS and WebSocket ports;
//! - [`TokenRefresher`] writes a fresh join token from time to time;
//! - [`ServerRenewal`] keeps the server certificate good while the cloud runs.
//!
//! Encodings are those of the Go programs, so that either can take over the Secrets of the other: certificates are DER,
//! private keys are SEC1 DER of P-256, and the key of a join token is the DER of the CA's private key.
//!
//! Upstream: `cloud/pkg/cloudhub/servers/httpserver`, `pkg/security` (v1.21 to v1.23).

mod authority;
mod config;
mod error;
mod key;
mod load;
mod local;
mod peer;
mod refresh;
mod renew;
mod request;
mod secrets;
mod server;
mod tls;
mod token;
mod usage;

#[cfg(test)]
pub(crate) mod fake_api;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    authority::CertificateAuthority,
    config::{PkiConfig, PkiFiles},
    error::{PkiError, SignError},
    load::Pki,
    peer::{PeerError, peer_node_name},
    refresh::TokenRefresher,
    renew::ServerRenewal,
    server::ServerCertificate,
    tls::{https_config, websocket_config},
    token::{JoinToken, TokenError},
    usage::{ExtKeyUsages, UsageError},
};

#[cfg(test)]
pub(crate) use self::tls::{ClockTime, provider};
pub(crate) use self::{
    peer::node_of as node_of_subject,
    tls::{client_verifier, unix_time},
};
