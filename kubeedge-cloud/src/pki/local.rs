//! Certificates and keys in PEM files that an operator has put there.

use std::{io, path::Path};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::{config::PkiFiles, error::PkiError};

/// What two PEM files hold.
pub(crate) struct LocalPair {
    /// Not empty.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Reads both files; `None` if both are absent.
pub(crate) async fn read(files: Option<&PkiFiles>) -> Result<Option<LocalPair>, PkiError> {
    let Some(files) = files else { return Ok(None) };
    let incomplete = |present: &Path, missing: &Path| {
        Err(PkiError::IncompletePair { present: present.to_owned(), missing: missing.to_owned() })
    };
    let (certificate, key) = match (file(&files.certificate).await?, file(&files.key).await?) {
        (None, None) => return Ok(None),
        (Some(_), None) => return incomplete(&files.certificate, &files.key),
        (None, Some(_)) => return incomplete(&files.key, &files.certificate),
        (Some(certificate), Some(key)) => (certificate, key),
    };
    let chain = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|err| PkiError::unusable(files.certificate.display().to_string(), err))?;
    if chain.is_empty() {
        return Err(PkiError::unusable(files.certificate.display().to_string(), "no certificate in it"));
    }
    let key =
        PrivateKeyDer::from_pem_slice(&key).map_err(|err| PkiError::unusable(files.key.display().to_string(), err))?;
    Ok(Some(LocalPair { chain, key }))
}

async fn file(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    match tokio::fs::read(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::ReadFile { path: path.to_owned(), source }),
    }
}
