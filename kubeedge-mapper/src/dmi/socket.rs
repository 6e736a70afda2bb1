//! Unix sockets that gRPC is served on, and connections to those of others.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, client, rt::Executor, server};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tonic::body::Body;
use tower::Service;

use super::{authority::ValidAuthority, rpc::Connection};

/// Only the owner and its group: whoever may open the socket may command devices.
const SOCKET_MODE: u32 = 0o660;
/// As upstream makes it.
const DIRECTORY_MODE: u32 = 0o750;
/// Mappers in Go open a connection for each report. Who comes when there are as many waits until one is closed.
const MAX_CONNECTIONS: usize = 256;
/// Calls of one connection that are served at the same time; further ones wait at the peer.
const MAX_STREAMS: u32 = 256;
/// For calls under way when the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// A socket that could not be put where it belongs.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {}", path.display())]
pub(super) struct SocketError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A socket that is listened on. Dropped, its file is removed unless somebody else has put one in its place.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Socket {
    /// Listens at `path`. A socket that was left there is replaced in one step, anything else is an error; a missing
    /// folder is made.
    pub(super) fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::try_bind(path).map_err(|source| SocketError { path: path.to_owned(), source })
    }

    fn try_bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there"));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody finds the socket before its mode is right.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(SOCKET_MODE))?;
        let made = fs::symlink_metadata(&fresh)?;
        fs::rename(&fresh, path)?;
        Ok(Self { listener, path: path.to_owned(), inode: (made.dev(), made.ino()) })
    }

    /// Serves until `shutdown`; then each peer is told, and calls under way have a second.
    pub(super) async fn serve<S>(self, service: S, shutdown: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let (connections, tasks, abort) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        let _abort = abort.clone().drop_guard();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accept = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (self.listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = accept => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(socket = %self.path.display(), %error, "no connection accepted");
                    // Out of file descriptors, most likely: others give some back.
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let served = serve_one(stream, service.clone(), Spawn(tasks.clone()), shutdown.clone());
            let abort = abort.clone();
            connections.spawn(async move {
                let _place = place;
                abort.run_until_cancelled(served).await;
            });
        }
        connections.close();
        if timeout(GRACE, connections.wait()).await.is_err() {
            abort.cancel();
            connections.wait().await;
        }
        // Calls end with their connection.
        tasks.close();
        let _ = timeout(GRACE, tasks.wait()).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(socket = %self.path.display(), %error, "socket is left behind");
        }
    }
}

async fn serve_one<S>(stream: UnixStream, service: S, spawn: Spawn, shutdown: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let io = TokioIo::new(ValidAuthority::new(stream));
    let connection = server::conn::http2::Builder::new(spawn)
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(io, TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = %kubeedge_core::service::Causes(&error), "connection ended badly");
    }
}

/// Calls to a peer, as long as the connection to it lasts. Dropped, the connection is closed.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) calls: Connection,
    /// Cancelled when the connection is no more.
    pub(super) closed: CancellationToken,
    _connection: AbortOnDropHandle<()>,
}

/// Connects to the server at `path`.
pub(super) async fn dial(path: &Path) -> io::Result<Dialed> {
    let stream = UnixStream::connect(path).await?;
    let spawn = Spawn(TaskTracker::new());
    let (sender, connection) =
        client::conn::http2::handshake(spawn, TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let closed = CancellationToken::new();
    let ends = closed.clone().drop_guard();
    let connection = tokio::spawn(async move {
        let _ends = ends;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended badly");
        }
    });
    Ok(Dialed { calls: Connection::new(sender), closed, _connection: AbortOnDropHandle::new(connection) })
}

/// Puts the tasks of a connection where their owner sees them; they end with their connection.
#[derive(Clone, Debug)]
struct Spawn(TaskTracker);

impl<F> Executor<F> for Spawn
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
