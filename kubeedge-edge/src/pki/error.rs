//! What can go wrong on the way to a certificate.

use std::{io, path::PathBuf};

use kubeedge_core::service::BoxError;

use super::{identity::IdentityError, token::InvalidToken};

/// A failure to obtain, load or renew the certificate of the node. Each names the file or the URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A value of the configuration cannot be used.
    #[error("{field} {value:?} {why}")]
    Config {
        /// Field of [`CertificateConfig`](super::CertificateConfig).
        field: &'static str,
        /// The offending value.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The files hold no certificate for this node.
    #[error("certificate in {} cannot be used", path.display())]
    Unusable {
        /// The certificate file.
        path: PathBuf,
        /// Why not.
        source: IdentityError,
    },
    /// The node has to join but has no token to do so.
    #[error("{why}, and there is no join token")]
    NoToken {
        /// Why it has to join.
        why: String,
    },
    /// The join token is not one.
    #[error("join token {origin} cannot be used")]
    Token {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        source: InvalidToken,
    },
    /// No connection, or one that broke or could not be verified. May be tried again.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why not.
        source: BoxError,
    },
    /// No answer in time. May be tried again.
    #[error("no answer from {url} in time")]
    TimedOut {
        /// What was asked for.
        url: String,
    },
    /// Another cloud than the one that minted the token, or somebody in between.
    #[error("CA at {url} has the hash {actual}, but the join token is for {expected}")]
    WrongAuthority {
        /// Where the CA came from.
        url: String,
        /// The hash in the token.
        expected: String,
        /// The hash of what came.
        actual: String,
    },
    /// The cloud does not want to. 401: the token or the certificate is not good.
    #[error("{url} answered {status}: {text}")]
    Refused {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// Its text, cut to 512 characters.
        text: String,
    },
    /// The cloud answered with a certificate that is not one for this node.
    #[error("certificate from {url} cannot be used")]
    BadAnswer {
        /// What was asked for.
        url: String,
        /// Why not.
        source: IdentityError,
    },
    /// No key could be made, or the runtime is going down.
    #[error("cannot go on")]
    Failed(#[source] BoxError),
}

impl CertificateError {
    pub(crate) fn failed(source: impl Into<BoxError>) -> Self {
        Self::Failed(source.into())
    }

    /// Whether the same call may succeed later without anybody's help: the cloud could not be reached, or had a failure
    /// of its own.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            _ => false,
        }
    }
}
