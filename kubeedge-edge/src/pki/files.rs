//! The three files in which a node keeps its certificate, and how they survive a power cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use x509_parser::parse_x509_certificate;

use super::{error::CertificateError, identity::IdentityError};

/// The files of a node: PEM, and the key for nobody but the owner to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The CA of the cloud. Upstream: `tlsCaFile`.
    pub ca: PathBuf,
    /// The node's certificate. Upstream: `tlsCertFile`.
    pub certificate: PathBuf,
    /// Its private key. Upstream: `tlsPrivateKeyFile`.
    pub key: PathBuf,
}

/// The contents of the files.
pub(crate) struct Stored {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

type Parsed = (Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Stored {
    /// CA certificates, the node's chain, and its key.
    pub(crate) fn parse(&self) -> Result<Parsed, IdentityError> {
        let malformed = |what| IdentityError::Malformed { what };
        let authorities = certificates(&self.ca).ok_or(malformed("CA certificate"))?;
        let chain = certificates(&self.certificate).ok_or(malformed("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| malformed("private key"))?;
        Ok((authorities, chain, key))
    }
}

impl CertificateFiles {
    /// The names that KubeEdge uses, all in one folder: `rootCA.crt`, `server.crt` and `server.key`.
    pub fn in_dir(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        Self { ca: folder.join("rootCA.crt"), certificate: folder.join("server.crt"), key: folder.join("server.key") }
    }

    /// Reads all three; `Err` within names the first that is absent.
    pub(crate) async fn read(&self) -> Result<Result<Stored, PathBuf>, CertificateError> {
        let files = self.clone();
        run_blocking(move || {
            files.settle()?;
            let mut contents = Vec::with_capacity(3);
            for path in [&files.ca, &files.certificate, &files.key] {
                match read_file(path)? {
                    Some(bytes) => contents.push(bytes),
                    None => return Ok(Err(path.clone())),
                }
            }
            let [ca, certificate, key] = <[Vec<u8>; 3]>::try_from(contents).unwrap_or_default();
            Ok(Ok(Stored { ca, certificate, key }))
        })
        .await
    }

    /// Writes the CA.
    pub(crate) async fn write_ca(&self, ca: &CertificateDer<'_>) -> Result<(), CertificateError> {
        let (path, text) = (self.ca.clone(), pem("CERTIFICATE", ca));
        run_blocking(move || {
            write_beside(&path, text.as_bytes(), 0o644)?;
            put_in_place(&path)
        })
        .await
    }

    /// Writes the certificate and its key so that, whenever the power goes, either the old pair or the new one is found.
    ///
    /// Both are written beside the old ones first; then the key is put in place, then the certificate. Between these two
    /// steps, the certificate that belongs to the key is still beside: [`settle`](Self::settle) finds it.
    pub(crate) async fn write_pair(
        &self,
        certificate: &CertificateDer<'_>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<(), CertificateError> {
        let files = self.clone();
        let certificate = pem("CERTIFICATE", certificate);
        let tag = if matches!(key, PrivateKeyDer::Sec1(_)) { "EC PRIVATE KEY" } else { "PRIVATE KEY" };
        let key = pem(tag, key.secret_der());
        run_blocking(move || {
            write_beside(&files.key, key.as_bytes(), 0o600)?;
            write_beside(&files.certificate, certificate.as_bytes(), 0o644)?;
            put_in_place(&files.key)?;
            put_in_place(&files.certificate)
        })
        .await
    }

    /// Ends what a power cut has interrupted.
    fn settle(&self) -> Result<(), CertificateError> {
        let (new_certificate, new_key) = (beside(&self.certificate), beside(&self.key));
        if let Some(new) = read_file(&new_certificate)? {
            let key = read_file(&self.key)?.unwrap_or_default();
            let old = read_file(&self.certificate)?.unwrap_or_default();
            if belongs(&new, &key) && !belongs(&old, &key) {
                put_in_place(&self.certificate)?;
            } else {
                remove(&new_certificate)?;
            }
        }
        remove(&new_key)
    }
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    (!found.is_empty()).then_some(found)
}

/// Whether a certificate is that of a key, both PEM.
fn belongs(certificate: &[u8], key: &[u8]) -> bool {
    let public = || {
        let key = PrivateKeyDer::from_pem_slice(key).ok()?;
        any_supported_type(&key).ok()?.public_key().map(|public| public.to_vec())
    };
    let certified = || {
        let chain = certificates(certificate)?;
        let (_, parsed) = parse_x509_certificate(chain.first()?).ok()?;
        Some(parsed.public_key().raw.to_vec())
    };
    certified().is_some_and(|certified| public() == Some(certified))
}

fn pem(tag: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), config)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, CertificateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CertificateError::File { action: "read", path: path.to_owned(), source }),
    }
}

fn remove(path: &Path) -> Result<(), CertificateError> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(write_error(path)(err)),
        _ => Ok(()),
    }
}

/// Writes to the disk, with nobody else ever able to read it if `mode` says so.
fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertificateError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(write_error(folder))?;
    }
    let path = beside(path);
    remove(&path)?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(write_error(&path))
}

fn put_in_place(path: &Path) -> Result<(), CertificateError> {
    let rename = || {
        fs::rename(beside(path), path)?;
        match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    };
    rename().map_err(write_error(path))
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> CertificateError {
    let path = path.to_owned();
    move |source| CertificateError::File { action: "write", path, source }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CertificateError> + Send + 'static,
) -> Result<T, CertificateError> {
    tokio::task::spawn_blocking(work).await.map_err(CertificateError::failed)?
}

#[cfg(test)]
#[path = "files/tests.rs"]
mod tests;
