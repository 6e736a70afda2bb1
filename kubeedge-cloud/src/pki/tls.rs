//! The TLS of CloudHub's ports: 1.2 and 1.3, `ring`, HTTP/1.1, nobody trusted but the CA.
//!
//! On TLS 1.2 the cipher suites are those of upstream (`cloud/pkg/cloudhub/servers`), which want an ECDSA key.

use std::{fmt, sync::Arc, time::Duration};

use kubeedge_core::names::{SharedClock, UnixMillis};
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    time_provider::TimeProvider,
};
use tokio::sync::watch;

use super::{authority::CertificateAuthority, error::PkiError, server::ServerCertificate};

/// TLS of the HTTPS port (10002), for [`hub::bootstrap`](crate::hub::bootstrap) only.
///
/// A client certificate is asked for but not required, and one that is expired or foreign does not end the handshake:
/// the peer is to read a 401 that says so. The peer must have proven that it holds the key, but **who it is has to be
/// checked by the handler**, as the bootstrap router does.
///
/// Each handshake shows the newest certificate of `server`.
pub fn https_config(
    authority: &CertificateAuthority,
    server: watch::Receiver<Arc<ServerCertificate>>,
    clock: SharedClock,
) -> Result<Arc<ServerConfig>, PkiError> {
    let strict = client_verifier(authority)?;
    let algorithms = provider().signature_verification_algorithms;
    config(Arc::new(DeferredVerifier { strict, algorithms }), server, clock)
}

/// TLS of the WebSocket port (10000): a client certificate of this CA, valid now and for client authentication, is
/// required.
///
/// ALPN offers `http/1.1` only, as a Go edge must not end up with HTTP/2. Sessions are not resumed, so that every
/// connection is judged by the certificate as it is then.
pub fn websocket_config(
    authority: &CertificateAuthority,
    server: watch::Receiver<Arc<ServerCertificate>>,
    clock: SharedClock,
) -> Result<Arc<ServerConfig>, PkiError> {
    config(client_verifier(authority)?, server, clock)
}

fn config(
    verifier: Arc<dyn ClientCertVerifier>,
    server: watch::Receiver<Arc<ServerCertificate>>,
    clock: SharedClock,
) -> Result<Arc<ServerConfig>, PkiError> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some() || SUITES.contains(&suite.suite()));
    let mut config = ServerConfig::builder_with_details(Arc::new(provider), Arc::new(ClockTime(clock)))
        .with_safe_default_protocol_versions()
        .map_err(PkiError::crypto)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Newest(server)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For TLS 1.2.
const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Shows whatever certificate is the newest.
#[derive(Debug)]
struct Newest(watch::Receiver<Arc<ServerCertificate>>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().certified())
    }
}

/// Verifies client certificates of this CA to the full: chain, validity, client authentication.
pub(crate) fn client_verifier(authority: &CertificateAuthority) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).map_err(|err| PkiError::unusable("certificate of the CA", err))?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(PkiError::crypto)
}

pub(crate) fn unix_time(now: UnixMillis) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(now.0).unwrap_or(0)))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The caller's clock, for rustls.
pub(crate) struct ClockTime(pub(crate) SharedClock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

/// Lets every client certificate through the handshake, for the handler to judge.
///
/// Only the judgement is put off: the signature that proves possession of the key is verified here as always.
#[derive(Debug)]
struct DeferredVerifier {
    strict: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for DeferredVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
