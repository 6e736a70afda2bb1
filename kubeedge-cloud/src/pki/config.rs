//! What the certificates of the cloud are made from.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use rustls::pki_types::DnsName;

use super::error::PkiError;

const DAY: Duration = Duration::from_secs(86_400);

/// How [`Pki`](super::Pki) comes by its certificates, and what they say.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PkiConfig {
    /// Addresses under which edges reach the cloud; they go into the server certificate. Upstream: `advertiseAddress`.
    pub advertise_addresses: Vec<IpAddr>,
    /// Names under which edges reach the cloud. Empty ones are left out, as upstream has `[""]` as its default.
    pub dns_names: Vec<String>,
    /// The CA in PEM files, which win over the Secret. Files that are both absent are no error. Default: none.
    pub ca_files: Option<PkiFiles>,
    /// The server certificate in PEM files, likewise. Default: none.
    pub server_files: Option<PkiFiles>,
    /// How long certificates of edge nodes are valid. Default: 365 days.
    pub edge_certificate_validity: Duration,
    /// How often a fresh join token is written; each is good for twice that time. Default: 12 h.
    pub token_refresh_period: Duration,
}

/// A certificate and its private key in two PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PkiFiles {
    /// The certificate, or a chain with the end entity first.
    pub certificate: PathBuf,
    /// The private key: SEC1 or PKCS#8 on P-256 for a CA, anything that `ring` signs with for a server.
    pub key: PathBuf,
}

impl PkiConfig {
    /// The defaults of upstream, for a cloud that edges reach under these addresses.
    pub fn new(advertise_addresses: Vec<IpAddr>) -> Self {
        Self {
            advertise_addresses,
            dns_names: Vec::new(),
            ca_files: None,
            server_files: None,
            edge_certificate_validity: 365 * DAY,
            token_refresh_period: DAY / 2,
        }
    }

    /// The names to certify, without empty ones.
    pub(crate) fn names(&self) -> Vec<String> {
        self.dns_names.iter().filter(|name| !name.is_empty()).cloned().collect()
    }

    pub(crate) fn check(&self) -> Result<(), PkiError> {
        let wrong = |field, value, why| Err(PkiError::Config { field, value, why });
        let names = self.names();
        for name in &names {
            if DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_err() {
                return wrong("dns_names", name.clone(), "is not a DNS name");
            }
        }
        if self.advertise_addresses.is_empty() && names.is_empty() {
            return wrong("advertise_addresses", "[]".into(), "must not be empty when there are no dns_names either");
        }
        for (field, value) in [
            ("edge_certificate_validity", self.edge_certificate_validity),
            ("token_refresh_period", self.token_refresh_period),
        ] {
            if value < Duration::from_secs(1) {
                return wrong(field, format!("{value:?}"), "must be at least one second");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_default_of_upstream_is_accepted_and_nonsense_is_named() {
        let mut config = PkiConfig::new(vec!["10.0.0.1".parse().unwrap()]);
        config.dns_names = vec![String::new()];
        config.check().unwrap();
        assert!(config.names().is_empty());
        config.dns_names = vec!["*.cloud.example".into(), "a b".into()];
        assert_eq!(config.check().unwrap_err().to_string(), "dns_names \"a b\" is not a DNS name");
        assert!(PkiConfig::new(Vec::new()).check().is_err());
        config.dns_names.pop();
        config.token_refresh_period = Duration::ZERO;
        assert!(config.check().unwrap_err().to_string().starts_with("token_refresh_period"));
    }
}
