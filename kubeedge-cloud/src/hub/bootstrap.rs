//! The HTTPS port of CloudHub (10002), where a node gets the CA and its certificate.
//!
//! | request | answer |
//! |---|---|
//! | `GET /ca.crt` | the CA certificate, DER |
//! | `GET /edge.crt`, body = PKCS#10 DER, header `NodeName`, and a join token or a client certificate | the node's certificate, DER |
//! | `GET /node/{name}` | 200 or 404: whether there is such a node |
//!
//! [`Bootstrap`] makes the [`Router`], [`serve`] runs it over TLS; an embedder may serve it in another way
//! as long as each request carries its [`PeerCertificates`].
//!
//! Upstream: `cloud/pkg/cloudhub/servers/httpserver` (v1.21 to v1.23). Other than upstream, a certificate is signed only
//! for the node that asks, the authorization scheme has to be `Bearer`, and the certificate of a very old edge (common
//! name `kubeedge.io`), which upstream takes for any node, is not accepted.

mod authenticate;
mod edge_certificate;
mod node;
mod serve;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use kube::Client;
use kubeedge_core::names::SharedClock;
use rustls::server::danger::ClientCertVerifier;

pub use self::serve::{PeerCertificates, serve};
use crate::pki::{CertificateAuthority, Pki, PkiError, client_verifier};

/// Longest body of a request, 64 KiB. It is read before anybody is told whether the token was good.
pub const MAX_BODY: usize = 64 * 1024;
/// Longest time for a body to arrive, and for the Kubernetes API to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the HTTPS port answers from.
#[derive(Clone)]
pub struct Bootstrap {
    authority: Arc<CertificateAuthority>,
    verifier: Arc<dyn ClientCertVerifier>,
    client: Client,
    validity: Duration,
    clock: SharedClock,
}

impl Bootstrap {
    /// Answers with the certificates of `pki`, and looks nodes up through `client`.
    pub fn new(pki: &Pki, client: Client) -> Result<Self, PkiError> {
        let authority = pki.authority().clone();
        let verifier = client_verifier(&authority)?;
        let (validity, clock) = (pki.edge_certificate_validity(), pki.clock().clone());
        Ok(Self { authority, verifier, client, validity, clock })
    }

    /// The routes. Requests must carry [`PeerCertificates`] as an extension; one without counts as having none.
    pub fn router(self) -> Router {
        let routes: Router<Self> = Router::new()
            .route("/ca.crt", get(ca_certificate))
            .route("/edge.crt", get(edge_certificate::issue))
            .route("/node/{name}", get(node::look_up));
        routes
            .method_not_allowed_fallback(async || {
                let allow = [(header::ALLOW, "GET")];
                (StatusCode::METHOD_NOT_ALLOWED, allow, "405: Method Not Allowed")
            })
            .fallback(async || (StatusCode::NOT_FOUND, "404: Page Not Found"))
            .with_state(self)
    }
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap").field("authority", &self.authority).finish_non_exhaustive()
    }
}

async fn ca_certificate(axum::extract::State(state): axum::extract::State<Bootstrap>) -> Response {
    der(state.authority.certificate().to_vec())
}

fn der(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}
