//! The certificate of the HTTPS endpoint, under an own authority.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// Years that the authority is valid for; the serving certificate is made anew at each start.
const AUTHORITY_YEARS: i16 = 30;
const SERVING_YEARS: i16 = 1;

/// Why there is no serving certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file of the authority cannot be read or written.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A key or certificate cannot be made or read.
    #[error("certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// The certificate does not suit TLS.
    #[error("certificate cannot be used for TLS")]
    Tls(#[from] rustls::Error),
}

/// A serving certificate and the authority that signed it.
#[derive(Clone)]
pub struct ServingTls {
    authority: String,
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for ServingTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingTls").finish_non_exhaustive()
    }
}

impl ServingTls {
    /// Signs a certificate for `names` (host names and addresses) under the authority in `folder`.
    ///
    /// The authority, `ca.crt` and `ca.key` (ECDSA P-256, the key readable by its owner only), is made at first use and
    /// kept; the folder is made too. Blocks on the file system.
    pub fn in_folder(folder: &Path, names: &[String]) -> Result<Self, TlsError> {
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { path, source }
        };
        fs::create_dir_all(folder).map_err(file(folder))?;
        let authority = if key.exists() && certificate.exists() {
            Authority {
                certificate: fs::read_to_string(&certificate).map_err(file(&certificate))?,
                key: KeyPair::from_pem(&fs::read_to_string(&key).map_err(file(&key))?)?,
            }
        } else {
            let made = Authority::new()?;
            let write = |text: String| move |file: &mut File| io::Write::write_all(file, text.as_bytes());
            write_private(&key, write(made.key.serialize_pem())).map_err(file(&key))?;
            fs::write(&certificate, &made.certificate).map_err(file(&certificate))?;
            made
        };
        Self::under(&authority, names)
    }

    /// Signs a certificate under an authority that lives only as long as the process.
    pub fn ephemeral(names: &[String]) -> Result<Self, TlsError> {
        Self::under(&Authority::new()?, names)
    }

    fn under(authority: &Authority, names: &[String]) -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("kubeedge-apiserver");
        validity(&mut params, SERVING_YEARS);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate, &authority.key)?;
        let certificate = params.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { authority: authority.certificate.clone(), config: Arc::new(config) })
    }

    /// The certificate of the authority, which clients must trust, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.authority
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

struct Authority {
    certificate: String,
    key: KeyPair,
}

impl Authority {
    fn new() -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = named("kubeedge-apiserver-ca");
        validity(&mut params, AUTHORITY_YEARS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key })
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From yesterday on, as clocks differ.
fn validity(params: &mut CertificateParams, years: i16) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let start = today.yesterday().unwrap_or(today);
    let day = |date: jiff::civil::Date, years: i16| {
        // The last day of February does not exist every year; the 28th does.
        let day = date.day().min(28).unsigned_abs();
        rcgen::date_time_ymd(i32::from(date.year() + years), date.month().unsigned_abs(), day)
    };
    params.not_before = day(start, 0);
    params.not_after = day(today, years);
}

/// Writes a file that only its owner can read, whole or not at all.
pub(super) fn write_private(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    // One left behind by a crash may have other rights.
    drop(fs::remove_file(&new));
    let mut file = options.open(&new)?;
    fill(&mut file)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_authority_is_kept_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let first = ServingTls::in_folder(folder.path(), &names).unwrap();
        let second = ServingTls::in_folder(folder.path(), &names).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.path().join("ca.key")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_broken_authority_is_an_error_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.key"), "broken").unwrap();
        fs::write(folder.path().join("ca.crt"), "broken").unwrap();
        assert!(matches!(ServingTls::in_folder(folder.path(), &[]), Err(TlsError::Certificate(_))));
        assert_eq!(fs::read_to_string(folder.path().join("ca.key")).unwrap(), "broken");
    }
}
