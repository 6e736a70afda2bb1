//! The private key of a node, and the request that goes with it.

use kubeedge_core::names::NodeName;
use pkcs8::{ObjectIdentifier, PrivateKeyInfoRef, der::Encode as _};
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivateSec1KeyDer};
use sec1::{EcParameters, EcPrivateKey};

use super::error::CertificateError;

/// prime256v1, which Go calls P-256.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// A fresh P-256 key and the PKCS#10 request for a certificate of it, DER.
pub(crate) struct KeyRequest {
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) csr: Vec<u8>,
}

impl KeyRequest {
    /// Makes both for `node`, with the subject that upstream sends.
    pub(crate) fn make(node: &NodeName) -> Result<Self, CertificateError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CertificateError::failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(node);
        let request = params.serialize_request(&pair).map_err(CertificateError::failed)?;
        let key = sec1(pair.serialized_der()).map_err(CertificateError::failed)?;
        Ok(Self { key: PrivateKeyDer::Sec1(key), csr: request.der().to_vec() })
    }
}

/// Country, province and locality are what every Go edge says, wherever it is; the cloud drops them.
fn subject(node: &NodeName) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    let common_name = format!("system:node:{node}");
    for (kind, value) in [
        (DnType::CountryName, "CN"),
        (DnType::StateOrProvinceName, "Zhejiang"),
        (DnType::LocalityName, "Hangzhou"),
        (DnType::OrganizationName, "system:nodes"),
        (DnType::CommonName, common_name.as_str()),
    ] {
        let value = value.try_into().map_or_else(|_| DnValue::Utf8String(value.to_owned()), DnValue::PrintableString);
        name.push(kind, value);
    }
    name
}

/// Takes the SEC1 key out of PKCS#8 and names its curve within, without which Go does not read it.
fn sec1(pkcs8: &[u8]) -> Result<PrivateSec1KeyDer<'static>, pkcs8::Error> {
    let info = PrivateKeyInfoRef::try_from(pkcs8)?;
    let inner: EcPrivateKey<'_> = pkcs8::der::Decode::from_der(info.private_key.as_bytes())?;
    let der = EcPrivateKey { parameters: Some(EcParameters::NamedCurve(P256)), ..inner }.to_der()?;
    Ok(PrivateSec1KeyDer::from(der))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

    use super::*;

    #[test]
    fn the_request_is_that_of_a_go_edge() {
        let made = KeyRequest::make(&NodeName::new("edge-go").unwrap()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&made.csr).unwrap();
        request.verify_signature().unwrap();
        let subject = request.certification_request_info.subject;
        // As in the recorded request of Go edgecore.
        assert_eq!(subject.to_string(), "C=CN, ST=Zhejiang, L=Hangzhou, O=system:nodes, CN=system:node:edge-go");
        // SEQUENCE { INTEGER 1, OCTET STRING[32], [0] prime256v1, [1] public key }
        assert_eq!(made.key.secret_der().len(), 121);
        assert_eq!(made.key.secret_der()[..7], [0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20]);
        rustls::crypto::ring::sign::any_supported_type(&made.key).unwrap();
    }
}
