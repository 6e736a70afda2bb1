//! Who the node is, in the form in which it is shown to the cloud.

use std::{fmt, sync::Arc, time::Duration};

use kubeedge_core::names::{NodeName, SharedClock, UnixMillis};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use x509_parser::{certificate::X509Certificate, oid_registry, parse_x509_certificate};

use super::{
    error::CertificateError,
    files::{CertificateFiles, Stored},
    tls,
};

/// The certificate of a node with its key and the CA of the cloud, ready for TLS. Cheap to clone.
///
/// Every connection made with it is verified against the CA, and shows the certificate.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    node: NodeName,
    authorities: Vec<CertificateDer<'static>>,
    not_before: UnixMillis,
    not_after: UnixMillis,
    client_config: Arc<ClientConfig>,
}

/// Why a certificate, a key and a CA do not make an identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Not PEM, or not the DER of a certificate or a key.
    #[error("{what} cannot be parsed")]
    Malformed {
        /// `certificate`, `private key` or `CA certificate`.
        what: &'static str,
    },
    /// The subject is not that of a node.
    #[error("its subject {0:?} is not that of a node")]
    NotANode(String),
    /// It is the certificate of somebody else.
    #[error("it is for node {found}, not for {wanted}")]
    OtherNode {
        /// Who it is for.
        found: NodeName,
        /// Who needs one.
        wanted: NodeName,
    },
    /// The CA did not sign it.
    #[error("it was not issued by the CA that is kept beside it")]
    OtherAuthority,
    /// TLS does not take it.
    #[error("it does not belong to its private key, or is of an unsupported kind")]
    Tls(#[source] rustls::Error),
}

impl Identity {
    /// Reads the three PEM files. The key is SEC1 (`EC PRIVATE KEY`), as KubeEdge writes it, or PKCS#8.
    ///
    /// A certificate that has expired, or is not valid yet by a clock that was reset, is loaded all the same: see
    /// [`is_expired`](Self::is_expired).
    ///
    /// # Errors
    /// [`CertificateError::File`] for what cannot be read, [`CertificateError::Unusable`] for what does not fit.
    pub async fn load(files: &CertificateFiles, clock: SharedClock) -> Result<Self, CertificateError> {
        let stored = files.read().await?.map_err(|missing| CertificateError::File {
            action: "read",
            path: missing,
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        Self::from_stored(&stored, files, clock)
    }

    pub(crate) fn from_stored(
        stored: &Stored,
        files: &CertificateFiles,
        clock: SharedClock,
    ) -> Result<Self, CertificateError> {
        stored
            .parse()
            .and_then(|(authorities, chain, key)| Self::from_der(&authorities, &chain, key, clock))
            .map_err(|source| CertificateError::Unusable { path: files.certificate.clone(), source })
    }

    /// Puts an identity together: the CA certificates to trust, the chain to show with the node's own certificate first,
    /// and its private key. `clock` is what the validity of servers is judged by.
    pub fn from_der(
        authorities: &[CertificateDer<'static>],
        chain: &[CertificateDer<'static>],
        key: PrivateKeyDer<'static>,
        clock: SharedClock,
    ) -> Result<Self, IdentityError> {
        let malformed = |what| IdentityError::Malformed { what };
        let own = chain.first().ok_or(malformed("certificate"))?;
        let (_, parsed) = parse_x509_certificate(own).map_err(|_| malformed("certificate"))?;
        let node = node_of(&parsed)?;
        // With a longer chain it is for the cloud to find its way.
        if chain.len() == 1 && !authorities.iter().any(|authority| has_signed(authority, &parsed)) {
            return Err(IdentityError::OtherAuthority);
        }
        let time = |seconds: i64| UnixMillis(seconds.saturating_mul(1000));
        let not_before = time(parsed.validity().not_before.timestamp());
        let not_after = time(parsed.validity().not_after.timestamp());
        let roots = tls::roots(authorities).map_err(|_| malformed("CA certificate"))?;
        let client_config = tls::with_identity(roots, clock, chain.to_vec(), key).map_err(IdentityError::Tls)?;
        let (authorities, client_config) = (authorities.to_vec(), Arc::new(client_config));
        Ok(Self(Arc::new(Inner { node, authorities, not_before, not_after, client_config })))
    }

    /// Refuses an identity that is not that of `wanted`.
    pub(crate) fn of(self, wanted: &NodeName) -> Result<Self, IdentityError> {
        if self.node() == wanted {
            Ok(self)
        } else {
            Err(IdentityError::OtherNode { found: self.node().clone(), wanted: wanted.clone() })
        }
    }

    /// The node that the certificate is for.
    pub fn node(&self) -> &NodeName {
        &self.0.node
    }

    /// The CA certificates that the cloud is verified against, DER.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.0.authorities
    }

    /// TLS towards the cloud, with the certificate to show. Offers `http/1.1` only.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.0.client_config.clone()
    }

    /// When the certificate begins to be valid.
    pub fn not_before(&self) -> UnixMillis {
        self.0.not_before
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> UnixMillis {
        self.0.not_after
    }

    /// Whether the certificate has ended at `now`. The cloud does not take it any more.
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        now >= self.0.not_after
    }

    /// The time at `fraction` of the certificate's life.
    pub(crate) fn at(&self, fraction: f64) -> UnixMillis {
        let life = u64::try_from(self.0.not_after.0.saturating_sub(self.0.not_before.0)).unwrap_or(0);
        let part = Duration::from_millis(life).mul_f64(fraction).as_millis();
        UnixMillis(self.0.not_before.0.saturating_add(i64::try_from(part).unwrap_or(i64::MAX)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node", &self.0.node)
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

fn has_signed(authority: &CertificateDer<'_>, certificate: &X509Certificate<'_>) -> bool {
    parse_x509_certificate(authority)
        .is_ok_and(|(_, authority)| certificate.verify_signature(Some(authority.public_key())).is_ok())
}

/// Organization `system:nodes`, common name `system:node:<node>`.
fn node_of(certificate: &X509Certificate<'_>) -> Result<NodeName, IdentityError> {
    let subject = certificate.subject();
    let only = |oid| {
        let mut values = subject.iter_attributes().filter(|attribute| *attribute.attr_type() == oid);
        let value = values.next()?.as_str().ok()?;
        values.next().is_none().then_some(value)
    };
    let organization = only(oid_registry::OID_X509_ORGANIZATION_NAME);
    only(oid_registry::OID_X509_COMMON_NAME)
        .filter(|_| organization == Some("system:nodes"))
        .and_then(|name| NodeName::new(name.strip_prefix("system:node:")?).ok())
        .ok_or_else(|| IdentityError::NotANode(subject.to_string().chars().take(256).collect()))
}
