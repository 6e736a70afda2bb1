//! The certificate authority of the cloud.

use std::{fmt, net::IpAddr, time::Duration};

use kubeedge_core::names::{NodeName, UnixMillis};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::{certificate::X509Certificate, parse_x509_certificate, time::ASN1Time};

use super::{
    error::{PkiError, SignError},
    key::{EcKey, KeyError},
    peer::{NODE_PREFIX, NODES},
    request::EdgeRequest,
    token::{JoinToken, TokenError, fingerprint},
    usage::ExtKeyUsages,
};

/// Life of a CA and of a server certificate upstream: 100 years of 364 days.
pub(crate) const CENTURY: Duration = Duration::from_secs(100 * 364 * 86_400);
/// CA and server certificates start to be valid this much before now, for gateways whose clock lags.
const EDGE_CLOCK_LAG: Duration = Duration::from_secs(3_600);
/// Client certificates do so by this much, for other cloud instances whose clock lags.
const CLOUD_CLOCK_LAG: Duration = Duration::from_secs(300);
/// Serial number of every CA that Go cloudcore makes.
const CA_SERIAL: u64 = 1024;

/// The CA that signs the certificates of CloudHub and of the edge nodes.
///
/// Upstream: `pkg/security/certs` (v1.21 to v1.23): CN `KubeEdge`, ECDSA P-256.
pub struct CertificateAuthority {
    certificate: CertificateDer<'static>,
    key: EcKey,
    fingerprint: String,
    /// Seconds since the Unix epoch: nothing that it signs is valid for longer.
    not_after: i64,
}

