//! Who asks for a certificate.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use kubeedge_core::names::{NodeName, UnixMillis};

use super::{Bootstrap, PeerCertificates};
use crate::pki::{PeerError, TokenError, peer_node_name, unix_time};

/// Why nobody believes the peer. The texts are those of Go cloudcore where it refuses too.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("token validation failure, token is empty")]
    NoToken,
    #[error("token validation failure, token cannot be split")]
    CannotSplit,
    #[error("token validation failure, authorization scheme is not Bearer")]
    Scheme,
    #[error("token validation failure, err: {0}")]
    Token(TokenError),
    #[error("failed to verify the certificate for edgenode: {node}, err: {why}")]
    Certificate { node: NodeName, why: String },
    #[error("a client certificate is required")]
    NoCertificate,
    #[error("{0}")]
    Unverified(String),
    #[error("{0}")]
    NotANode(PeerError),
}

impl Bootstrap {
    /// Checks that the peer may have a certificate for `node`.
    ///
    /// A client certificate, if there is one, decides alone, and must be the node's own: a token could have leaked, and a
    /// node that rotates does not need one. Otherwise it takes a join token, which is good for any node.
    pub(super) fn authenticate(
        &self,
        node: &NodeName,
        peer: &PeerCertificates,
        headers: &HeaderMap,
        now: UnixMillis,
    ) -> Result<(), Denied> {
        if peer.0.is_empty() {
            return self.authority.verify_token(bearer(headers)?, now).map_err(Denied::Token);
        }
        let denied = |why: String| Denied::Certificate { node: node.clone(), why };
        match self.certified_node(peer, now) {
            Ok(own) if own == *node => Ok(()),
            Ok(_) | Err(Denied::NotANode(_)) => {
                Err(denied("request node name is not match with the certificate".into()))
            }
            Err(err) => Err(denied(err.to_string())),
        }
    }

    /// The node that the client certificate of the peer was issued to, after verifying the certificate.
    pub(super) fn certified_node(&self, peer: &PeerCertificates, now: UnixMillis) -> Result<NodeName, Denied> {
        let (end_entity, intermediates) = peer.0.split_first().ok_or(Denied::NoCertificate)?;
        self.verifier
            .verify_client_cert(end_entity, intermediates, unix_time(now))
            .map_err(|err| Denied::Unverified(err.to_string()))?;
        peer_node_name(end_entity).map_err(Denied::NotANode)
    }
}

/// The JWT of `Authorization: Bearer <jwt>`.
fn bearer(headers: &HeaderMap) -> Result<&str, Denied> {
    let value = headers.get(AUTHORIZATION).ok_or(Denied::NoToken)?;
    let value = value.to_str().map_err(|_| Denied::CannotSplit)?;
    if value.is_empty() {
        return Err(Denied::NoToken);
    }
    let (scheme, jwt) = value.split_once(' ').ok_or(Denied::CannotSplit)?;
    if jwt.contains(' ') {
        return Err(Denied::CannotSplit);
    }
    if scheme.eq_ignore_ascii_case("Bearer") { Ok(jwt) } else { Err(Denied::Scheme) }
}
