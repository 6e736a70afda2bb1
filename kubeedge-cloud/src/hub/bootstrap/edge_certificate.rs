//! `GET /edge.crt`: signs the request of a node.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use kubeedge_core::names::NodeName;

use super::{Bootstrap, MAX_BODY, PeerCertificates, body::read, der};
use crate::pki::{ExtKeyUsages, SignError, UsageError};

/// Answers 200 with the certificate; 401 to those nobody believes; 403 to those who ask for more than a node gets; 500,
/// as upstream, for what cannot be read as a request; 400 without a usable `NodeName`; 413 and 408 for the body.
pub(super) async fn issue(
    State(state): State<Bootstrap>,
    peer: Option<axum::Extension<PeerCertificates>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // Read first: an answer to a request that was not read to its end may never reach the peer.
    let csr = match read(body, MAX_BODY).await {
        Ok(csr) => csr,
        Err(refusal) => return refusal.into_response(),
    };
    let node = match node_name(&headers) {
        Ok(node) => node,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let now = state.clock.now();
    let peer = peer.map(|axum::Extension(peer)| peer).unwrap_or_default();
    if let Err(denied) = state.authenticate(&node, &peer, &headers, now) {
        tracing::warn!(%node, %denied, "no certificate for this peer");
        return (StatusCode::UNAUTHORIZED, denied.to_string()).into_response();
    }
    let refused = |status, why: String| {
        let text = format!("failed to sign certs for edgenode {node}, err: {why}");
        tracing::warn!(%node, %why, "certificate not signed");
        (status, text).into_response()
    };
    let usages = match usages(&headers) {
        Ok(usages) => usages,
        Err(err @ UsageError::NotGranted(_)) => return refused(StatusCode::FORBIDDEN, err.to_string()),
        Err(err) => return refused(StatusCode::INTERNAL_SERVER_ERROR, err.to_string()),
    };
    match state.authority.sign_edge(&csr, &node, usages, state.validity, now) {
        Ok(certificate) => {
            tracing::info!(%node, "signed the certificate of a node");
            der(certificate.to_vec())
        }
        Err(err) => refused(status_of(&err), format!("fail to signCerts, err: {err}")),
    }
}

fn status_of(err: &SignError) -> StatusCode {
    if err.is_refusal() { StatusCode::FORBIDDEN } else { StatusCode::INTERNAL_SERVER_ERROR }
}

fn node_name(headers: &HeaderMap) -> Result<NodeName, String> {
    let value = headers.get("NodeName").ok_or("NodeName header is required")?;
    let value = value.to_str().map_err(|_| "NodeName header is not ASCII")?;
    NodeName::new(value).map_err(|err| format!("NodeName header: {err}"))
}

fn usages(headers: &HeaderMap) -> Result<ExtKeyUsages, UsageError> {
    let value = headers.get("ExtKeyUsages").map(|value| value.to_str());
    let value = value.transpose().map_err(|err| UsageError::Malformed(err.to_string()))?;
    ExtKeyUsages::parse(value)
}
