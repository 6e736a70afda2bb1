//! What strangers can do to the port: connections, heads and bodies that never end, and the versions of TLS.

use rustls::{CipherSuite, SupportedProtocolVersion, version};
use tokio::{io::AsyncRead, net::TcpSocket, time::timeout};

use super::*;
use crate::hub::bootstrap::serve::{HANDSHAKE, MAX_CONNECTIONS, MAX_HEADERS, MAX_WAITING};

impl Port {
    /// Connects from another address of this machine.
    async fn connect_from(&self, source: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// The client's side of TLS as `change` has it.
    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        suite: Option<CipherSuite>,
    ) -> Option<TlsConnector> {
        let mut provider = ring();
        provider.cipher_suites.retain(|known| suite.is_none_or(|suite| known.suite() == suite));
        let mut roots = RootCertStore::empty();
        roots.add(self.pki.authority().certificate().clone()).unwrap();
        let config = ClientConfig::builder_with_details(provider.into(), Arc::new(ClockTime(self.clock.clone())))
            .with_protocol_versions(versions)
            .ok()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Some(TlsConnector::from(Arc::new(config)))
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("127.0.0.1").unwrap()
    }
}

const CA: &[u8] = b"GET /ca.crt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_half_open_handshakes_do_not_keep_others_out() {
    let port = Port::open().await;
    let (mut half_open, flood) = (Vec::new(), 2 * (MAX_CONNECTIONS + MAX_WAITING));
    for _ in 0..flood {
        let stream = port.connect_from("127.0.0.2").await;
        half_open.push(stream);
        // No more than the server takes at a time, and some.
        if half_open.len() > MAX_CONNECTIONS + MAX_WAITING + 64 {
            half_open.remove(0);
        }
    }
    let connector = port.client(rustls::ALL_VERSIONS, None).unwrap();
    let begin = std::time::Instant::now();
    for _ in 0..20 {
        let stream = port.connect_from("127.0.0.3").await;
        let mut stream = connector.connect(Port::name(), stream).await.expect("a handshake beside the flood");
        stream.write_all(CA).await.unwrap();
        let mut answer = Vec::new();
        let _end = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    }
    assert!(begin.elapsed() < HANDSHAKE / 2, "nobody waited for the flood to time out: {:?}", begin.elapsed());
    // What is beyond the limits is closed, not kept.
    let mut closed = 0;
    for stream in &mut half_open {
        let mut byte = [0];
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_millis(1), stream.read(&mut byte)).await {
            closed += 1;
        }
    }
    assert!(half_open.len() - closed <= MAX_CONNECTIONS + MAX_WAITING, "{closed} of {}", half_open.len());
    port.close().await;
}

/// Waits for the server to close a connection on which nothing more comes. Tells how long that took, and what it said.
async fn until_closed(mut stream: impl AsyncRead + Unpin) -> (Duration, String) {
    tokio::time::pause();
    let (begin, mut answer) = (tokio::time::Instant::now(), Vec::new());
    let _end = stream.read_to_end(&mut answer).await;
    let waited = begin.elapsed();
    tokio::time::resume();
    (waited, String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn a_peer_that_dawdles_is_cut() {
    let port = Port::open().await;
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    // The head of a TLS record that promises more.
    stream.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    let (waited, _) = until_closed(stream).await;
    assert!(waited <= HANDSHAKE * 2, "TLS: {waited:?}");

    let mut stream = port.connect(None).await.unwrap();
    stream.write_all(b"GET /ca.crt HTTP/1.1\r\nHo").await.unwrap();
    let (waited, _) = until_closed(stream).await;
    assert!(waited <= HANDSHAKE * 2, "head: {waited:?}");

    let mut stream = port.connect(None).await.unwrap();
    let head = "GET /edge.crt HTTP/1.1\r\nHost: x\r\nNodeName: edge-1\r\nContent-Length: 100\r\nConnection: close\r\n";
    stream.write_all(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    let (waited, answer) = until_closed(stream).await;
    assert!(waited <= HANDSHAKE * 2, "body: {waited:?}");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.ends_with("request body did not arrive in time"), "{answer}");
    port.close().await;
}

#[tokio::test]
async fn a_head_has_a_limited_number_of_fields() {
    let port = Port::open().await;
    let ask = async |fields: usize| {
        let fields = "X: y\r\n".repeat(fields);
        let head = format!("GET /ca.crt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
        port.send(None, head.as_bytes()).await.status
    };
    assert_eq!(ask(MAX_HEADERS - 2).await, 200);
    assert_eq!(ask(MAX_HEADERS - 1).await, 431);
    port.close().await;
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_with_the_suites_of_upstream() {
    use CipherSuite as Suite;
    let port = Port::open().await;
    let met = async |versions: &[&'static SupportedProtocolVersion], suite: Option<Suite>| {
        let connector = port.client(versions, suite)?;
        let stream = TcpStream::connect(port.address).await.unwrap();
        let mut stream = connector.connect(Port::name(), stream).await.ok()?;
        stream.write_all(CA).await.ok()?;
        let mut answer = Vec::new();
        let _end = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
        let session = stream.get_ref().1;
        Some((session.protocol_version()?, session.negotiated_cipher_suite()?.suite()))
    };
    let (old, new) = (rustls::ProtocolVersion::TLSv1_2, rustls::ProtocolVersion::TLSv1_3);
    for suite in [
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ] {
        assert_eq!(met(&[&version::TLS12], Some(suite)).await, Some((old, suite)));
    }
    assert_eq!(met(&[&version::TLS12], Some(Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)).await, None);
    assert_eq!(met(&[&version::TLS13], None).await.map(|met| met.0), Some(new));
    assert_eq!(met(rustls::ALL_VERSIONS, None).await.map(|met| met.0), Some(new));
    port.close().await;
}

#[tokio::test]
async fn a_renewed_server_certificate_is_shown_from_the_next_handshake_on() {
    let port = Port::open().await;
    let shown = async || {
        let stream = port.connect(None).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    let first = shown().await;
    let (client, clock) = (port.api.client(), port.clock.clone() as SharedClock);
    // Another instance that was started after somebody had deleted the certificate.
    port.api.remove("/api/v1/namespaces/kubeedge/secrets/cloudcoresecret");
    let other = Pki::load_or_create(&client, config(), clock).await.unwrap();
    assert_eq!(shown().await, first);
    tokio::time::pause();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(port.pki.server_renewal().run(shutdown.clone()));
    while port.pki.server_certificate().chain() != other.server_certificate().chain() {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    tokio::time::resume();
    assert_eq!(shown().await, other.server_certificate().chain()[0]);
    assert_ne!(shown().await, first);
    shutdown.cancel();
    running.await.unwrap();
    port.close().await;
}
