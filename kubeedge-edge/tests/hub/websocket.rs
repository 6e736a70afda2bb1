use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use kubeedge_core::{
    message::{Content, Message},
    names::SystemClock,
    testing::transport_suite,
    transport::{CloudEndpoint, Link, LinkError, TransportHandle},
    wire::json,
};
use kubeedge_edge::{
    hub::{DialSettings, WebSocket},
    pki::Identity,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::server::Request,
        protocol::{
            Message as Frame,
            frame::{
                CloseFrame, Frame as RawFrame,
                coding::{Data, OpCode},
            },
        },
    },
};

use crate::{
    cloud::downlink,
    server::{Authority, Server, within},
};

async fn dial(websocket: &WebSocket, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
    within(TransportHandle::of(websocket.clone()).dial(endpoint)).await
}

async fn pair() -> (Box<dyn Link>, WebSocketStream<TlsStream<TcpStream>>, Request) {
    let authority = Authority::new();
    let server = Server::new(authority.acceptor("127.0.0.1")).await;
    let websocket = WebSocket::new(authority.identity("edge-1"));
    let (link, (socket, request)) = tokio::join!(dial(&websocket, server.endpoint()), server.accept());
    (link.unwrap(), socket, request)
}

#[tokio::test]
async fn the_handshake_is_that_of_kubeedge() {
    let (_link, socket, request) = pair().await;
    assert_eq!(request.uri().path(), "/e632aba927ea4ac2b575ec1603d56f10/edge-1/events");
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("node_id"), Some("edge-1"));
    assert_eq!(header("project_id"), Some("e632aba927ea4ac2b575ec1603d56f10"));
    assert_eq!(header("connectionuse"), Some("msg"));
    assert_eq!(header("sec-websocket-version"), Some("13"));
    for absent in ["origin", "sec-websocket-protocol", "sec-websocket-extensions"] {
        assert_eq!(header(absent), None, "{absent}");
    }
    let (_, tls) = socket.get_ref().get_ref();
    assert_eq!(tls.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert_eq!(tls.peer_certificates().map(<[_]>::len), Some(1));
}

#[tokio::test]
async fn messages_are_text_frames_and_all_forms_are_read() {
    let (mut link, mut socket, _) = pair().await;
    let sent = downlink("a", kubeedge_core::words::Operation::Update).content(Content::text("<&>"));
    let (sending, frame) = tokio::join!(link.send(sent.clone()), within(socket.next()));
    sending.unwrap();
    let Frame::Text(text) = frame.unwrap().unwrap() else { panic!("not a text frame") };
    assert!(text.ends_with("}\n"));
    assert_eq!(json::decode(&text).unwrap(), sent);

    let json = json::encode(&sent);
    let (start, rest) = json.as_bytes().split_at(100);
    let frame = |part: &[u8], code, last| Frame::Frame(RawFrame::message(part.to_vec(), OpCode::Data(code), last));
    // As Go does: a large first part, the rest, and an empty end. And a ping in between.
    let frames = [
        Frame::Binary(json.clone().into()),
        Frame::Ping("x".into()),
        frame(start, Data::Text, false),
        frame(rest, Data::Continue, false),
        frame(b"", Data::Continue, true),
    ];
    for frame in frames {
        within(socket.send(frame)).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(within(link.next()).await.unwrap().unwrap(), sent);
    }
    let pong = async {
        loop {
            if let Frame::Pong(_) = socket.next().await.unwrap().unwrap() {
                break;
            }
        }
    };
    // A pong leaves with the next read or write.
    tokio::select! {
        () = within(pong) => {}
        never = link.next() => panic!("nothing was sent: {never:?}"),
    }
    socket.close(Some(CloseFrame { code: 1000.into(), reason: "".into() })).await.unwrap();
    assert!(within(link.next()).await.is_none(), "an orderly end is an end");
}

