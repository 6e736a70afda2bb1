use std::{net::SocketAddr, path::PathBuf};

use kubeedge_core::service::BoxError;

use crate::{
    apiserver::{StoreError, TlsError},
    crds::InstallError,
    pki::PkiError,
    sync::SqliteLedgerError,
};

/// Why the cloud did not start, or has stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudCoreError {
    /// A port cannot be had.
    #[error("cannot listen on {address} for {what}")]
    Bind {
        /// What would be served there.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A file or folder cannot be made or read.
    #[error("cannot use {}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no usable way to the Kubernetes API.
    #[error("no access to the Kubernetes API")]
    KubeConfig(#[source] BoxError),
    /// The embedded API cannot open its database.
    #[error("embedded API cannot be opened")]
    Store(#[from] StoreError),
    /// The embedded API has no certificate.
    #[error("embedded API has no certificate")]
    ApiTls(#[from] TlsError),
    /// The custom resources cannot be installed.
    #[error("custom resources cannot be installed")]
    Crds(#[from] InstallError),
    /// The ledger of what nodes have acknowledged cannot be opened.
    #[error("ledger cannot be opened")]
    Ledger(#[from] SqliteLedgerError),
    /// The certificates cannot be loaded or made.
    #[error("certificates are not usable")]
    Pki(#[from] PkiError),
    /// A part has ended although nobody asked it to. The others still run; shut them down.
    #[error("{part} has stopped")]
    Stopped {
        /// The part.
        part: &'static str,
    },
}
