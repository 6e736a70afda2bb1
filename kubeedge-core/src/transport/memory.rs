//! Links and a transport within one process, for embedding and for tests.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use futures_core::Stream;
use futures_sink::Sink;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::PollSender;

use super::{CloudEndpoint, Link, LinkError, Transport};
use crate::{message::Message, service::BoxError, wire::json};

/// One end of a link in memory. Messages pass through the codec, as they would on a socket.
#[derive(Debug)]
pub struct MemoryLink {
    outgoing: PollSender<String>,
    incoming: mpsc::Receiver<String>,
    ended: bool,
}

/// Two ends of a link that holds up to `capacity` unread messages each way (at least 1). Dropping one end ends both.
pub fn memory_link(capacity: usize) -> (MemoryLink, MemoryLink) {
    let (left_out, right_in) = mpsc::channel(capacity.max(1));
    let (right_out, left_in) = mpsc::channel(capacity.max(1));
    let end = |outgoing, incoming| MemoryLink { outgoing: PollSender::new(outgoing), incoming, ended: false };
    (end(left_out, left_in), end(right_out, right_in))
}

impl Stream for MemoryLink {
    type Item = Result<Message, LinkError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.incoming.poll_recv(cx));
        let message = item.map(|text| json::decode(&text).map_err(|error| LinkError::Malformed(error.into())));
        self.ended = !matches!(message, Some(Ok(_)));
        Poll::Ready(message)
    }
}

impl Sink<Message> for MemoryLink {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.outgoing.poll_reserve(cx).map_err(|_| LinkError::Closed)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), LinkError> {
        self.outgoing.send_item(json::encode(&message)).map_err(|_| LinkError::Closed)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.outgoing.close();
        self.incoming.close();
        Poll::Ready(Ok(()))
    }
}

/// A transport in memory: each dial waits until somebody accepts, and hands him the other end.
#[derive(Clone, Debug)]
pub struct MemoryTransport {
    dials: mpsc::Sender<Dial>,
    capacity: usize,
}

/// Where the other ends of [`MemoryTransport`] arrive. While it is dropped, dials fail.
#[derive(Clone, Debug)]
pub struct MemoryAcceptor(Arc<Mutex<mpsc::Receiver<Dial>>>);

#[derive(Debug)]
struct Dial {
    endpoint: CloudEndpoint,
    link: MemoryLink,
    accepted: oneshot::Sender<()>,
}

impl MemoryTransport {
    /// A transport and its acceptor; links hold up to `capacity` unread messages each way.
    pub fn new(capacity: usize) -> (Self, MemoryAcceptor) {
        let (dials, accepted) = mpsc::channel(1);
        (Self { dials, capacity }, MemoryAcceptor(Arc::new(Mutex::new(accepted))))
    }
}

impl MemoryAcceptor {
    /// The next link, and who dialed as whom; `None` when every transport is gone.
    ///
    /// # Cancel safety
    /// No link is lost when the future is dropped.
    pub async fn accept(&self) -> Option<(CloudEndpoint, MemoryLink)> {
        loop {
            let Dial { endpoint, link, accepted } = self.0.lock().await.recv().await?;
            // Who has given up dialing has no link.
            if accepted.send(()).is_ok() {
                return Some((endpoint, link));
            }
        }
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn dial(&self, endpoint: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
        let (ours, link) = memory_link(self.capacity);
        let (accepted, answer) = oneshot::channel();
        let peer = endpoint.server.clone();
        let unreachable = |source: BoxError| LinkError::Unreachable { peer, source };
        let dial = Dial { endpoint, link, accepted };
        if let Err(error) = self.dials.send(dial).await {
            return Err(unreachable(error.to_string().into()));
        }
        answer.await.map_err(|error| unreachable(error.into()))?;
        Ok(Box::new(ours))
    }
}
