//! The server certificate of CloudHub.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use kubeedge_core::names::UnixMillis;
use rcgen::PublicKeyData as _;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivateSec1KeyDer},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

use super::{
    authority::{CertificateAuthority, seconds},
    config::PkiConfig,
    error::PkiError,
    key::EcKey,
    local::LocalPair,
    tls,
};

/// A stored certificate that ends within this time is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// The certificate that the HTTPS and WebSocket ports show, and its private key.
pub struct ServerCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ServerCertificate {
    /// Issues a certificate for the addresses and names of `config`, with a new P-256 key.
    pub fn issue(authority: &CertificateAuthority, config: &PkiConfig, now: UnixMillis) -> Result<Self, PkiError> {
        let (certificate, key) = authority.issue_server(&config.advertise_addresses, &config.names(), now)?;
        Ok(Self::from_ec(certificate, &key))
    }

    /// What an operator has put into files is used as it is, if the two belong together.
    pub(crate) fn from_local(pair: LocalPair) -> Result<Self, rustls::Error> {
        CertifiedKey::from_der(pair.chain.clone(), pair.key.clone_key(), &tls::provider())?;
        Ok(Self { chain: pair.chain, key: pair.key })
    }

    /// Takes what a Secret holds if it still serves its purpose, otherwise says why not.
    pub(crate) fn from_stored(
        certificate: Vec<u8>,
        key: Vec<u8>,
        authority: &CertificateAuthority,
        config: &PkiConfig,
        now: UnixMillis,
    ) -> Result<Self, String> {
        let key = PrivateKeyDer::try_from(key).map_err(str::to_owned)?;
        let key = EcKey::from_private_key(&key).map_err(|err| err.to_string())?;
        {
            let (_, parsed) =
                parse_x509_certificate(&certificate).map_err(|_| "certificate cannot be parsed".to_owned())?;
            if parsed.public_key().raw != key.pair().subject_public_key_info() {
                return Err("certificate does not belong to its key".into());
            }
            if !authority.has_signed(&parsed) {
                return Err("certificate was not issued by this CA".into());
            }
            if parsed.validity().not_after.timestamp() - seconds(now) < RENEW_BEFORE.as_secs().cast_signed() {
                return Err("certificate ends soon".into());
            }
            let wanted = (config.names().into_iter().collect(), config.advertise_addresses.iter().copied().collect());
            if alternative_names(&parsed) != Some(wanted) {
                return Err("certificate is for other addresses or names".into());
            }
        }
        Ok(Self::from_ec(certificate.into(), &key))
    }

    fn from_ec(certificate: CertificateDer<'static>, key: &EcKey) -> Self {
        let key = PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(key.sec1().to_vec()));
        Self { chain: vec![certificate], key }
    }

    /// The chain, end entity first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key. A secret.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Names and addresses that a certificate is for, without the empty name that Go cloudcore puts in by default.
fn alternative_names(certificate: &X509Certificate<'_>) -> Option<(BTreeSet<String>, BTreeSet<IpAddr>)> {
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let Some(extension) = certificate.subject_alternative_name().ok()? else { return Some((names, addresses)) };
    for general in &extension.value.general_names {
        match general {
            GeneralName::DNSName("") => {}
            GeneralName::DNSName(name) => {
                names.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let address = <[u8; 4]>::try_from(*bytes)
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                addresses.insert(address.ok()?);
            }
            _ => return None,
        }
    }
    Some((names, addresses))
}
