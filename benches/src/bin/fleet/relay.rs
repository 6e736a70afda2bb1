//! A relay between edges and cloud that counts bytes: those of TLS and WebSocket included.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A relay that runs until it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    _running: DropGuard,
}

impl Relay {
    /// A relay to `cloud` on a free port of loopback.
    pub(crate) async fn start(cloud: String) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, up, down) = (listener.local_addr()?, Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(
            listener,
            cloud,
            up.clone(),
            down.clone(),
            stop.clone(),
        )));
        Ok(Self { address, up, down, _running: stop.drop_guard() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes to the cloud and from it so far.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.up.load(Relaxed), self.down.load(Relaxed))
    }
}

async fn serve(
    listener: TcpListener,
    cloud: String,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    loop {
        let Ok((edge, _)) = listener.accept().await else { continue };
        let (cloud, up, down) = (cloud.clone(), up.clone(), down.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            let Ok(cloud) = TcpStream::connect(cloud).await else { return };
            let _ = (edge.set_nodelay(true), cloud.set_nodelay(true));
            let ((from_edge, to_edge), (from_cloud, to_cloud)) = (edge.into_split(), cloud.into_split());
            // Each end is told when the other has gone.
            let _ = tokio::join!(pump(from_edge, to_cloud, &up), pump(from_cloud, to_edge, &down));
        }));
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, count: &AtomicU64) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            read => {
                count.fetch_add(read as u64, Relaxed);
                to.write_all(&buffer[..read]).await?;
            }
        }
    }
}
