#![allow(clippy::unwrap_used)]
//! Over real sockets; the recorded requests are those of Go and of curl against Go cloudcore.

mod limits;
mod tasks;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use kubeedge_core::names::{NodeName, SharedClock, UnixMillis, WallClock as _};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use x509_parser::parse_x509_certificate;

use super::{Bootstrap, MAX_BODY, serve};
use crate::pki::{
    CertificateAuthority, ClockTime, ExtKeyUsages, Pki,
    fake_api::FakeApi,
    provider,
    tests::{TestClock, config},
};

struct Port {
    api: FakeApi,
    clock: Arc<TestClock>,
    pki: Pki,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

/// A client certificate and its key.
struct Shown(CertificateDer<'static>, PrivateKeyDer<'static>);

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Port {
    async fn open() -> Self {
        Self::open_with(|routes| routes).await
    }

    async fn open_with(change: impl FnOnce(Bootstrap) -> Bootstrap) -> Self {
        let (api, clock) = (FakeApi::new(), TestClock::new());
        let pki = Pki::load_or_create(&api.client(), config(), clock.clone() as SharedClock).await.unwrap();
        let router = change(Bootstrap::new(&pki, api.client()).unwrap()).router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, pki.https_config().unwrap(), router, shutdown.clone()));
        Self { api, clock, pki, address, shutdown, serving }
    }

    async fn connect(&self, shown: Option<&Shown>) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.pki.authority().certificate().clone()).unwrap();
        let config = ClientConfig::builder_with_details(Arc::new(ring()), Arc::new(ClockTime(self.clock.clone())))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            Some(Shown(certificate, key)) => {
                config.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
    }

    async fn send(&self, shown: Option<&Shown>, request: &[u8]) -> Answer {
        let mut stream = self.connect(shown).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut bytes = Vec::new();
        let _ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        Answer { status: head[9..12].parse().unwrap(), head, body: bytes[end..].to_vec() }
    }

    async fn ask_certificate(&self, node: &str, shown: Option<&Shown>, jwt: Option<&str>, csr: &[u8]) -> Answer {
        let token = jwt.map(|jwt| format!("Authorization: Bearer {jwt}\r\n")).unwrap_or_default();
        let head = format!(
            "GET /edge.crt HTTP/1.1\r\nHost: x\r\nNodeName: {node}\r\n{token}Content-Length: {}\r\nConnection: close\r\n\r\n",
            csr.len()
        );
        self.send(shown, &[head.as_bytes(), csr].concat()).await
    }

    fn jwt(&self, header: &str, claims: &str, algorithm: Algorithm) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(self.pki.authority().key_der());
        format!("{message}.{}", sign(message.as_bytes(), &key, algorithm).unwrap())
    }

    fn good_jwt(&self) -> String {
        let token = self.pki.join_token();
        token.as_str().split_once('.').unwrap().1.to_owned()
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }
}

fn ring() -> rustls::crypto::CryptoProvider {
    provider().as_ref().clone()
}

fn csr_of(node: &str) -> (Vec<u8>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    let key = KeyPair::generate().unwrap();
    let csr = params.serialize_request(&key).unwrap().der().to_vec();
    (csr, PrivateKeyDer::Pkcs8(key.serialized_der().to_vec().into()))
}

fn shown(authority: &CertificateAuthority, node: &str, now: UnixMillis) -> Shown {
    let (csr, key) = csr_of(node);
    let name = NodeName::new(node).unwrap();
    let day = Duration::from_secs(86_400);
    Shown(authority.sign_edge(&csr, &name, ExtKeyUsages::default(), day, now).unwrap(), key)
}

struct Recorded {
    note: String,
    request: Vec<u8>,
    answer: Answer,
}

/// The recorded exchanges, in their order.
fn recorded() -> Vec<Recorded> {
    let file = include_str!("../../../tests/golden/01-certificate-bootstrap.jsonl");
    let (mut exchanges, mut note, mut request) = (Vec::new(), String::new(), Vec::new());
    for line in file.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let frame = line["frame"].as_str().unwrap();
        let body = line["body_b64"].as_str().map(|body| STANDARD.decode(body).unwrap());
        if line["dir"] == "note" {
            note = frame.to_owned();
            continue;
        }
        let (head, text) = frame.split_once("\r\n\r\n").unwrap();
        let body = body.unwrap_or_else(|| text.as_bytes().to_vec());
        if line["side"] == "request" {
            request = [head.as_bytes(), b"\r\n\r\n", &body].concat();
        } else {
            let status = head[9..12].parse().unwrap();
            let answer = Answer { status, head: head.to_owned(), body };
            exchanges.push(Recorded { note: note.clone(), request: request.clone(), answer });
        }
    }
    exchanges
}

