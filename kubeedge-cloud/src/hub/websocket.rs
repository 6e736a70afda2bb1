//! The WebSocket port.
//!
//! Upstream: `pkg/viaduct/pkg/server/ws.go`, `cloud/pkg/cloudhub/servers`.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    names::NodeName,
    transport::{
        Extensions, Hello,
        websocket::{self, WebSocketFrames, WebSocketLink},
    },
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    accept_hdr_async_with_config,
    tungstenite::{
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{ConversationEnd, Farewell},
    door::{Admitted, Guests, HubDoor, Refusal, Rejected, accepted},
    handshake,
};
use crate::pki::peer_node_name;

/// What is read at a time: a connection keeps room for it. Most nodes are silent most of the time, and there are many.
const READ: usize = 2 * 1024;
/// What is written at a time.
const WRITE: usize = 4 * 1024;
/// For the peer to take the last frame.
const FAREWELL: Duration = Duration::from_secs(1);

impl HubDoor {
    /// Accepts nodes on `listener` until `shutdown`; then says farewell to all.
    ///
    /// `tls` has to require and verify a client certificate, as [`websocket_config`](crate::pki::websocket_config) does.
    /// Its node, and no other, may be in the header `Node_id` of the handshake.
    ///
    /// # Cancel safety
    /// Dropping the future ends all sessions without a farewell.
    pub async fn websocket(&self, listener: TcpListener, tls: Arc<ServerConfig>, shutdown: CancellationToken) {
        let acceptor = TlsAcceptor::from(tls);
        let guests = Guests::of_sockets(self.clone(), shutdown);
        guests
            .serve(async |guests: &Guests| {
                loop {
                    let room = guests.room().await;
                    let Some((stream, peer)) = accepted(listener.accept().await).await else { continue };
                    let (acceptor, door, admit) = (acceptor.clone(), self.clone(), guests.admission());
                    let knock = async move {
                        // An error shows again when it is read.
                        let _ = stream.readable().await;
                        stream
                    };
                    let shake = async move |stream| {
                        let (link, admitted) = shake(stream, acceptor, door.message_limit(), admit).await?;
                        Ok((link, admitted, door))
                    };
                    guests.spawn(room, peer, knock, shake, move |(mut link, admitted, door), shutdown| async move {
                        let end = door.converse(admitted, &mut link, &peer, &shutdown).await;
                        say_farewell(&mut link, &end).await;
                    });
                }
            })
            .await;
    }
}

type ServerLink = WebSocketLink<TlsStream<TcpStream>>;

async fn shake(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    limit: usize,
    admit: impl Fn(&Hello, &NodeName) -> Result<Admitted, Refusal> + Send,
) -> Result<(ServerLink, Admitted), Rejected> {
    // Messages are small, and an acknowledgement that waits holds up the next object.
    let _ = stream.set_nodelay(true);
    let stream = acceptor.accept(stream).await.map_err(Rejected::Tls)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let node = peer_node_name(certificate.ok_or(Rejected::NoCertificate)?).map_err(Rejected::Certificate)?;
    let mut outcome = Err(Refusal::NoNode);
    #[expect(clippy::result_large_err, reason = "the signature is that of the callback")]
    let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        outcome = handshake::check(request, &node).and_then(|hello| admit(&hello, &node));
        match &outcome {
            Ok(admitted) => Ok(with_extensions(response, admitted.extensions())),
            Err(refusal) => Err(handshake::response(refusal)),
        }
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ)
        .write_buffer_size(WRITE)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    let accepted = accept_hdr_async_with_config(stream, check, Some(config)).await;
    match (accepted, outcome) {
        (Ok(socket), Ok(admitted)) => {
            let frames = WebSocketFrames::new(socket, peer_name(&node));
            Ok((websocket::link(frames, admitted.extensions(), limit), admitted))
        }
        (Err(_) | Ok(_), Err(refusal)) => Err(Rejected::Refused(refusal, node)),
        (Err(err), Ok(_)) => Err(Rejected::WebSocket(err.into())),
    }
}

fn peer_name(node: &NodeName) -> String {
    format!("node {node}")
}

/// Tells a peer that offered extensions which of them hold. A Go peer offers none.
fn with_extensions(mut response: Response, extensions: Extensions) -> Response {
    if !extensions.is_none()
        && let Ok(value) = extensions.to_string().parse()
    {
        response.headers_mut().insert(Extensions::HEADER, value);
    }
    response
}

async fn say_farewell(link: &mut ServerLink, end: &ConversationEnd) {
    if let Some(farewell) = end.farewell() {
        let frame = CloseFrame { code: close_code(farewell), reason: farewell.reason().into() };
        // What the peer makes of it is its business.
        let _ = timeout(FAREWELL, link.get_mut().close_with(frame)).await;
    }
}

fn close_code(farewell: Farewell) -> CloseCode {
    match farewell {
        Farewell::CloudStops => CloseCode::Restart,
        Farewell::Replaced | Farewell::NodeDeleted => CloseCode::Normal,
        Farewell::QueueFull => CloseCode::Again,
        Farewell::KeepaliveMissed => CloseCode::Policy,
        Farewell::Malformed => CloseCode::Invalid,
    }
}
