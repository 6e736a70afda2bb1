//! A TCP relay on loopback that can be cut, so that the tour can show what an outage does.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Passes bytes between an edge and a cloud until it is cut.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    open: Arc<watch::Sender<bool>>,
}

impl Relay {
    /// Starts a relay to `target` on a free port of loopback. It ends with `shutdown`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(target: SocketAddr, tasks: &TaskTracker, shutdown: CancellationToken) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let open = Arc::new(watch::Sender::new(true));
        let (switch, connections) = (Arc::clone(&open), tasks.clone());
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = shutdown.cancelled() => return,
                };
                let Ok((edge, _)) = accepted else { continue };
                if !*switch.borrow() {
                    // A connection that is closed at once: the cable is out.
                    continue;
                }
                connections.spawn(pass(edge, target, switch.subscribe(), shutdown.clone()));
            }
        });
        Ok(Self { addr, open })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends all connections and takes no new ones.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Takes connections again.
    pub fn heal(&self) {
        self.open.send_replace(true);
    }
}

async fn pass(mut edge: TcpStream, target: SocketAddr, mut open: watch::Receiver<bool>, shutdown: CancellationToken) {
    let Ok(mut cloud) = TcpStream::connect(target).await else { return };
    // What the ends make of a broken connection is their business.
    tokio::select! {
        _ = copy_bidirectional(&mut edge, &mut cloud) => {}
        _ = open.wait_for(|open| !open) => {}
        () = shutdown.cancelled() => {}
    }
}
