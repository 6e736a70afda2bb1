//! Both ends of a node's way into the cloud, over real sockets: token, CA, certificate, WebSocket port, renewal.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kubeedge_cloud::{
    hub::bootstrap::{Bootstrap, serve},
    pki::{Pki, PkiConfig, peer_node_name},
};
use kubeedge_core::names::{NodeName, SharedClock, UnixMillis, WallClock};
use kubeedge_edge::pki::{CertificateConfig, CertificateError, CertificateFiles, EdgeCertificates, Identity};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, rustls::pki_types::ServerName};
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_secs(86_400);

/// Both ends go by it. Stands still until it is told to move.
struct TestClock(Mutex<UnixMillis>);

impl TestClock {
    fn advance(&self, by: Duration) {
        self.0.lock().unwrap().0 += i64::try_from(by.as_millis()).unwrap();
    }
}

impl WallClock for TestClock {
    fn now(&self) -> UnixMillis {
        *self.0.lock().unwrap()
    }
}

/// A Kubernetes API that has nothing and takes everything.
fn empty_api() -> kube::Client {
    let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let (status, body) = if head.method == Method::POST {
            (StatusCode::CREATED, serde_json::from_slice(&body).unwrap())
        } else {
            let absent = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": head.uri.path(), "reason": "NotFound", "code": 404,
            });
            (StatusCode::NOT_FOUND, absent)
        };
        let body: Value = body;
        let body = Full::new(Bytes::from(body.to_string()));
        Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
    });
    kube::Client::new(service, "default")
}

struct Cloud {
    pki: Pki,
    clock: Arc<TestClock>,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Cloud {
    async fn start() -> Self {
        let clock = Arc::new(TestClock(Mutex::new(UnixMillis::from_system(std::time::SystemTime::now()))));
        let config = PkiConfig::new(vec!["127.0.0.1".parse().unwrap()]);
        let client = empty_api();
        let pki = Pki::load_or_create(&client, config, clock.clone() as SharedClock).await.unwrap();
        let router = Bootstrap::new(&pki, client).unwrap().router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, pki.https_config().unwrap(), router, shutdown.clone()));
        Self { pki, clock, address, shutdown, serving }
    }

    fn node(&self, name: &str, folder: &Path, token: Option<String>) -> EdgeCertificates {
        let files = CertificateFiles::in_dir(folder);
        let mut config =
            CertificateConfig::new(NodeName::new(name).unwrap(), format!("https://{}", self.address), files);
        config.token = token;
        EdgeCertificates::new(config, self.clock.clone()).unwrap()
    }

    fn token(&self) -> String {
        self.pki.join_token().as_str().to_owned()
    }

    /// Dials a port with the TLS of the WebSocket port; the node that the cloud sees, unless it refuses.
    async fn sees(&self, identity: &Identity) -> Option<NodeName> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(self.pki.websocket_config().unwrap());
        let cloud = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.ok()?;
            stream.write_all(b"hello").await.unwrap();
            stream.flush().await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
            Some(peer_node_name(&session.peer_certificates().unwrap()[0]).unwrap())
        };
        let edge = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let connector = TlsConnector::from(identity.client_config());
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).await.is_ok()
        };
        let (seen, greeted) = tokio::join!(cloud, edge);
        assert_eq!(seen.is_some(), greeted);
        seen
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }
}

#[tokio::test]
async fn a_node_joins_is_recognised_and_renews() {
    let (cloud, folder) = (Cloud::start().await, tempfile::tempdir().unwrap());
    let certificates = cloud.node("edge-1", folder.path(), Some(cloud.token()));
    let first = certificates.obtain().await.unwrap();
    assert_eq!(cloud.sees(&first).await.unwrap().as_str(), "edge-1");

    let second = certificates.rotate(&first).await.unwrap();
    assert_eq!(cloud.sees(&second).await.unwrap().as_str(), "edge-1");

    // The renewal shows the second one, and the third is found at the next start, with no token.
    let renewal = certificates.renewal(second.clone());
    let mut identities = renewal.watch();
    let stop = CancellationToken::new();
    cloud.clock.advance(DAY * 330);
    let running = tokio::spawn(renewal.run(stop.clone()));
    identities.changed().await.unwrap();
    stop.cancel();
    running.await.unwrap();
    cloud.clock.advance(DAY * 330);
    let third = cloud.node("edge-1", folder.path(), None).obtain().await.unwrap();
    assert_eq!(cloud.sees(&third).await.unwrap().as_str(), "edge-1");
    assert!(cloud.sees(&second).await.is_none(), "it has expired");
    cloud.stop().await;
}

#[tokio::test]
async fn a_node_that_slept_too_long_joins_again() {
    let (cloud, folder) = (Cloud::start().await, tempfile::tempdir().unwrap());
    let first = cloud.node("edge-1", folder.path(), Some(cloud.token())).obtain().await.unwrap();
    let stale = cloud.token();
    cloud.clock.advance(DAY * 366);
    let err = cloud.node("edge-1", folder.path(), Some(stale)).obtain().await.unwrap_err();
    let url = format!("https://{}/edge.crt", cloud.address);
    let text = format!("{url} answered 401: token validation failure, err: token has invalid claims: token is expired");
    assert_eq!(err.to_string(), text);

    let expires = UnixMillis(cloud.clock.now().0 + 3_600_000);
    let fresh = cloud.pki.authority().mint_token(expires).unwrap();
    let second = cloud.node("edge-1", folder.path(), Some(fresh.as_str().to_owned())).obtain().await.unwrap();
    assert!(cloud.sees(&first).await.is_none());
    assert_eq!(cloud.sees(&second).await.unwrap().as_str(), "edge-1");
    cloud.stop().await;
}

#[tokio::test]
async fn one_cloud_does_not_take_the_tokens_of_another() {
    let (cloud, other, folder) = (Cloud::start().await, Cloud::start().await, tempfile::tempdir().unwrap());
    let err = cloud.node("edge-1", folder.path(), Some(other.token())).obtain().await.unwrap_err();
    assert!(matches!(err, CertificateError::WrongAuthority { .. }), "{err}");
    // The right hash with the secret of somebody else.
    let forged = format!("{}{}", &cloud.token()[..64], &other.token()[64..]);
    let err = cloud.node("edge-1", folder.path(), Some(forged)).obtain().await.unwrap_err();
    assert!(
        err.to_string()
            .ends_with("401: token validation failure, err: token signature is invalid: signature is invalid")
    );
    cloud.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_node_cannot_become_another() {
    let (cloud, one, two) = (Cloud::start().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = cloud.node("edge-1", one.path(), Some(cloud.token())).obtain().await.unwrap();
    let err = cloud.node("edge-2", two.path(), None).rotate(&first).await.unwrap_err();
    assert!(err.to_string().contains("edge-2, err: request node name is not match with the certificate"), "{err}");
    cloud.stop().await;
}
