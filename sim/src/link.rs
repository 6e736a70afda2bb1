//! Links of edges: over simulated TCP, observed, and reset when the world says so.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use kubeedge_core::{
    message::Message,
    names::NodeName,
    transport::{CloudEndpoint, Extensions, Hello, Link, LinkError, Transport, stream},
    words::Operation,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use turmoil::net::TcpStream;

use crate::{history::History, mutation::Mutation};

/// Longest message, in bytes.
pub(crate) const LIMIT: usize = 1 << 20;
pub(crate) const PORT: u16 = 10000;
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Resets connections of one edge.
#[derive(Debug, Default)]
pub(crate) struct Shears(Mutex<CancellationToken>);

impl Shears {
    /// Resets the edge's end of all connections that are open now.
    pub(crate) fn reset(&self) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *current).cancel();
    }

    fn current(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Dials the cloud of the simulation.
pub(crate) struct SimTransport {
    pub(crate) node: NodeName,
    pub(crate) extensions: Extensions,
    pub(crate) history: History,
    pub(crate) shears: Arc<Shears>,
    pub(crate) mutation: Mutation,
}

#[async_trait]
impl Transport for SimTransport {
    async fn dial(&self, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
        let reset = self.shears.current().cancelled_owned();
        let hello = Hello::new(endpoint.node).project(endpoint.project).extensions(self.extensions);
        let dial = async {
            let socket = TcpStream::connect((endpoint.server.as_str(), PORT))
                .await
                .map_err(|source| LinkError::Unreachable { peer: "cloud".into(), source: source.into() })?;
            stream::connect(Wire { socket, reset: Box::pin(reset) }, "cloud", &hello, LIMIT).await
        };
        let link = timeout(HANDSHAKE, dial).await.map_err(|_| LinkError::TimedOut)??;
        let (node, history, mutation) = (self.node.clone(), self.history.clone(), self.mutation);
        Ok(Box::new(Observed { link, node, history, mutation, forged: Vec::new() }))
    }
}

/// A connection that can be reset from outside.
struct Wire {
    socket: TcpStream,
    reset: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Wire {
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.reset.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_reset(cx)?;
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_reset(cx)?;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_reset(cx)?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_reset(cx)?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A link whose messages are written into the history.
struct Observed<L> {
    link: L,
    node: NodeName,
    history: History,
    mutation: Mutation,
    forged: Vec<Message>,
}

impl<L: Link> Stream for Observed<L> {
    type Item = Result<Message, LinkError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(forged) = self.forged.pop() {
            return Poll::Ready(Some(Ok(forged)));
        }
        let message = std::task::ready!(self.link.poll_next_unpin(cx));
        if let Some(Ok(message)) = &message {
            self.history.received(&self.node, message);
        }
        Poll::Ready(message)
    }
}

impl<L: Link> Sink<Message> for Observed<L> {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.link.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), LinkError> {
        if self.mutation == Mutation::ForgesAnswers && message.operation == Operation::Patch {
            let answer = message.acknowledgement(message.timestamp);
            self.forged.push(answer);
            return Ok(());
        }
        self.history.sent(&self.node, &message);
        self.link.start_send_unpin(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if !self.forged.is_empty() {
            cx.waker().wake_by_ref();
        }
        self.link.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.link.poll_close_unpin(cx)
    }
}
