//! Where links come in, whatever carries them.

use std::{fmt, future::Future, io, sync::Arc, time::Duration};

use kubeedge_core::{
    names::NodeName,
    transport::{Extensions, Hello, Link},
};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    HubParts, SessionNumber,
    connection::{Conversation, ConversationEnd},
    lobby::{Lobby, Room},
    registry::{Admission, CloseReason, HubHandle},
};

/// Pause after a failed `accept`, which happens when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a peer is not let in. The text is what the peer gets to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A WebSocket for something else.
    #[error("header Connectionuse must be msg")]
    NotForMessages,
    /// It does not say who it is.
    #[error("header Node_id is required")]
    NoNode,
    /// It says that it is somebody else than its certificate does.
    #[error("header Node_id {0:?} is not the node {1} of the certificate")]
    OtherNode(String, NodeName),
    /// A page of another site in a browser.
    #[error("request origin {0:?} is not allowed")]
    ForeignOrigin(String),
    /// As many nodes are connected as may be.
    #[error("the limit of connected nodes is reached")]
    TooManyNodes,
}

/// Lets links in, and carries their messages. Cheap to clone.
///
/// This is for transports of the embedder's; those of this crate are served by [`websocket`](Self::websocket),
/// [`quic`](Self::quic) and [`unix`](Self::unix).
#[derive(Clone)]
pub struct HubDoor(pub(super) Arc<HubParts>);

/// A peer that is let in, but not yet connected; its place is kept until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    node: NodeName,
    extensions: Extensions,
    admission: Admission,
}

impl Admitted {
    /// The extensions that hold for its session; tell it to the peer.
    pub fn extensions(&self) -> Extensions {
        self.extensions
    }
}

impl HubDoor {
    /// Checks what a peer says, who has proved to be `proven`.
    ///
    /// # Errors
    /// [`Refusal`] for the peer to read.
    pub fn admit(&self, hello: &Hello, proven: &NodeName) -> Result<Admitted, Refusal> {
        if hello.node != *proven {
            return Err(Refusal::OtherNode(hello.node.to_string(), proven.clone()));
        }
        let admission = self.0.handle.admit(proven).ok_or(Refusal::TooManyNodes)?;
        let extensions = self.0.config.extensions.common(hello.extensions);
        Ok(Admitted { node: proven.clone(), extensions, admission })
    }

    /// Carries messages over `link` until either side ends it, or `shutdown`. The link is then of no more use; it is not
    /// closed. `peer` is for the log.
    ///
    /// # Cancel safety
    /// Dropping the future ends the session.
    pub async fn converse<L: Link + ?Sized>(
        &self,
        admitted: Admitted,
        link: &mut L,
        peer: &(dyn fmt::Display + Sync),
        shutdown: &CancellationToken,
    ) -> ConversationEnd {
        let Admitted { node, extensions, admission } = admitted;
        let hub = &self.0;
        let (number, mailbox) = hub.handle.enter(&node, admission, extensions);
        if shutdown.is_cancelled() {
            // All others were closed before this one came.
            hub.handle.close(&node, CloseReason::Shutdown);
        }
        // Also when this future is dropped.
        let _leave = Leave { hub: hub.handle.clone(), node: node.clone(), number };
        tracing::info!(%node, %peer, session = %number, %extensions, "node connected");
        let end = Conversation::new(node.clone(), &mailbox, hub, extensions, link).await;
        match &end {
            ConversationEnd::ClosedByPeer | ConversationEnd::ClosedByHub(_) => {
                tracing::info!(%node, session = %number, %end, "node disconnected");
            }
            end => {
                let err = end as &dyn std::error::Error;
                tracing::warn!(%node, session = %number, err, "session of a node broke");
            }
        }
        end
    }

    /// The longest message that is taken, in bytes.
    pub fn message_limit(&self) -> usize {
        self.0.config.message_limit
    }

    /// The handle to the hub.
    pub fn handle(&self) -> HubHandle {
        self.0.handle.clone()
    }
}

impl fmt::Debug for HubDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubDoor").field("hub", &self.0.handle).finish_non_exhaustive()
    }
}

struct Leave {
    hub: HubHandle,
    node: NodeName,
    number: SessionNumber,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.hub.leave(&self.node, self.number);
    }
}

