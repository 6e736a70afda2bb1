//! A cloud for tests behind real TLS.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use kubeedge_core::{names::SystemClock, transport::CloudEndpoint};
use kubeedge_edge::pki::Identity;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::handshake::server::{Request, Response},
};

/// By the real clock.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

/// A CA as KubeEdge has one.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "KubeEdge");
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn sign(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (certificate, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    pub(crate) fn node_pair(&self, node: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Writes `ca.crt`, `edge.crt` and `edge.key` of `node`.
    pub(crate) fn write_files(&self, node: &str, folder: &Path) {
        let (certificate, key) = self.node_pair(node);
        let write = |name: &str, tag: &str, der: &[u8]| {
            std::fs::write(folder.join(name), pem::encode(&pem::Pem::new(tag, der))).unwrap();
        };
        write("ca.crt", "CERTIFICATE", &self.certificate);
        write("edge.crt", "CERTIFICATE", &certificate);
        write("edge.key", "PRIVATE KEY", key.secret_der());
    }

    pub(crate) fn identity(&self, node: &str) -> Identity {
        let (certificate, key) = self.node_pair(node);
        Identity::from_der(std::slice::from_ref(&self.certificate), &[certificate], key, Arc::new(SystemClock)).unwrap()
    }

    pub(crate) fn acceptor(&self, name: &str) -> TlsAcceptor {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let (certificate, key) = self.sign(params, ExtendedKeyUsagePurpose::ServerAuth);
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        // A Go cloud offers h2 as well; choosing it would end in garbage.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config).into()
    }
}

/// A cloud that accepts one connection at a time.
pub(crate) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Server {
    pub(crate) async fn new(tls: TlsAcceptor) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), tls }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn endpoint(&self) -> CloudEndpoint {
        CloudEndpoint::new(self.addr().to_string(), "edge-1".parse().unwrap())
    }

    pub(crate) async fn secured(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        within(self.tls.accept(stream)).await
    }

    pub(crate) async fn accept(&self) -> (WebSocketStream<TlsStream<TcpStream>>, Request) {
        let stream = self.secured().await.unwrap();
        let mut seen = None;
        #[expect(clippy::result_large_err, reason = "the signature is that of the library")]
        let note = |request: &Request, response: Response| {
            seen = Some(request.clone());
            Ok(response)
        };
        let socket = within(accept_hdr_async(stream, note)).await.unwrap();
        (socket, seen.unwrap())
    }
}