/// Where we answer in another way than Go cloudcore, and what.
const DIFFERENT: [(&str, u16, &str); 10] = [
    (
        "CSR common name of another node",
        403,
        "failed to sign certs for edgenode edge-h, err: fail to signCerts, err: subject \"C=CN, O=system:nodes, ",
    ),
    (
        "CSR for an arbitrary subject (system:masters)",
        403,
        "failed to sign certs for edgenode edge-h, err: fail to signCerts, err: subject \"",
    ),
    (
        "token that has no exp claim",
        401,
        "token validation failure, err: token has invalid claims: token is missing required claim: exp claim is required",
    ),
    ("alg none", 401, "token validation failure, err: token is unverifiable: signing method is not HS256"),
    ("alg HS384", 401, "token validation failure, err: token is unverifiable: signing method is not HS256"),
    ("scheme Basic", 401, "token validation failure, authorization scheme is not Bearer"),
    ("good token without NodeName", 400, "NodeName header is required"),
    // Reports of node tasks came without a certificate; see the tests of them.
    ("POST /nodeupgrade", 401, "a client certificate is required"),
    ("POST /task/", 401, "a client certificate is required"),
    // As recorded up to here; behind it are the words of Go's JSON parser.
    (
        "JWT of three segments of rubbish",
        401,
        "token validation failure, err: token is malformed: could not JSON decode header",
    ),
];

