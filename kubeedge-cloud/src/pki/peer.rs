//! Who is at the other end of a connection, by its certificate.

use kubeedge_core::names::NodeName;
use rustls::pki_types::CertificateDer;
use x509_parser::{oid_registry, parse_x509_certificate, x509::X509Name};

/// Organization of every node.
pub(crate) const NODES: &str = "system:nodes";
/// What the common name of a node starts with.
pub(crate) const NODE_PREFIX: &str = "system:node:";

/// A certificate that names no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The bytes are not an X.509 certificate.
    #[error("certificate cannot be parsed")]
    Malformed,
    /// The subject is that of something else.
    #[error("subject {0:?} is not that of a node")]
    NotANode(String),
}

/// The node that a client certificate was issued to: organization `system:nodes`, common name `system:node:<node>`.
///
/// Only reads the subject: that the certificate is genuine is for the TLS configuration to ensure. The organization
/// `KubeEdge` of very old edges names no node and is refused; upstream takes it for any node.
pub fn peer_node_name(certificate: &CertificateDer<'_>) -> Result<NodeName, PeerError> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| PeerError::Malformed)?;
    node_of(parsed.subject()).ok_or_else(|| PeerError::NotANode(describe(parsed.subject())))
}

/// The node of a subject that has exactly one organization and one common name, both in the form of a node.
pub(crate) fn node_of(subject: &X509Name<'_>) -> Option<NodeName> {
    if only(subject, &oid_registry::OID_X509_ORGANIZATION_NAME)? != NODES {
        return None;
    }
    let node = only(subject, &oid_registry::OID_X509_COMMON_NAME)?.strip_prefix(NODE_PREFIX)?;
    NodeName::new(node).ok()
}

fn only<'a>(subject: &'a X509Name<'_>, oid: &oid_registry::Oid<'_>) -> Option<&'a str> {
    let mut values = subject.iter_attributes().filter(|attribute| attribute.attr_type() == oid);
    let value = values.next()?.as_str().ok()?;
    values.next().is_none().then_some(value)
}

/// A subject for messages, cut to a line: it comes from outside.
pub(crate) fn describe(subject: &X509Name<'_>) -> String {
    subject.to_string().chars().take(256).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(entries: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in entries {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn only_a_nodes_subject_names_a_node() {
        let node = certificate(&[(DnType::OrganizationName, NODES), (DnType::CommonName, "system:node:edge-1")]);
        assert_eq!(peer_node_name(&node).unwrap().as_str(), "edge-1");
        for entries in [
            &[(DnType::OrganizationName, "system:masters"), (DnType::CommonName, "system:node:edge-1")][..],
            &[(DnType::OrganizationName, "KubeEdge"), (DnType::CommonName, "kubeedge.io")],
            &[(DnType::OrganizationName, NODES), (DnType::CommonName, "edge-1")],
            &[(DnType::OrganizationName, NODES), (DnType::CommonName, "system:node:")],
            &[(DnType::OrganizationName, NODES), (DnType::CommonName, "system:node:../x")],
            &[(DnType::CommonName, "system:node:edge-1")],
            &[],
        ] {
            assert!(matches!(peer_node_name(&certificate(entries)), Err(PeerError::NotANode(_))), "{entries:?}");
        }
        assert_eq!(peer_node_name(&CertificateDer::from(vec![0x30, 0x00])), Err(PeerError::Malformed));
    }
}
