//! An HTTPS port of a cloud for tests: its own CA, scripted misbehaviour, and a memory of what it was asked.
#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use kubeedge_core::names::{NodeName, SharedClock, UnixMillis, WallClock};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use x509_parser::time::ASN1Time;

use super::{CertificateConfig, CertificateFiles, EdgeCertificates};

/// Stands still until it is told to move.
pub(crate) struct TestClock(Mutex<UnixMillis>);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(UnixMillis(1_795_231_620_000))))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.lock().unwrap().0 += i64::try_from(by.as_millis()).unwrap();
    }
}

impl WallClock for TestClock {
    fn now(&self) -> UnixMillis {
        *self.0.lock().unwrap()
    }
}

/// How long certificates of the fake cloud are valid.
pub(crate) const LIFE: Duration = Duration::from_secs(100 * 86_400);

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Behaviour {
    Good,
    /// Shows a server certificate of another CA.
    Impostor,
    /// Answers `/edge.crt` with this.
    Says(u16, &'static str),
    /// Signs for another node.
    OtherNode,
    /// Signs another key.
    OtherKey,
    /// Sends more than anybody should read.
    Endless,
    /// Takes no client certificate, only tokens.
    TokensOnly,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) by_certificate: bool,
}

pub(crate) struct FakeCloud {
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    pub(crate) behaviour: Arc<Mutex<Behaviour>>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) address: SocketAddr,
    _serving: JoinSet<()>,
}

struct Authority {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn dates(params: &mut CertificateParams, now: UnixMillis, life: Duration) {
    let date = |seconds| ASN1Time::from_timestamp(seconds).unwrap().to_datetime();
    let now = now.0 / 1000;
    params.not_before = date(now);
    params.not_after = date(now + i64::try_from(life.as_secs()).unwrap());
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "KubeEdge");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().clone();
    Authority { der, issuer: Issuer::new(params, key) }
}

fn server_config(ca: &Authority, roots: &Authority, clock: SharedClock) -> Arc<ServerConfig> {
    let mut params = CertificateParams::default();
    // As Go cloudcore makes them: an empty name beside the address.
    params.subject_alt_names =
        vec![SanType::DnsName("".try_into().unwrap()), SanType::IpAddress([127, 0, 0, 1].into())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &ca.issuer).unwrap().der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()));
    let mut store = RootCertStore::empty();
    store.add(roots.der.clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone());
    let config = ServerConfig::builder_with_details(provider, Arc::new(super::tls::ClockTime(clock)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(vec![certificate], key);
    Arc::new(config.unwrap())
}

impl FakeCloud {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let clock = TestClock::new();
        let (own, other) = (Arc::new(authority()), authority());
        let good = server_config(&own, &own, clock.clone());
        let false_one = server_config(&other, &own, clock.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, behaviour) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(behaviour)));
        let ca = own.der.clone();
        let mut serving = JoinSet::new();
        let (memory, mood, time) = (asked.clone(), behaviour.clone(), clock.clone());
        serving.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mood = *mood.lock().unwrap();
                let tls = if mood == Behaviour::Impostor { &false_one } else { &good };
                // One after the other: the client has one connection at a time. A failed handshake is its business.
                let _ended = answer(stream, tls.clone(), &own, mood, &memory, time.now()).await;
            }
        });
        Self { ca, asked, behaviour, clock, address, _serving: serving }
    }

    /// The join token that recognises this cloud.
    pub(crate) fn token(&self) -> String {
        token_for(&self.ca)
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn certificates(&self, folder: &Path, token: Option<String>) -> EdgeCertificates {
        let files = CertificateFiles::in_dir(folder);
        let mut config = CertificateConfig::new(NodeName::new("edge-1").unwrap(), self.url(), files);
        config.token = token;
        config.token_file = Some(folder.join("token"));
        EdgeCertificates::new(config, self.clock.clone()).unwrap()
    }

    pub(crate) fn now_is(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

pub(crate) fn token_for(ca: &[u8]) -> String {
    let hash = super::obtain::hex(::ring::digest::digest(&::ring::digest::SHA256, ca).as_ref());
    format!("{hash}.head.claims.signature")
}

async fn answer(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    ca: &Authority,
    mood: Behaviour,
    asked: &Mutex<Vec<Asked>>,
    now: UnixMillis,
) -> std::io::Result<()> {
    let mut stream = TlsAcceptor::from(tls).accept(stream).await?;
    let by_certificate = stream.get_ref().1.peer_certificates().is_some();
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    while bytes.len() < end + length.unwrap_or(0) {
        stream.read_buf(&mut bytes).await?;
    }
    asked.lock().unwrap().push(Asked { head: head.clone(), by_certificate });
    let trusted = head.contains("authorization: bearer head.claims.signature")
        || (by_certificate && mood != Behaviour::TokensOnly);
    let (status, body) = match mood {
        _ if head.starts_with("get /ca.crt ") => (200, ca.der.to_vec()),
        Behaviour::Says(status, text) => (status, text.as_bytes().to_vec()),
        Behaviour::Endless => (200, vec![0; 2 * 1024 * 1024]),
        _ if !trusted => (401, b"who are you".to_vec()),
        _ => (200, sign(ca, &bytes[end..], mood, now)),
    };
    let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    stream.shutdown().await
}

fn sign(ca: &Authority, csr: &[u8], mood: Behaviour, now: UnixMillis) -> Vec<u8> {
    let csr = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr.to_vec())).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    let name = if mood == Behaviour::OtherNode { "system:node:edge-2" } else { "system:node:edge-1" };
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    dates(&mut params, now, LIFE);
    let signed = if mood == Behaviour::OtherKey {
        params.signed_by(&KeyPair::generate().unwrap(), &ca.issuer)
    } else {
        params.signed_by(&csr.public_key, &ca.issuer)
    };
    signed.unwrap().der().to_vec()
}