#[tokio::test]
async fn the_recorded_requests_are_answered_as_recorded_or_better() {
    let port = Port::open().await;
    let now = port.clock.now().0 / 1000;
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let good =
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTUyMzUyMjB9.huN1-KOK_QMHyNDH66vZGwvJVbRTrhouw19zKxy_k8o";
    let own =
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTUzMTc5NTR9.wtGPb3BRf7nmEx5kUgZ-uLBW6iblWz4RPNCyOED6T5c";
    let expired =
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTUyMzE1NjB9.hBYNEiU0vVNE9lhreC4OryRNIocxDBI87EifERRwUOM";
    let endless = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.WflBw08McQU_I5bNjqjbfNVn-vxkQPLI8pc9oDWia4s";
    let hs384 = "eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTUyMzUyMjB9.XXpM6mMIFBqdG3dwieeFB0xooXJOObH1phw8P1u-kVMRiTupz2cTvxdbzt_0pNjo";
    // The same claims, signed with the key of the test's own CA.
    let ours = [
        (good, port.jwt(header, &format!("{{\"exp\":{}}}", now + 3600), Algorithm::HS256)),
        (own, port.good_jwt()),
        (expired, port.jwt(header, &format!("{{\"exp\":{}}}", now - 60), Algorithm::HS256)),
        (endless, port.jwt(header, "{}", Algorithm::HS256)),
        (hs384, port.jwt(r#"{"alg":"HS384","typ":"JWT"}"#, &format!("{{\"exp\":{}}}", now + 3600), Algorithm::HS384)),
    ];
    let edge_go = shown(port.pki.authority(), "edge-go", port.clock.now());

    let recorded = recorded();
    assert_eq!(recorded.len(), 37);
    for Recorded { note, request, answer: theirs } in recorded {
        let (head, body) = {
            let end = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
            (String::from_utf8(request[..end].to_vec()).unwrap(), &request[end..])
        };
        let head = ours.iter().fold(head, |head, (recorded, minted)| head.replace(recorded, minted));
        let close = if head.contains("Connection: close") { "" } else { "\r\nConnection: close" };
        let request = [head.as_bytes(), close.as_bytes(), body].concat();
        let shown = note.starts_with("rotation:").then_some(&edge_go);
        let answer = port.send(shown, &request).await;

        if let Some((_, status, text)) = DIFFERENT.iter().find(|(name, ..)| note.contains(name)) {
            assert_eq!(answer.status, *status, "{note}: {}", answer.text());
            assert!(answer.text().starts_with(text), "{note}: {}", answer.text());
            continue;
        }
        assert_eq!(answer.status, theirs.status, "{note}: {}", answer.text());
        for name in ["content-type:", "allow:"] {
            assert_eq!(fields(&answer.head, name), fields(&theirs.head, name), "{note}");
        }
        match (answer.status, head.starts_with("GET /ca.crt")) {
            (200, true) => assert_eq!(answer.body, port.pki.authority().certificate().as_ref()),
            (200, false) => same_certificate(&answer.body, &theirs.body, &note),
            // Behind this are the words of Go's parsers.
            _ => match theirs
                .text()
                .find("failed to parse csr, err: ")
                .or_else(|| theirs.text().find("ExtKeyUsages fail"))
            {
                Some(end) => assert_eq!(answer.text()[..end + 17], theirs.text()[..end + 17], "{note}"),
                None => assert_eq!(answer.text(), theirs.text(), "{note}"),
            },
        }
    }
    port.close().await;
}

fn fields(head: &str, name: &str) -> Vec<String> {
    head.to_lowercase().split("\r\n").filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

fn same_certificate(ours: &[u8], theirs: &[u8], note: &str) {
    let (_, ours) = parse_x509_certificate(ours).unwrap();
    let (_, theirs) = parse_x509_certificate(theirs).unwrap();
    assert_eq!(ours.subject(), theirs.subject(), "{note}");
    assert_eq!(ours.issuer().to_string(), theirs.issuer().to_string(), "{note}");
    assert_eq!(ours.public_key().raw, theirs.public_key().raw, "{note}");
    assert_eq!(ours.key_usage().unwrap(), theirs.key_usage().unwrap(), "{note}");
    assert_eq!(ours.extended_key_usage().unwrap(), theirs.extended_key_usage().unwrap(), "{note}");
    assert_eq!(ours.extensions().len(), theirs.extensions().len(), "{note}");
}

#[tokio::test]
async fn a_client_certificate_decides_alone_and_must_be_good() {
    let port = Port::open().await;
    let (csr, _) = csr_of("edge-1");
    let good = port.good_jwt();
    let own = shown(port.pki.authority(), "edge-1", port.clock.now());
    assert_eq!(port.ask_certificate("edge-1", Some(&own), None, &csr).await.status, 200);

    let foreign_ca = CertificateAuthority::generate(port.clock.now()).unwrap();
    let foreign = shown(&foreign_ca, "edge-1", port.clock.now());
    let denied = port.ask_certificate("edge-1", Some(&foreign), Some(&good), &csr).await;
    assert_eq!(denied.status, 401);
    assert!(
        denied.text().starts_with("failed to verify the certificate for edgenode: edge-1, err: "),
        "{}",
        denied.text()
    );

    let other = shown(port.pki.authority(), "edge-2", port.clock.now());
    let denied = port.ask_certificate("edge-1", Some(&other), Some(&good), &csr).await;
    assert_eq!(denied.status, 401);
    assert!(denied.text().ends_with("request node name is not match with the certificate"), "{}", denied.text());

    // A server certificate of the same CA is not one for clients.
    let server = port.pki.server_certificate();
    let server = Shown(server.chain()[0].clone(), server.key().clone_key());
    assert_eq!(port.ask_certificate("edge-1", Some(&server), Some(&good), &csr).await.status, 401);

    port.clock.advance(Duration::from_secs(86_401));
    let denied = port.ask_certificate("edge-1", Some(&own), Some(&good), &csr).await;
    assert_eq!(denied.status, 401);
    assert!(denied.text().contains("xpired"), "{}", denied.text());
    port.close().await;
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit_whoever_sends_it() {
    let port = Port::open().await;
    let long = vec![0; MAX_BODY + 1];
    assert_eq!(port.ask_certificate("edge-1", None, Some(&port.good_jwt()), &long).await.status, 413);
    assert_eq!(port.ask_certificate("edge-1", None, Some("a.b.c"), &long[1..]).await.status, 401);
    assert_eq!(port.ask_certificate("Edge_1", None, Some(&port.good_jwt()), &[]).await.status, 400);
    let head = format!("GET /ca.crt HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20 * 1024));
    assert_eq!(port.send(None, head.as_bytes()).await.status, 431);
    port.close().await;
}

#[tokio::test]
async fn nodes_are_looked_up() {
    let port = Port::open().await;
    let ask = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = port.send(None, request.as_bytes()).await;
        (answer.status, answer.text())
    };
    port.api.put("/api/v1/nodes/edge-1", json!({ "metadata": { "name": "edge-1" } }));
    assert_eq!(ask("/node/edge-1").await, (200, "Node found".into()));
    assert_eq!(ask("/node/edge-2").await, (404, "Node not found".into()));
    assert_eq!(ask("/node/..%2F..%2Fnodes").await, (404, "Node not found".into()));
    assert_eq!(ask("/node/%20").await, (400, "nodename parameter is required".into()));
    port.api.fail_next(1);
    assert_eq!(ask("/node/edge-1").await, (500, "Failed to query node information".into()));
    port.close().await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let port = Port::open().await;
    let mut idle = port.connect(None).await.unwrap();
    idle.write_all(b"GET /ca.crt HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let address = port.address;
    tokio::time::timeout(Duration::from_secs(4), port.close()).await.expect("no wait for idle connections");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_websocket_port_demands_a_certificate_of_the_ca() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    let pki = Pki::load_or_create(&api.client(), config(), clock.clone() as SharedClock).await.unwrap();
    let router = Bootstrap::new(&pki, api.client()).unwrap().router();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let serving = tokio::spawn(serve(listener, pki.websocket_config().unwrap(), router, shutdown.clone()));
    let port = Port { api, clock, pki, address, shutdown, serving };

    let answered = async |shown: Option<&Shown>| {
        let Ok(mut stream) = port.connect(shown).await else { return false };
        // With TLS 1.3 the refusal comes after the client's side of the handshake.
        let sent = stream.write_all(b"GET /ca.crt HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut first = [0; 15];
        sent.is_ok() && stream.read_exact(&mut first).await.is_ok()
    };
    let own = shown(port.pki.authority(), "edge-1", port.clock.now());
    let foreign_ca = CertificateAuthority::generate(port.clock.now()).unwrap();
    assert!(answered(Some(&own)).await);
    assert!(!answered(None).await);
    assert!(!answered(Some(&shown(&foreign_ca, "edge-1", port.clock.now()))).await);
    port.clock.advance(Duration::from_secs(86_401));
    assert!(!answered(Some(&own)).await, "the certificate has expired");
    port.close().await;
}
