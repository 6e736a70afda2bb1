use std::{sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::RestApi;

impl RestApi {
    /// Connections at a time; more wait to be accepted.
    const CONNECTIONS: usize = 64;
    /// Longest time for the head of a request, and for connections to end at shutdown.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Serves HTTP/1.1 on `listener` until `shutdown`, and ends the requests under way, within ten seconds.
    ///
    /// # Cancel safety
    /// Dropping the future closes the port and every connection.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(Self::CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
                Some((listener.accept().await, slot))
            };
            let (accepted, slot) = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                Some(accepted) = accepted => accepted,
                else => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // For want of file descriptors, for example.
                    tracing::warn!(%error, "connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (api, shutdown) = (self.clone(), shutdown.clone());
            connections.spawn(async move {
                let _slot = slot;
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(Self::PATIENCE);
                let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(api));
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = shutdown.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection of the REST API failed");
                }
            });
        }
        drop(listener);
        // Those that take longer are ended with the set.
        let _ = timeout(Self::PATIENCE, async { while connections.join_next().await.is_some() {} }).await;
    }
}
