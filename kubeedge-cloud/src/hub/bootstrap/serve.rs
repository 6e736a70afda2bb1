//! Serving a router over TLS, with limits for peers that nobody knows yet.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::places::{Entry, Places};

/// Connections at a time.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Connections that wait, with nothing but a socket; further ones are dropped.
pub(super) const MAX_WAITING: usize = 128;
/// For the TLS handshake, and for the head of a request.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a whole connection: nobody has business here for longer.
const LIFETIME: Duration = Duration::from_secs(60);
/// For requests in flight at the end of a connection or of the server.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed `accept`, which happens when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
pub(super) const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 16 * 1024;

/// The certificates that a peer has shown, end entity first; empty if none. An extension of each request.
///
/// The TLS configuration decides whether they were verified: [`https_config`](crate::pki::https_config) leaves that to
/// the handler.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// Serves `router` on `listener` until `shutdown`, then lets requests in flight end within five seconds.
///
/// At most 256 connections are served at a time, each for at most a minute; a head has at most 16 KiB and 64 fields. A
/// TLS handshake and a head take at most ten seconds each. A further 128 connections wait. Addresses share this evenly:
/// when all places are taken, connections of an address with many give way to those of one with few.
///
/// # Cancel safety
/// Dropping the future closes all connections.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Places::new(MAX_CONNECTIONS, MAX_WAITING);
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    let _abort_on_drop = abort.clone().drop_guard();
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let entry = places.enter(peer.ip());
                    if matches!(entry, Entry::Full) {
                        tracing::debug!(%peer, "connection dropped, too many wait");
                        continue;
                    }
                    let (acceptor, router) = (acceptor.clone(), router.clone());
                    let (abort, shutdown) = (abort.clone(), shutdown.clone());
                    connections.spawn(async move {
                        let waited = timeout(HANDSHAKE, shutdown.run_until_cancelled(entry.place()));
                        let Ok(Some(Some(place))) = waited.await else { return };
                        // Boxed, so that those that wait do not take the room of those that are served.
                        let served = Box::pin(connection(stream, acceptor, router, shutdown));
                        let served = abort.run_until_cancelled(served);
                        match place.cut().run_until_cancelled(served).await {
                            Some(Some(Err(err))) => tracing::debug!(%peer, %err, "connection ended"),
                            None => tracing::debug!(%peer, "connection cut, others need its place"),
                            _ => {}
                        }
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
    if timeout(GRACE, connections.wait()).await.is_err() {
        abort.cancel();
        connections.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let peer: Arc<[CertificateDer<'static>]> = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
        .unwrap_or_default();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerCertificates(peer.clone()));
        router.clone().oneshot(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        ended = served.as_mut() => return ended.map_err(io::Error::other),
        () = shutdown.cancelled() => {}
        () = sleep(LIFETIME) => {}
    }
    served.as_mut().graceful_shutdown();
    timeout(GRACE, served).await.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)
}
