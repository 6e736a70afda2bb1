//! Calls to the cloud over whatever link there is at the moment, and calls from it.

use std::fmt;

use tokio::sync::watch;
use tower::ServiceExt as _;
use tower_service::Service;

use crate::{
    message::Message,
    service::{BoxError, Shared, layered_error},
    session::{Outbound, Receipt, Unsettled, Until},
};

/// Serves messages that arrive: the answer or acknowledgement to send, or nothing.
///
/// It is asked for readiness before the next frame is read, so a busy service holds the socket, not memory.
pub type Inbound = Shared<Message, Option<Message>>;

/// Whether there is a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// There is none.
    #[default]
    Disconnected,
    /// There is one, the so-manieth since the start.
    Connected {
        /// Counts from 1.
        session: u64,
    },
}

impl LinkState {
    /// Whether there is a link.
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}

/// Why a message was not settled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UplinkError {
    /// There is no link, or it ended while waiting. The cloud may have the message.
    #[error("not connected to the cloud")]
    Disconnected,
    /// No acknowledgement or answer in time. The cloud may have the message.
    #[error("no answer from the cloud in time")]
    TimedOut,
    /// Too much is waiting already.
    #[error("uplink is busy")]
    Busy,
    /// A layer failed in its own way.
    #[error("uplink failed")]
    Failed(#[source] BoxError),
}
layered_error!(UplinkError);

impl From<Unsettled> for UplinkError {
    fn from(unsettled: Unsettled) -> Self {
        match unsettled {
            Unsettled::LinkEnded => Self::Disconnected,
            Unsettled::NoReply | Unsettled::NotAcked { .. } => Self::TimedOut,
        }
    }
}

/// Typed calls to the cloud. Cheap to clone.
#[derive(Clone)]
pub struct UplinkHandle {
    calls: Shared<Outbound, Receipt>,
    state: watch::Receiver<LinkState>,
}

impl UplinkHandle {
    /// A handle to `service`, whose link is in the state that `state` shows.
    pub fn new<S>(service: S, state: watch::Receiver<LinkState>) -> Self
    where
        S: Service<Outbound, Response = Receipt> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
    {
        Self { calls: Shared::new(service.map_err(Into::into)), state }
    }

    /// Sends a message; resolved when it is written.
    pub async fn send(&self, message: Message) -> Result<(), UplinkError> {
        self.call(message, Until::Written).await.map(drop)
    }

    /// Sends a message and waits for its answer. The answer may be a refusal: see [`Answer`](crate::answer::Answer).
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the message may have been sent.
    pub async fn request(&self, message: Message) -> Result<Message, UplinkError> {
        match self.call(message, Until::Replied).await? {
            Receipt::Reply(reply) => Ok(reply),
            Receipt::Done => Err(UplinkError::Failed("not an answer to a request".into())),
        }
    }

    /// The state of the link, and its changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    async fn call(&self, message: Message, until: Until) -> Result<Receipt, UplinkError> {
        self.calls.clone().oneshot(Outbound { message, until }).await.map_err(UplinkError::from)
    }
}

impl fmt::Debug for UplinkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UplinkHandle").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}
