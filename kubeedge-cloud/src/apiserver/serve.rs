//! The HTTPS endpoint.

use std::{
    convert::Infallible,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{
    ApiService, ServingTls,
    reply::{Reply, ResponseBody},
    service::Stopping,
    status::ApiError,
};

/// Connections at one time; a further one waits in the listener's queue.
const CONNECTIONS: usize = 384;
/// Requests at one time on an HTTP/2 connection.
const STREAMS: u32 = 250;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);
/// How long a connection may last without a request of somebody who is let in: strangers must not take all places.
const STRANGER: Duration = Duration::from_secs(30);
/// How long open requests may take to end.
const GRACE: Duration = Duration::from_millis(800);
/// A pause after the listener failed, as it does when there are no file descriptors left.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is cancelled, then ends watches and open requests.
pub(super) async fn serve(
    service: ApiService,
    token: Arc<str>,
    listener: TcpListener,
    tls: &ServingTls,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(tls.config());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    // Dropped with this future, which ends every connection.
    let mut connections = JoinSet::new();
    let stopping = Stopping(shutdown.child_token());
    let guarded = Guarded { service, token, stopping, known: CancellationToken::new() };
    loop {
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection could not be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // Each connection has to become known by itself.
        let service = Guarded { known: CancellationToken::new(), ..guarded.clone() };
        let (acceptor, watcher) = (acceptor.clone(), graceful.watcher());
        connections.spawn(async move {
            connection(stream, &acceptor, service, watcher).await;
            drop(place);
        });
    }
    drop(listener);
    drop(timeout(GRACE, graceful.shutdown()).await);
    connections.shutdown().await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    service: Guarded,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Watch events are small and must not wait for more.
    drop(stream.set_nodelay(true));
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(HEADERS)
        .keep_alive_timeout(HANDSHAKE);
    let known = service.known.clone();
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let stranger = async {
        if timeout(STRANGER, known.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = watcher.watch(connection.into_owned()) => {
            if let Err(error) = served {
                tracing::debug!(%error, "connection ended");
            }
        }
        () = stranger => tracing::debug!("connection without an authorized request closed"),
    }
}

/// Lets only the administrator's token in.
#[derive(Clone)]
struct Guarded {
    service: ApiService,
    token: Arc<str>,
    stopping: Stopping,
    /// Cancelled when the connection has brought the token.
    known: CancellationToken,
}

impl Service<Request<Incoming>> for Guarded {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        // Whether the server lives is no secret; load balancers ask without a token.
        let public = matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz");
        if !public && !self.knows(&request) {
            let reply = Reply::from(ApiError::unauthorized()).into_response();
            return Box::pin(std::future::ready(Ok(reply)));
        }
        if !public {
            self.known.cancel();
        }
        request.extensions_mut().insert(self.stopping.clone());
        Box::pin(self.service.call(request))
    }
}

impl Guarded {
    fn knows(&self, request: &Request<Incoming>) -> bool {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, token)) = given.and_then(|given| given.split_once(' ')) else { return false };
        // Digests are of equal length, so that comparing them tells nothing about the token.
        let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        scheme.eq_ignore_ascii_case("bearer") && digest(token.trim()).as_ref() == digest(&self.token).as_ref()
    }
}