#[tokio::test]
async fn what_is_no_message_ends_the_link() {
    for garbage in ["", "[1]", "{\"header\":{\"timestamp\":\"x\"}}", "no json"] {
        let (mut link, mut socket, _) = pair().await;
        within(socket.send(Frame::text(garbage))).await.unwrap();
        let error = within(link.next()).await.unwrap().unwrap_err();
        assert!(matches!(error, LinkError::Malformed(_)), "{garbage:?}: {error:?}");
        assert!(within(link.next()).await.is_none());
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_link() {
    let authority = Authority::new();
    let server = Server::new(authority.acceptor("127.0.0.1")).await;
    let websocket = WebSocket::new(authority.identity("edge-1")).settings(DialSettings::new().max_message(1000));
    let (link, (mut socket, _)) = tokio::join!(dial(&websocket, server.endpoint()), server.accept());
    let mut link = link.unwrap();
    within(socket.send(Frame::text("x".repeat(1001)))).await.unwrap();
    assert!(matches!(within(link.next()).await, Some(Err(LinkError::Malformed(_)))));
}

#[tokio::test]
async fn a_refusal_carries_the_words_of_the_cloud() {
    let authority = Authority::new();
    let server = Server::new(authority.acceptor("127.0.0.1")).await;
    let websocket = WebSocket::new(authority.identity("edge-1"));
    let refuse = async {
        let mut stream = server.secured().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        let body = format!("too many nodes{}", "!".repeat(2000));
        let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let (link, _stream) = tokio::join!(dial(&websocket, server.endpoint()), refuse);
    let Err(LinkError::Refused { peer, reason }) = link else { panic!("not refused") };
    assert_eq!(peer, server.addr().to_string());
    assert!(reason.starts_with("403 Forbidden too many nodes!"), "{reason}");
    assert!(reason.len() < 600, "a long text is cut");
}

#[tokio::test]
async fn only_the_right_cloud_and_the_right_node_are_trusted() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let websocket = WebSocket::new(ours.identity("edge-1"));
    for (what, tls) in [("foreign CA", foreign.acceptor("127.0.0.1")), ("other name", ours.acceptor("cloud.example"))] {
        let server = Server::new(tls).await;
        let (link, _) = tokio::join!(dial(&websocket, server.endpoint()), server.secured());
        assert!(matches!(link, Err(LinkError::Untrusted { .. })), "{what}: {:?}", link.err());
    }
    // The cloud does not know the CA of the node: TLS 1.3 tells only after the handshake.
    let server = Server::new(foreign.acceptor("127.0.0.1")).await;
    let stranger = {
        let (certificate, key) = ours.node_pair("edge-1");
        let trusted = [ours.certificate.clone(), foreign.certificate.clone()];
        Identity::from_der(&trusted, &[certificate], key, Arc::new(SystemClock)).unwrap()
    };
    let stranger = WebSocket::new(stranger);
    let (link, refused) = tokio::join!(dial(&stranger, server.endpoint()), server.secured());
    assert!(refused.is_err());
    assert!(matches!(link, Err(LinkError::Untrusted { .. })), "{:?}", link.err());
}

#[tokio::test]
async fn nobody_there_and_nobody_answering_are_told_apart() {
    let authority = Authority::new();
    let websocket =
        WebSocket::new(authority.identity("edge-1")).settings(DialSettings::new().timeout(Duration::from_millis(100)));
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = CloudEndpoint::new(gone.to_string(), "edge-1".parse().unwrap());
    assert!(matches!(dial(&websocket, endpoint).await, Err(LinkError::Unreachable { .. })));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = CloudEndpoint::new(silent.local_addr().unwrap().to_string(), "edge-1".parse().unwrap());
    assert!(matches!(dial(&websocket, endpoint).await, Err(LinkError::TimedOut)));
    let wrong = CloudEndpoint::new("cloud", "edge-1".parse().unwrap());
    let Err(LinkError::Failed(why)) = dial(&websocket, wrong).await else { panic!("no port") };
    assert_eq!(why.to_string(), "server \"cloud\" is not host:port");
}

#[tokio::test]
async fn a_dial_waits_for_the_first_certificate_and_uses_the_newest() {
    let authority = Authority::new();
    let server = Server::new(authority.acceptor("127.0.0.1")).await;
    let (identity, watched) = watch::channel(None);
    let websocket = WebSocket::following(watched);
    let first = tokio::spawn({
        let (websocket, endpoint) = (websocket.clone(), server.endpoint());
        async move { dial(&websocket, endpoint).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!first.is_finished());
    identity.send_replace(Some(authority.identity("edge-1")));
    let (socket, _) = server.accept().await;
    let certificate = |socket: &WebSocketStream<TlsStream<TcpStream>>| {
        socket.get_ref().get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let shown = certificate(&socket);
    within(first).await.unwrap().unwrap();
    identity.send_replace(Some(authority.identity("edge-1")));
    let (link, (socket, _)) = tokio::join!(dial(&websocket, server.endpoint()), server.accept());
    link.unwrap();
    assert_ne!(certificate(&socket), shown, "a renewed certificate is shown at the next dial");
    let (nobody, never) = watch::channel(None);
    drop(nobody);
    assert!(dial(&WebSocket::following(never), server.endpoint()).await.is_err(), "nobody will ever have one");
}

#[tokio::test]
async fn connections_are_made_from_the_address_that_was_chosen() {
    let authority = Authority::new();
    let server = Server::new(authority.acceptor("127.0.0.1")).await;
    let websocket = WebSocket::new(authority.identity("edge-1"));
    let chosen = websocket.clone().source([127, 0, 0, 2].into());
    let (link, (socket, _)) = tokio::join!(dial(&chosen, server.endpoint()), server.accept());
    link.unwrap();
    assert_eq!(socket.get_ref().get_ref().0.peer_addr().unwrap().ip().to_string(), "127.0.0.2");
    let other_family = websocket.source(std::net::Ipv6Addr::LOCALHOST.into());
    assert!(matches!(dial(&other_family, server.endpoint()).await, Err(LinkError::Unreachable { .. })));
}

/// The cloud's end as a link, for the suite.
struct Theirs(WebSocketStream<TlsStream<TcpStream>>);

impl futures_util::Stream for Theirs {
    type Item = Result<Message, LinkError>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx).map(|item| match item {
            Some(Ok(Frame::Text(text))) => {
                Some(json::decode(&text).map_err(|error| LinkError::Malformed(error.into())))
            }
            _ => None,
        })
    }
}

impl futures_util::Sink<Message> for Theirs {
    type Error = LinkError;
    fn poll_ready(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), LinkError>> {
        self.0.poll_ready_unpin(cx).map_err(|_| LinkError::Closed)
    }
    fn start_send(mut self: std::pin::Pin<&mut Self>, message: Message) -> Result<(), LinkError> {
        self.0.start_send_unpin(Frame::text(json::encode(&message))).map_err(|_| LinkError::Closed)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), LinkError>> {
        self.0.poll_flush_unpin(cx).map_err(|_| LinkError::Closed)
    }
    fn poll_close(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), LinkError>> {
        self.0.poll_close_unpin(cx).map_err(|_| LinkError::Closed)
    }
}

#[tokio::test]
async fn the_suite() {
    let (link, socket, _) = pair().await;
    transport_suite(link, Box::new(Theirs(socket))).await;
}
