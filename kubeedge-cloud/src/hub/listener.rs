//! Accepting connections.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kubeedge_core::names::NodeName;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        self,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::WebSocketConfig,
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    HubParts,
    connection::{self, End},
    handshake::{self, Refusal},
    registry::{Admission, CloseReason},
};
use crate::pki::{PeerError, peer_node_name};

/// Handshakes at a time; further connections wait in the backlog of the listener.
const HANDSHAKES: usize = 512;
/// Pause after a failed `accept`, which happens when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Buffers of a connection: most nodes are silent most of the time, and there are many.
const BUFFER: usize = 4 * 1024;

/// Why a peer did not become a session.
#[derive(Debug, thiserror::Error)]
enum Rejected {
    #[error("no TLS handshake")]
    Tls(#[source] std::io::Error),
    #[error("handshake took too long")]
    TimedOut,
    #[error("certificate names no node")]
    Certificate(#[source] PeerError),
    #[error("no certificate")]
    NoCertificate,
    #[error("no WebSocket handshake")]
    WebSocket(#[source] Box<tungstenite::Error>),
    #[error("handshake of node {1} refused: {0}")]
    Refused(Refusal, NodeName),
}

/// Serves connections until `shutdown`, then closes all of them.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    hub: Arc<HubParts>,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    let _abort_on_drop = abort.clone().drop_guard();
    let accept = async {
        loop {
            // Never closed.
            let Ok(slot) = handshakes.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (acceptor, hub) = (acceptor.clone(), hub.clone());
                    let (abort, shutdown) = (abort.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let connection = async move {
                            // Boxed, so that a session does not keep the room of its handshake.
                            let shaken = Box::pin(shake(stream, acceptor, &hub));
                            let shaken = shutdown.run_until_cancelled(shaken).await;
                            drop(slot);
                            match shaken {
                                Some(Ok((socket, node, admission))) => {
                                    Box::pin(converse(socket, node, admission, peer, hub, &shutdown)).await;
                                }
                                Some(Err(err)) => {
                                    tracing::info!(%peer, err = &err as &dyn std::error::Error, "connection not accepted");
                                }
                                None => {}
                            }
                        };
                        abort.run_until_cancelled(connection).await;
                    });
                }
                Err(err) => {
                    tracing::warn!(%err, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let _stopped = shutdown.run_until_cancelled(accept).await;
    drop(listener);
    connections.close();
    hub.handle.close_all(CloseReason::Shutdown);
    if timeout(hub.config.farewell, connections.wait()).await.is_err() {
        abort.cancel();
        connections.wait().await;
    }
}

async fn shake(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    hub: &HubParts,
) -> Result<(WebSocketStream<TlsStream<TcpStream>>, NodeName, Admission), Rejected> {
    // Messages are small, and an acknowledgement that waits holds up the next object.
    let _ = stream.set_nodelay(true);
    let handshake = async {
        let stream = acceptor.accept(stream).await.map_err(Rejected::Tls)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let node = peer_node_name(certificate.ok_or(Rejected::NoCertificate)?).map_err(Rejected::Certificate)?;
        let (mut admission, mut refused) = (None, None);
        #[expect(clippy::result_large_err, reason = "the signature is that of the callback")]
        let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            let admitted =
                handshake::check(request, &node).and_then(|()| hub.handle.admit(&node).ok_or(Refusal::TooManyNodes));
            match admitted {
                Ok(admitted) => {
                    admission = Some(admitted);
                    Ok(response)
                }
                Err(refusal) => {
                    let response = refusal.response();
                    refused = Some(refusal);
                    Err(response)
                }
            }
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(BUFFER)
            .max_message_size(Some(hub.config.message_limit))
            .max_frame_size(Some(hub.config.message_limit));
        let accepted = accept_hdr_async_with_config(stream, check, Some(config)).await;
        match (accepted, admission, refused) {
            (_, _, Some(refusal)) => Err(Rejected::Refused(refusal, node)),
            (Ok(socket), Some(admission), None) => Ok((socket, node, admission)),
            (Ok(_), None, None) => Err(Rejected::Refused(Refusal::NoNode, node)),
            (Err(err), ..) => Err(Rejected::WebSocket(err.into())),
        }
    };
    timeout(hub.config.handshake_timeout, handshake).await.map_err(|_| Rejected::TimedOut)?
}

async fn converse(
    socket: WebSocketStream<TlsStream<TcpStream>>,
    node: NodeName,
    admission: Admission,
    peer: SocketAddr,
    hub: Arc<HubParts>,
    shutdown: &CancellationToken,
) {
    let (number, mailbox) = hub.handle.enter(&node, admission);
    if shutdown.is_cancelled() {
        // All others were closed before this one came.
        hub.handle.close(&node, CloseReason::Shutdown);
    }
    // Also when this future is dropped.
    let _leave = Leave { hub: hub.clone(), node: node.clone(), number };
    tracing::info!(%node, %peer, session = %number, "node connected");
    let end = connection::run(socket, node.clone(), mailbox, hub).await;
    match end {
        End::ClosedByPeer | End::ClosedByHub(_) => tracing::info!(%node, session = %number, %end, "node disconnected"),
        end => {
            let err = &end as &dyn std::error::Error;
            tracing::warn!(%node, session = %number, err, "session of a node broke");
        }
    }
}

struct Leave {
    hub: Arc<HubParts>,
    node: NodeName,
    number: super::SessionNumber,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.hub.handle.leave(&self.node, self.number);
    }
}
