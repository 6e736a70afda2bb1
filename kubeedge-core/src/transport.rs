//! The transport seam: dialing the cloud, and the link that comes of it.
//!
//! The links that are shipped are made here, over what others have opened: `websocket`, as KubeEdge has it, [`stream`]
//! for streams of bytes between two of ours, and [`memory`] within one process. [`Extensions`] are what two of ours agree
//! on beyond KubeEdge's protocol.

mod extensions;
pub mod frames;
pub mod memory;
pub mod stream;
#[cfg(feature = "websocket")]
pub mod websocket;
mod writer;

use async_trait::async_trait;
use futures_core::Stream;
use futures_sink::Sink;

pub use self::{
    extensions::{Extensions, Hello},
    writer::SessionWriter,
};
use crate::{
    message::Message,
    names::NodeName,
    service::{BoxError, layered_error, seam},
};

/// An open connection between an edge and a cloud: whole messages both ways, in order.
///
/// The stream ends, or yields an error once, when the peer is gone. Closing the sink closes the connection.
pub trait Link: Stream<Item = Result<Message, LinkError>> + Sink<Message, Error = LinkError> + Send + Unpin {}

impl<T> Link for T where T: Stream<Item = Result<Message, LinkError>> + Sink<Message, Error = LinkError> + Send + Unpin {}

/// Whom to dial as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloudEndpoint {
    /// `host:port` of the CloudHub.
    pub server: String,
    /// The node that dials.
    pub node: NodeName,
    /// Project id, a path segment and a header of the handshake; must not be empty.
    pub project: String,
}

impl CloudEndpoint {
    /// Project id that edges use unless configured.
    ///
    /// Upstream: `edge/pkg/edgehub/config/config.go`.
    pub const DEFAULT_PROJECT: &str = "e632aba927ea4ac2b575ec1603d56f10";

    /// The CloudHub at `server` (`host:port`), dialed by `node` with the default project.
    pub fn new(server: impl Into<String>, node: NodeName) -> Self {
        Self { server: server.into(), node, project: Self::DEFAULT_PROJECT.into() }
    }

    /// Uses another project id.
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = project.into();
        self
    }
}

/// Dials clouds.
#[async_trait]
#[doc(alias = "edgehub")]
pub trait Transport: Send + Sync + 'static {
    /// Connects, proves who we are, and returns the open link.
    ///
    /// # Cancel safety
    /// A dropped future leaves no connection behind.
    async fn dial(&self, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError>;
}

/// Why a link could not be opened or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nobody answered there, or the connection broke: dial again.
    #[error("cannot reach {peer}")]
    Unreachable {
        /// Whom we wanted to reach.
        peer: String,
        /// What went wrong below.
        #[source]
        source: BoxError,
    },
    /// The peer answered and does not want us; the reason is its own.
    #[error("{peer} refused the connection: {reason}")]
    Refused {
        /// Who refused.
        peer: String,
        /// Its words.
        reason: String,
    },
    /// One side cannot prove who it is: certificate wrong, foreign or expired.
    #[error("identity of {peer} or of this node is not accepted")]
    Untrusted {
        /// Who should have been there.
        peer: String,
        /// What the check said.
        #[source]
        source: BoxError,
    },
    /// The peer sent what is no message.
    #[error("the peer sent a malformed message")]
    Malformed(#[source] BoxError),
    /// The peer is gone, in order or not.
    #[error("the connection is closed")]
    Closed,
    /// Too much is waiting already.
    #[error("transport is busy")]
    Busy,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The transport or a layer failed in its own way.
    #[error("transport failed")]
    Failed(#[source] BoxError),
}
layered_error!(LinkError);

impl LinkError {
    /// Whether the peer is at fault for what it sent.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }
}

seam! {
    /// [`Transport`] as a tower service.
    service TransportService of Transport;
    /// Typed calls on a transport. Cheap to clone.
    handle TransportHandle;
    request TransportRequest; response TransportResponse; error LinkError;
    call(transport, request) {
        transport.dial(request.0).await.map(TransportResponse)
    }
}

/// A dial, as layers see it.
#[derive(Clone, Debug)]
pub struct TransportRequest(pub CloudEndpoint);

/// The link that a dial gave, as layers see it.
pub struct TransportResponse(pub Box<dyn Link>);

impl std::fmt::Debug for TransportResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransportResponse").finish_non_exhaustive()
    }
}

impl TransportHandle {
    /// Dials; see [`Transport::dial`].
    pub async fn dial(&self, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
        self.ask(TransportRequest(endpoint)).await.map(|response| response.0)
    }
}
