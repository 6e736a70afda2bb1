//! The HTTPS port of CloudHub (10002), where a node gets the CA and its certificate.
//!
//! | request | answer |
//! |---|---|
//! | `GET /ca.crt` | the CA certificate, DER |
//! | `GET /edge.crt`, body = PKCS#10 DER, header `NodeName`, and a join token or a client certificate | the node's certificate, DER |
//! | `GET /node/{name}` | 200 or 404: whether there is such a node |
//! | `POST /task/{taskType}/name/{taskID}/node/{nodeID}/status`, body = JSON, and the node's client certificate | `ok` |
//! | `POST /nodeupgrade`, likewise; of old edges | `ok` |
//!
//! The last two bring reports of node tasks. They are passed to the part that [`Bootstrap::tasks`] names, as messages with
//! source and group `cloudhub`, resource `task/<taskID>/node/<nodeID>`, and the type of the task as operation. `ok` is
//! answered after that part has taken the report; without such a part the answer is 503, as nobody has stored anything.
//!
//! [`Bootstrap`] makes the [`Router`], [`serve`] runs it over TLS; an embedder may serve it in another way
//! as long as each request carries its [`PeerCertificates`].
//!
//! Upstream: `cloud/pkg/cloudhub/servers/httpserver` (v1.21 to v1.23). Other than upstream, a certificate is signed only
//! for the node that asks, the authorization scheme has to be `Bearer`, and the certificate of a very old edge (common
//! name `kubeedge.io`), which upstream takes for any node, is not accepted. Reports of node tasks are taken from the node
//! of the certificate alone (CVE-2026-82473), and bodies are limited to 64 and 256 KiB, not to 1 and 3 MiB.

mod authenticate;
mod body;
mod edge_certificate;
mod node;
mod places;
mod report;
mod serve;
mod tasks;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kube::Client;
use kubeedge_core::names::SharedClock;
use rustls::server::danger::ClientCertVerifier;

pub(crate) use self::body::read as read_body;
pub use self::serve::{PeerCertificates, serve};
use super::Uplinks;
use crate::pki::{CertificateAuthority, Pki, PkiError, client_verifier};

/// Longest body of a request, 64 KiB. It is read before anybody is told whether the token was good.
pub const MAX_BODY: usize = 64 * 1024;
/// Longest report of a node task, 256 KiB: some hold a line for each image. It is read of a node with a certificate only.
pub const MAX_REPORT: usize = 256 * 1024;
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
    tasks: Option<Uplinks>,
}

impl Bootstrap {
    /// Answers with the certificates of `pki`, and looks nodes up through `client`.
    pub fn new(pki: &Pki, client: Client) -> Result<Self, PkiError> {
        let authority = pki.authority().clone();
        let verifier = client_verifier(&authority)?;
        let (validity, clock) = (pki.edge_certificate_validity(), pki.clock().clone());
        Ok(Self { authority, verifier, client, validity, clock, tasks: None })
    }

    /// Passes reports of node tasks to `part`. Its error, and a message with operation `error`, tell that a report was not
    /// taken; then the node is answered 503 and has to send it again. Any other outcome is answered `ok`.
    pub fn tasks(mut self, part: Uplinks) -> Self {
        self.tasks = Some(part);
        self
    }

    /// The routes. Requests must carry [`PeerCertificates`] as an extension; one without counts as having none.
    pub fn router(self) -> Router {
        let routes: Router<Self> = Router::new()
            .route("/ca.crt", get(ca_certificate))
            .route("/edge.crt", get(edge_certificate::issue))
            .route("/node/{name}", get(node::look_up))
            .method_not_allowed_fallback(async || not_allowed("GET"))
            .route("/task/{type}/name/{task}/node/{node}/status", post(tasks::report).fallback(only_post))
            .route("/nodeupgrade", post(tasks::upgraded).fallback(only_post));
        routes.fallback(async || (StatusCode::NOT_FOUND, "404: Page Not Found")).with_state(self)
    }
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bootstrap").field("authority", &self.authority).finish_non_exhaustive()
    }
}

async fn only_post() -> Response {
    not_allowed("POST")
}

fn not_allowed(allow: &'static str) -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allow)], "405: Method Not Allowed").into_response()
}

async fn ca_certificate(axum::extract::State(state): axum::extract::State<Bootstrap>) -> Response {
    der(state.authority.certificate().to_vec())
}

fn der(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}
