use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Sink, Stream};
use kubeedge_core::{message::Message, transport::LinkError, wire::json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, protocol::Message as Frame},
};

use super::link_error;

/// Whole messages over a WebSocket.
pub(super) struct WebSocketLink {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    peer: String,
    ended: bool,
}

impl WebSocketLink {
    pub(super) fn new(socket: WebSocketStream<TlsStream<TcpStream>>, peer: String) -> Self {
        Self { socket, peer, ended: false }
    }

    fn error(&self, error: tungstenite::Error) -> LinkError {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => LinkError::Closed,
            tungstenite::Error::Io(error) => link_error(&self.peer, error),
            // A peer that goes without a word, as killed ones do.
            tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                LinkError::Closed
            }
            error => LinkError::Malformed(error.into()),
        }
    }
}

fn decode(text: &str) -> Result<Message, LinkError> {
    json::decode(text).map_err(|error| LinkError::Malformed(error.into()))
}

impl Stream for WebSocketLink {
    type Item = Result<Message, LinkError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            let item = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Frame::Text(text))) => decode(&text),
                // Go accepts either kind of frame, and so do we.
                Some(Ok(Frame::Binary(bytes))) => match str::from_utf8(&bytes) {
                    Ok(text) => decode(text),
                    Err(error) => Err(LinkError::Malformed(error.into())),
                },
                Some(Ok(Frame::Close(_))) | None => break,
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(self.error(error)),
            };
            self.ended = item.is_err();
            return Poll::Ready(Some(item));
        }
        self.ended = true;
        Poll::Ready(None)
    }
}

impl Sink<Message> for WebSocketLink {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Pin::new(&mut self.socket).poll_ready(cx).map_err(|error| self.error(error))
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), LinkError> {
        let frame = Frame::text(json::encode(&message));
        Pin::new(&mut self.socket).start_send(frame).map_err(|error| self.error(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(|error| self.error(error))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(|error| self.error(error))
    }
}
