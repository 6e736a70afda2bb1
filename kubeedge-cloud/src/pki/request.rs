//! Certificate signing requests of edge nodes: parsed once, and only those that ask for what a node may have.

use kubeedge_core::names::NodeName;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::{
    certification_request::X509CertificationRequest, extensions::ParsedExtension, oid_registry, prelude::FromDer as _,
};

use super::{
    error::SignError,
    peer::{describe, node_of},
};

/// A request whose signature was verified and whose subject is the node's own.
pub(crate) struct EdgeRequest {
    pub(crate) key: SubjectPublicKeyInfo,
}

impl EdgeRequest {
    /// Parses a PKCS#10 request in DER that `node` has sent.
    ///
    /// Tolerates country, province and locality in the subject, which Go edges send, and drops them.
    pub(crate) fn parse(der: &[u8], node: &NodeName) -> Result<Self, SignError> {
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|err| SignError::Malformed(err.to_string()))?;
        if !rest.is_empty() {
            return Err(SignError::Malformed("trailing data".into()));
        }
        request.verify_signature().map_err(|_| SignError::BadSignature)?;

        let info = &request.certification_request_info;
        let tolerated = [
            oid_registry::OID_X509_ORGANIZATION_NAME,
            oid_registry::OID_X509_COMMON_NAME,
            oid_registry::OID_X509_COUNTRY_NAME,
            oid_registry::OID_X509_STATE_OR_PROVINCE_NAME,
            oid_registry::OID_X509_LOCALITY_NAME,
        ];
        let known = info.subject.iter_attributes().all(|attribute| tolerated.contains(attribute.attr_type()));
        if !known || node_of(&info.subject).as_ref() != Some(node) {
            let subject = describe(&info.subject);
            return Err(SignError::ForeignSubject { subject, node: node.to_string() });
        }
        let mut extensions = request.requested_extensions().into_iter().flatten();
        if extensions.any(|extension| matches!(extension, ParsedExtension::SubjectAlternativeName(_))) {
            return Err(SignError::AlternativeNames);
        }
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| SignError::UnsupportedKey)?;
        Ok(Self { key })
    }
}
