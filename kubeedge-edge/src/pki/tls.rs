//! TLS towards the cloud: 1.2 and 1.3, `ring`, HTTP/1.1.

use std::{fmt, sync::Arc, time::Duration};

use kubeedge_core::names::SharedClock;
#[cfg(feature = "broker")]
use kubeedge_core::service::BoxError;
use rustls::{
    CipherSuite, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    WantsVerifier,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    time_provider::TimeProvider,
};
#[cfg(feature = "broker")]
use rustls::{ServerConfig, pki_types::pem::PemObject as _, server::WebPkiClientVerifier};

pub(crate) fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}

/// Verifies the server against `roots`, and shows a certificate of our own.
pub(crate) fn with_identity(
    roots: RootCertStore,
    clock: SharedClock,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, Error> {
    Ok(finish(builder(clock)?.with_root_certificates(roots).with_client_auth_cert(chain, key)?))
}

/// Verifies the server against `roots`, and shows nothing.
pub(crate) fn anonymous(roots: RootCertStore, clock: SharedClock) -> Result<ClientConfig, Error> {
    Ok(finish(builder(clock)?.with_root_certificates(roots).with_no_client_auth()))
}

/// For the one request that fetches the CA, whose body is recognised by its hash. See [`Unrecognised`].
pub(crate) fn before_the_authority_is_known(clock: SharedClock) -> Result<ClientConfig, Error> {
    let verifier = Unrecognised(provider().signature_verification_algorithms);
    Ok(finish(builder(clock)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()))
}

fn builder(clock: SharedClock) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock))).with_safe_default_protocol_versions()
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Nothing to gain: connections are rare, and the cloud wants the certificate each time.
    config.resumption = Resumption::disabled();
    config
}

/// TLS for a server of the edge: a chain and its key, and the CA whose certificates clients have to show, all PEM.
#[cfg(feature = "broker")]
pub(crate) fn server_config(chain: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<ServerConfig, BoxError> {
    let certificates = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let roots = Arc::new(roots(&certificates(pem)?)?);
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?)
        }
    };
    Ok(builder.with_single_cert(certificates(chain)?, PrivateKeyDer::from_pem_slice(key)?)?)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    // Servers go by our order. Processors have instructions for SHA-256, few for SHA-384, and 128 bits are enough.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The caller's clock, for rustls.
pub(crate) struct ClockTime(pub(crate) SharedClock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.now().0).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

/// Takes any server: for fetching a public document whose hash is known, and for nothing else.
///
/// The server cannot be verified at this point: only the hash of the CA is known, and KubeEdge's servers do not show the
/// CA in their chain. Who sits in between can refuse to deliver, but not deliver anything else.
#[derive(Debug)]
struct Unrecognised(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Unrecognised {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
