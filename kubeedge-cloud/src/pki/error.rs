//! What can go wrong with certificates and their storage.

use std::{io, path::PathBuf};

use kubeedge_core::service::BoxError;

/// A failure to load, make or store the certificates of the cloud.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A value of the configuration cannot be used.
    #[error("{field} {value:?} {why}")]
    Config {
        /// Field of [`PkiConfig`](super::PkiConfig).
        field: &'static str,
        /// The offending value.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// Only one file of a certificate and its key is there.
    #[error("{} is missing although {} is there", missing.display(), present.display())]
    IncompletePair {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A certificate or key is there but of no use. Nothing is overwritten: somebody has to look at it.
    #[error("{origin} cannot be used")]
    Unusable {
        /// The file, or the Secret and its key.
        origin: String,
        /// Why not.
        source: BoxError,
    },
    /// The Kubernetes API refused or did not answer. May be tried again.
    #[error("cannot {action}")]
    Api {
        /// What was asked of it.
        action: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// Another writer won each time.
    #[error("secret {name} keeps changing under our hands")]
    Contended {
        /// The Secret.
        name: &'static str,
    },
    /// Keys could not be made, or nothing could be signed with them.
    #[error("cryptography failed")]
    Crypto(#[source] BoxError),
}

impl PkiError {
    pub(crate) fn crypto(source: impl Into<BoxError>) -> Self {
        Self::Crypto(source.into())
    }

    pub(crate) fn unusable(origin: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Unusable { origin: origin.into(), source: source.into() }
    }

    pub(crate) fn api(action: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { action: action.into(), source: Box::new(source) }
    }

    /// Whether the same call may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Api { .. } | Self::Contended { .. })
    }
}

/// Why a certificate signing request of an edge node is not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The bytes are not one PKCS#10 request in DER.
    #[error("failed to parse csr, err: {0}")]
    Malformed(String),
    /// The request is not signed with the key that it asks a certificate for.
    #[error("signature of the csr is invalid")]
    BadSignature,
    /// The request asks for another name than the node's own.
    #[error("subject {subject:?} of the csr is not that of node {node}")]
    ForeignSubject {
        /// The subject asked for.
        subject: String,
        /// The node that asks.
        node: String,
    },
    /// The request asks for alternative names, which a node has no use for and could impersonate others with.
    #[error("the csr asks for subject alternative names")]
    AlternativeNames,
    /// The key is of a kind that cannot be certified.
    #[error("key of the csr is of an unsupported kind")]
    UnsupportedKey,
    /// The authority failed.
    #[error("cannot sign: {0}")]
    Authority(String),
}

impl SignError {
    /// Whether the request is well formed but asks for what is not granted.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::ForeignSubject { .. } | Self::AlternativeNames | Self::BadSignature)
    }
}
