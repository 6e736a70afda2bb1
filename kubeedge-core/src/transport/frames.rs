//! Links made of frames.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;

use super::{Extensions, LinkError};
use crate::{
    message::Message,
    wire::{
        batch::{BatchDecoder, BatchEncoder},
        json,
    },
};

/// A batch that is longer than this is sent before further messages are taken, in bytes.
const BATCH: usize = 64 * 1024;

/// One unit of a transport that keeps units apart, as a WebSocket does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message in JSON.
    Text(Bytes),
    /// A message in JSON or, if the ends have agreed on it, a [batch](crate::wire::batch).
    Binary(Bytes),
}

/// What carries frames both ways, whole and in order. The stream ends when the peer is gone.
pub trait Frames: Stream<Item = Result<Frame, LinkError>> + Sink<Frame, Error = LinkError> + Send + Unpin {}

impl<T> Frames for T where T: Stream<Item = Result<Frame, LinkError>> + Sink<Frame, Error = LinkError> + Send + Unpin {}

/// A [`Link`](super::Link) over frames: each message in a text frame of its own, or, if the ends have agreed on batches,
/// all that are sent before a flush in one binary frame.
pub struct FrameLink<T> {
    frames: T,
    extensions: Extensions,
    limit: usize,
    incoming: Option<BatchDecoder>,
    batch: BatchEncoder,
    /// A frame that `frames` has not taken yet.
    ready: Option<Frame>,
    ended: bool,
}

impl<T: Frames> FrameLink<T> {
    /// A link over `frames` with the extensions that both ends have agreed on. A message may have up to `limit` bytes, and
    /// so may a batch.
    pub fn new(frames: T, extensions: Extensions, limit: usize) -> Self {
        Self { frames, extensions, limit, incoming: None, batch: BatchEncoder::new(), ready: None, ended: false }
    }

    /// What carries the frames.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.frames
    }

    fn decode(&mut self, frame: Frame) -> Result<Option<Message>, LinkError> {
        match frame {
            Frame::Binary(bytes) if self.extensions.batch => {
                let batch = BatchDecoder::new(bytes, self.limit).map_err(malformed)?;
                self.incoming = Some(batch);
                Ok(None)
            }
            // Go accepts either kind of frame, and so do we.
            Frame::Text(bytes) | Frame::Binary(bytes) => {
                let text = str::from_utf8(&bytes).map_err(malformed)?;
                json::decode(text).map(Some).map_err(malformed)
            }
        }
    }

    /// Hands over what waits for `frames`.
    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if self.ready.is_some() {
            ready!(Pin::new(&mut self.frames).poll_ready(cx))?;
            if let Some(frame) = self.ready.take() {
                Pin::new(&mut self.frames).start_send(frame)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn seal(&mut self) {
        if self.ready.is_none() && !self.batch.is_empty() {
            self.ready = Some(Frame::Binary(self.batch.finish(self.extensions.deflate)));
        }
    }
}

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> LinkError {
    LinkError::Malformed(error.into())
}

impl<T: Frames> Stream for FrameLink<T> {
    type Item = Result<Message, LinkError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.ended {
            if let Some(decoded) = this.incoming.as_mut().and_then(Iterator::next) {
                this.ended = decoded.is_err();
                return Poll::Ready(Some(decoded.map_err(malformed)));
            }
            this.incoming = None;
            let decoded = match ready!(Pin::new(&mut this.frames).poll_next(cx)) {
                Some(frame) => frame.and_then(|frame| this.decode(frame)),
                None => break,
            };
            if let Some(item) = decoded.transpose() {
                this.ended = item.is_err();
                return Poll::Ready(Some(item));
            }
        }
        this.ended = true;
        Poll::Ready(None)
    }
}

impl<T: Frames> Sink<Message> for FrameLink<T> {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let this = &mut *self;
        if this.batch.len() >= BATCH {
            this.seal();
        }
        // A batch may still grow while its predecessor waits.
        if this.extensions.batch && this.batch.len() < BATCH { Poll::Ready(Ok(())) } else { this.poll_hand_over(cx) }
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), LinkError> {
        let this = &mut *self;
        if this.extensions.batch {
            this.batch.push(&message);
        } else {
            this.ready = Some(Frame::Text(json::encode(&message).into()));
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let this = &mut *self;
        loop {
            ready!(this.poll_hand_over(cx))?;
            this.seal();
            if this.ready.is_none() {
                return Pin::new(&mut this.frames).poll_flush(cx);
            }
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Pin::new(&mut self.frames).poll_close(cx)
    }
}

impl<T> fmt::Debug for FrameLink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameLink").field("extensions", &self.extensions).finish_non_exhaustive()
    }
}