impl CertificateAuthority {
    /// Makes a new CA that is valid for a century from `now`.
    pub fn generate(now: UnixMillis) -> Result<Self, PkiError> {
        let key = EcKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&[(DnType::CommonName, "KubeEdge")]);
        params.serial_number = Some(SerialNumber::from(CA_SERIAL));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        set_validity(&mut params, seconds(now), EDGE_CLOCK_LAG, CENTURY, i64::MAX)?;
        let certificate = params.self_signed(key.pair()).map_err(PkiError::crypto)?;
        Self::checked(certificate.der().clone(), key, now).map_err(PkiError::crypto)
    }

    /// Takes a CA from its certificate in DER and its private key in SEC1 DER, as the Secret `casecret` holds them.
    ///
    /// # Errors
    /// [`PkiError::Unusable`] if the certificate is no CA, has expired, or does not belong to the key, and if the key is
    /// not one on P-256.
    pub fn from_der(certificate: CertificateDer<'static>, sec1_key: &[u8], now: UnixMillis) -> Result<Self, PkiError> {
        let key = EcKey::from_sec1(sec1_key).map_err(|err| PkiError::unusable("key of the CA", err))?;
        Self::checked(certificate, key, now).map_err(|err| PkiError::unusable("certificate of the CA", err))
    }

    /// As [`from_der`](Self::from_der), with a key as a PEM file has it.
    pub(crate) fn from_parts(
        certificate: CertificateDer<'static>,
        key: &PrivateKeyDer<'_>,
        now: UnixMillis,
    ) -> Result<Self, AuthorityError> {
        Self::checked(certificate, EcKey::from_private_key(key)?, now)
    }

    pub(crate) fn checked(
        certificate: CertificateDer<'static>,
        key: EcKey,
        now: UnixMillis,
    ) -> Result<Self, AuthorityError> {
        let not_after = {
            let (_, parsed) = parse_x509_certificate(&certificate).map_err(|_| AuthorityError::Malformed)?;
            if !parsed.is_ca() {
                return Err(AuthorityError::NotACa);
            }
            if parsed.public_key().raw != key.pair().subject_public_key_info() {
                return Err(AuthorityError::OtherKey);
            }
            parsed.validity().not_after.timestamp()
        };
        if not_after <= seconds(now) {
            return Err(AuthorityError::Expired(not_after));
        }
        let fingerprint = fingerprint(&certificate);
        Ok(Self { certificate, key, fingerprint, not_after })
    }

    /// The CA certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key as it is stored: SEC1 DER. A secret.
    pub fn key_der(&self) -> &[u8] {
        self.key.sec1()
    }

    /// SHA-256 of the certificate in lower-case hex, with which join tokens start.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Mints a join token that is good until `expires`.
    pub fn mint_token(&self, expires: UnixMillis) -> Result<JoinToken, PkiError> {
        JoinToken::mint(&self.certificate, self.key.sec1(), expires)
    }

    /// Verifies the JWT part of a join token of this CA.
    pub fn verify_token(&self, jwt: &str, now: UnixMillis) -> Result<(), TokenError> {
        JoinToken::verify(jwt, self.key.sec1(), now)
    }

    /// A whole join token, if it is one of this CA, and how long it is good from `now` on.
    pub(crate) fn recognise_token(&self, text: &str, now: UnixMillis) -> Option<(JoinToken, Duration)> {
        JoinToken::recognise(text, &self.fingerprint, self.key.sec1(), now)
    }

    /// Signs the request of `node` for a client certificate that is valid for `validity`, at most as long as the CA is.
    ///
    /// The certificate has organization `system:nodes` and common name `system:node:<node>` and nothing else of what the
    /// request asks for.
    ///
    /// # Errors
    /// [`SignError`] if the request is malformed, not signed by its own key, or asks for another name.
    pub fn sign_edge(
        &self,
        csr: &[u8],
        node: &NodeName,
        usages: ExtKeyUsages,
        validity: Duration,
        now: UnixMillis,
    ) -> Result<CertificateDer<'static>, SignError> {
        let request = EdgeRequest::parse(csr, node)?;
        let common_name = format!("{NODE_PREFIX}{node}");
        let mut params = CertificateParams::default();
        params.distinguished_name =
            name(&[(DnType::OrganizationName, NODES), (DnType::CommonName, common_name.as_str())]);
        params.extended_key_usages = usages.purposes();
        let failed = |err: &dyn fmt::Display| SignError::Authority(err.to_string());
        set_validity(&mut params, seconds(now), CLOUD_CLOCK_LAG, validity, self.not_after)
            .map_err(|err| failed(&err))?;
        self.sign(params, &request.key).map_err(|err| failed(&err))
    }

    /// Issues the certificate of CloudHub for these addresses and names, with a new key.
    pub(crate) fn issue_server(
        &self,
        addresses: &[IpAddr],
        dns_names: &[String],
        validity: Duration,
        now: UnixMillis,
    ) -> Result<(CertificateDer<'static>, EcKey), PkiError> {
        let key = EcKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&[(DnType::OrganizationName, "KubeEdge"), (DnType::CommonName, "KubeEdge")]);
        for dns_name in dns_names {
            params.subject_alt_names.push(SanType::DnsName(dns_name.as_str().try_into().map_err(PkiError::crypto)?));
        }
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params, seconds(now), EDGE_CLOCK_LAG, validity, self.not_after)?;
        let certificate = self.sign(params, key.pair())?;
        Ok((certificate, key))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, PkiError> {
        params.serial_number = Some(random_serial()?);
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, self.key.pair()).map_err(PkiError::crypto)?;
        Ok(params.signed_by(public_key, &issuer).map_err(PkiError::crypto)?.der().clone())
    }

    /// When it ends, in seconds since the Unix epoch.
    pub(crate) fn ends(&self) -> i64 {
        self.not_after
    }

    /// Whether this CA has signed `certificate`; says nothing of its validity.
    pub(crate) fn has_signed(&self, certificate: &X509Certificate<'_>) -> bool {
        parse_x509_certificate(&self.certificate)
            .is_ok_and(|(_, own)| certificate.verify_signature(Some(own.public_key())).is_ok())
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Why a certificate and a key make no CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("certificate cannot be parsed")]
    Malformed,
    #[error("certificate is not that of a CA")]
    NotACa,
    #[error("certificate does not belong to the private key")]
    OtherKey,
    #[error("certificate has expired at {0} s after the Unix epoch")]
    Expired(i64),
}

pub(crate) fn seconds(time: UnixMillis) -> i64 {
    time.0.div_euclid(1000)
}

fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn set_validity(
    params: &mut CertificateParams,
    now: i64,
    lag: Duration,
    validity: Duration,
    limit: i64,
) -> Result<(), PkiError> {
    let date = |seconds| ASN1Time::from_timestamp(seconds).map(|time| time.to_datetime()).map_err(PkiError::crypto);
    params.not_before = date(now.saturating_sub(span(lag)))?;
    params.not_after = date(now.saturating_add(span(validity)).min(limit))?;
    Ok(())
}

/// Names as Go writes them: PrintableString where that can hold the value.
fn name(entries: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in entries {
        let value =
            (*value).try_into().map_or_else(|_| DnValue::Utf8String((*value).to_owned()), DnValue::PrintableString);
        name.push(kind.clone(), value);
    }
    name
}

/// A random serial number below 2^63, as Go draws it, and not zero.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0u8; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PkiError::crypto("no random numbers"))?;
    Ok(SerialNumber::from((u64::from_be_bytes(bytes) >> 1).max(1)))
}

#[cfg(test)]
#[path = "authority/tests.rs"]
mod tests;