/// What a listener has accepted. After a failure, a pause.
pub(super) async fn accepted<T>(outcome: io::Result<T>) -> Option<T> {
    match outcome {
        Ok(connection) => Some(connection),
        Err(err) => {
            tracing::warn!(%err, "cannot accept connections");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// The connections of one listener: bounds those that are no sessions yet, and ends all of them together.
pub(super) struct Guests {
    door: HubDoor,
    lobby: Lobby,
    connections: TaskTracker,
    abort: CancellationToken,
    shutdown: CancellationToken,
}

impl Guests {
    /// For a listener that accepts a socket for each node.
    pub(super) fn of_sockets(door: HubDoor, shutdown: CancellationToken) -> Self {
        let sockets = door.0.config.sockets;
        Self::new(door, shutdown, sockets)
    }

    /// For a listener whose nodes share a socket.
    pub(super) fn on_one_socket(door: HubDoor, shutdown: CancellationToken) -> Self {
        Self::new(door, shutdown, usize::MAX)
    }

    fn new(door: HubDoor, shutdown: CancellationToken, sockets: usize) -> Self {
        Self {
            door,
            lobby: Lobby::new(sockets),
            connections: TaskTracker::new(),
            abort: CancellationToken::new(),
            shutdown,
        }
    }

    /// Runs `listen` until the shutdown, then lets all connections say farewell.
    ///
    /// # Cancel safety
    /// Dropping the future ends all connections at once.
    pub(super) async fn serve(self, listen: impl AsyncFnOnce(&Self)) {
        let _abort_on_drop = self.abort.clone().drop_guard();
        let _stopped = self.shutdown.run_until_cancelled(listen(&self)).await;
        self.connections.close();
        self.door.0.handle.close_all(CloseReason::Shutdown);
        if timeout(self.door.0.config.farewell, self.connections.wait()).await.is_err() {
            self.abort.cancel();
            self.connections.wait().await;
        }
    }

    /// Waits until there is room for another connection.
    pub(super) async fn room(&self) -> Room {
        self.lobby.room().await
    }

    /// Admits as [`HubDoor::admit`] does, if there is a socket left for it.
    pub(super) fn admission(&self) -> impl Fn(&Hello, &NodeName) -> Result<Admitted, Refusal> + Send + use<> {
        let (seats, door) = (self.lobby.seats(), self.door.clone());
        move |hello, proven| if seats.suffice() { door.admit(hello, proven) } else { Err(Refusal::TooManyNodes) }
    }

    /// How many handshakes are under way.
    pub(super) fn handshakes(&self) -> usize {
        self.lobby.handshakes()
    }

    /// Runs a connection: `knock` waits until the peer has something to say, `shake` shakes hands, both within the time for
    /// it, and `converse` goes on with what that gives.
    pub(super) fn spawn<S, T, Fut, F>(
        &self,
        room: Room,
        peer: impl fmt::Display + Send + 'static,
        knock: impl Future<Output = S> + Send + 'static,
        shake: impl FnOnce(S) -> Fut + Send + 'static,
        converse: impl FnOnce(T, CancellationToken) -> F + Send + 'static,
    ) where
        S: Send + 'static,
        T: Send + 'static,
        Fut: Future<Output = Result<T, Rejected>> + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (mut guest, seat) = self.lobby.welcome(room);
        let (abort, shutdown, patience) =
            (self.abort.clone(), self.shutdown.clone(), self.door.0.config.handshake_timeout);
        self.connections.spawn(async move {
            let _seat = seat;
            let connection = async move {
                let gone = guest.gone();
                // Boxed, so that a session does not keep the room of its handshake.
                let shaken = Box::pin(timeout(patience, async {
                    let stream = knock.await;
                    guest.shake().await;
                    shake(stream).await
                }));
                let shaken = tokio::select! {
                    biased;
                    shaken = shaken => shaken.unwrap_or(Err(Rejected::TimedOut)),
                    () = gone.cancelled() => Err(Rejected::Crowded),
                    () = shutdown.cancelled() => return,
                };
                drop(guest);
                match shaken {
                    Ok(admitted) => Box::pin(converse(admitted, shutdown)).await,
                    Err(err) => {
                        tracing::info!(%peer, err = &err as &dyn std::error::Error, "connection not accepted");
                    }
                }
            };
            abort.run_until_cancelled(connection).await;
        });
    }
}

/// Why a peer did not become a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error("handshake took too long")]
    TimedOut,
    #[error("others needed its place")]
    Crowded,
    #[error("no TLS handshake")]
    Tls(#[source] std::io::Error),
    #[error("certificate names no node")]
    Certificate(#[source] crate::pki::PeerError),
    #[error("no certificate")]
    NoCertificate,
    #[error("no WebSocket handshake")]
    WebSocket(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("no handshake")]
    Link(#[from] kubeedge_core::transport::LinkError),
    #[error("no QUIC handshake")]
    Quic(#[from] quinn::ConnectionError),
    #[error("handshake of node {1} refused: {0}")]
    Refused(Refusal, NodeName),
}
