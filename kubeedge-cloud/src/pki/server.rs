//! The server certificate of CloudHub.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc, time::Duration};

use kubeedge_core::names::UnixMillis;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivateSec1KeyDer},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

use super::{
    authority::{CENTURY, CertificateAuthority, seconds},
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
    certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
}

/// Why a certificate does not do as that of the server, or will not for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("certificate cannot be parsed")]
    Malformed,
    #[error("certificate was not issued by this CA")]
    OtherAuthority,
    #[error("certificate ends soon")]
    EndsSoon,
    #[error("certificate is for other addresses or names")]
    OtherNames,
}

impl ServerCertificate {
    /// Issues a certificate for the addresses and names of `config`, with a new P-256 key.
    pub fn issue(authority: &CertificateAuthority, config: &PkiConfig, now: UnixMillis) -> Result<Self, PkiError> {
        let (certificate, key) = authority.issue_server(&config.advertise_addresses, &config.names(), CENTURY, now)?;
        Self::new(vec![certificate], sec1(&key)).map_err(PkiError::crypto)
    }

    /// What an operator has put into files is used as it is, if the two belong together.
    pub(crate) fn from_local(pair: LocalPair) -> Result<Self, rustls::Error> {
        Self::new(pair.chain, pair.key)
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
        let stored = Self::new(vec![certificate.into()], sec1(&key)).map_err(|err| err.to_string())?;
        stored.check(authority, config, now).map_err(|err| err.to_string())?;
        Ok(stored)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        let certified = CertifiedKey::from_der(chain, key.clone_key(), &tls::provider())?;
        Ok(Self { certified: Arc::new(certified), key })
    }

    /// Whether nodes of this CA find what they look for in it, and will do so for a while.
    pub(crate) fn check(
        &self,
        authority: &CertificateAuthority,
        config: &PkiConfig,
        now: UnixMillis,
    ) -> Result<(), Unfit> {
        let certificate = self.chain().first().ok_or(Unfit::Malformed)?;
        let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| Unfit::Malformed)?;
        // In a longer chain somebody else has signed it for the CA.
        if self.chain().len() == 1 && !authority.has_signed(&parsed) {
            return Err(Unfit::OtherAuthority);
        }
        let ends = parsed.validity().not_after.timestamp();
        // One that ends with the CA is as good as any.
        if ends - seconds(now) < RENEW_BEFORE.as_secs().cast_signed() && ends < authority.ends() {
            return Err(Unfit::EndsSoon);
        }
        let wanted = (config.names().into_iter().collect(), config.advertise_addresses.iter().copied().collect());
        if alternative_names(&parsed) == Some(wanted) { Ok(()) } else { Err(Unfit::OtherNames) }
    }

    /// The chain, end entity first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The private key. A secret.
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// For TLS.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

fn sec1(key: &EcKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(key.sec1().to_vec()))
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("chain", &self.chain().len()).finish_non_exhaustive()
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
