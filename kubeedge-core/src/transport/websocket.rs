//! Links over a WebSocket that somebody else has opened.
//!
//! Upstream: `pkg/viaduct`.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use futures_sink::Sink;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, Utf8Bytes, error::ProtocolError, protocol::CloseFrame},
};

use super::{
    Extensions, LinkError,
    frames::{Frame, FrameLink},
};

/// A link over a WebSocket.
pub type WebSocketLink<S> = FrameLink<WebSocketFrames<S>>;

/// Opens a link over `socket`, with the extensions that the handshake has agreed on. A message may have up to `limit`
/// bytes, as may a frame of the socket itself, which is set when it is opened.
pub fn link<S>(socket: WebSocketFrames<S>, extensions: Extensions, limit: usize) -> WebSocketLink<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    FrameLink::new(socket, extensions, limit)
}

/// The frames of a WebSocket that carry messages; pings are answered on the way.
pub struct WebSocketFrames<S> {
    socket: WebSocketStream<S>,
    peer: Arc<str>,
    broken: fn(&str, io::Error) -> LinkError,
}

impl<S> WebSocketFrames<S> {
    /// The frames of `socket`; errors call the other end `peer`.
    pub fn new(socket: WebSocketStream<S>, peer: impl Into<Arc<str>>) -> Self {
        let broken = |peer: &str, error: io::Error| LinkError::Unreachable { peer: peer.into(), source: error.into() };
        Self { socket, peer: peer.into(), broken }
    }

    /// Asks `broken` what a failure of the stream below means. TLS speaks through it, too.
    pub fn broken_is(mut self, broken: fn(&str, io::Error) -> LinkError) -> Self {
        self.broken = broken;
        self
    }

    fn error(&self, error: Error) -> LinkError {
        match error {
            // A peer that goes without a word, as killed ones do.
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => LinkError::Closed,
            Error::Io(error) => (self.broken)(&self.peer, error),
            error => LinkError::Malformed(error.into()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketFrames<S> {
    /// Sends the last frame, which tells the peer why.
    ///
    /// # Errors
    /// Those of the socket; the peer may be gone already.
    pub async fn close_with(&mut self, frame: CloseFrame) -> Result<(), LinkError> {
        self.socket.send(Message::Close(Some(frame))).await.map_err(|error| self.error(error))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for WebSocketFrames<S> {
    type Item = Result<Frame, LinkError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Text(text))) => Some(Ok(Frame::Text(text.into()))),
                Some(Ok(Message::Binary(bytes))) => Some(Ok(Frame::Binary(bytes))),
                Some(Ok(Message::Close(_))) | None => None,
                Some(Ok(_)) => continue,
                Some(Err(error)) => Some(Err(self.error(error))),
            });
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Frame> for WebSocketFrames<S> {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.socket.poll_ready_unpin(cx).map_err(|error| self.error(error))
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), LinkError> {
        let message = match frame {
            Frame::Binary(bytes) => Message::Binary(bytes),
            Frame::Text(bytes) => {
                Message::Text(Utf8Bytes::try_from(bytes).map_err(|error| LinkError::Malformed(error.into()))?)
            }
        };
        self.socket.start_send_unpin(message).map_err(|error| self.error(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.socket.poll_flush_unpin(cx).map_err(|error| self.error(error))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.socket.poll_close_unpin(cx).map_err(|error| self.error(error))
    }
}

impl<S> fmt::Debug for WebSocketFrames<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketFrames").finish_non_exhaustive()
    }
}
