//! Links over a stream of bytes: a Unix socket, a stream of QUIC, a pipe. Only two of ours speak this form.
//!
//! ```text
//! stream   = hello frames                    ; each way
//! frames   = *( length body )                ; length of body in bytes (4, big-endian)
//! body     = a batch as in wire::batch
//! hello    = length json                     ; who dials: {"node":…,"project":…,"extensions":…}
//!                                            ; who answers: {"extensions":…} or {"refused":…}
//! ```

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedParts};

use super::{
    Extensions, Hello, LinkError,
    frames::{Frame, FrameLink},
};
use crate::names::NodeName;

/// Longest hello, in bytes.
const HELLO: usize = 4 * 1024;
const LENGTH: usize = size_of::<u32>();

/// A link over a stream of bytes.
pub type StreamLink<S> = FrameLink<StreamFrames<S>>;

/// Frames with a length before each. `S` carries the bytes.
pub struct StreamFrames<S> {
    framed: Framed<S, LengthPrefixed>,
    peer: String,
}

/// A body with its length before it. Memory for a body grows as it is read, not as the peer says.
#[derive(Debug)]
struct LengthPrefixed {
    limit: usize,
}

impl Decoder for LengthPrefixed {
    type Item = Bytes;
    type Error = io::Error;

    fn decode(&mut self, read: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let Some(length) = read.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.limit {
            let why = format!("frame has {length} bytes, more than {}", self.limit);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if read.len() < LENGTH + length {
            return Ok(None);
        }
        read.advance(LENGTH);
        Ok(Some(read.split_to(length).freeze()))
    }
}

impl Encoder<Bytes> for LengthPrefixed {
    type Error = io::Error;

    fn encode(&mut self, body: Bytes, written: &mut BytesMut) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        written.reserve(LENGTH + body.len());
        written.put_u32(length);
        written.extend_from_slice(&body);
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Dialing {
    node: NodeName,
    project: String,
    #[serde(default)]
    extensions: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answering {
    Extensions(String),
    Refused(String),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> StreamFrames<S> {
    fn new(stream: S, peer: String) -> Self {
        // The buffers start empty: most nodes are silent most of the time, and there are many.
        let mut parts = FramedParts::new::<Bytes>(stream, LengthPrefixed { limit: HELLO });
        (parts.read_buf, parts.write_buf) = (BytesMut::new(), BytesMut::new());
        Self { framed: Framed::from_parts(parts), peer }
    }

    fn error(&self, error: io::Error) -> LinkError {
        match error.kind() {
            io::ErrorKind::InvalidData => LinkError::Malformed(error.into()),
            _ => LinkError::Unreachable { peer: self.peer.clone(), source: error.into() },
        }
    }

    async fn read_hello<T: DeserializeOwned>(&mut self) -> Result<T, LinkError> {
        let body = match self.framed.next().await {
            Some(body) => body.map_err(|error| self.error(error))?,
            None => return Err(LinkError::Closed),
        };
        serde_json::from_slice(&body).map_err(|error| LinkError::Malformed(error.into()))
    }

    async fn write_hello(&mut self, hello: &impl Serialize) -> Result<(), LinkError> {
        let body = serde_json::to_vec(hello).map_err(|error| LinkError::Failed(error.into()))?;
        self.framed.send(body.into()).await.map_err(|error| self.error(error))
    }

    fn into_link(mut self, extensions: Extensions, limit: usize) -> StreamLink<S> {
        // The first byte of a batch is not part of any message.
        self.framed.codec_mut().limit = limit.saturating_add(1 + LENGTH);
        FrameLink::new(self, Extensions { batch: true, ..extensions }, limit)
    }
}

/// Opens a link over `stream`, which was dialed: tells who we are, and waits to be let in. A message may have up to
/// `limit` bytes; `peer` is what errors call the other end.
///
/// # Errors
/// [`LinkError::Refused`] with the peer's reason, and what the stream and its bytes may be at fault for.
///
/// # Cancel safety
/// A dropped future drops the stream.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin + Send>(
    stream: S,
    peer: &str,
    hello: &Hello,
    limit: usize,
) -> Result<StreamLink<S>, LinkError> {
    let mut frames = StreamFrames::new(stream, peer.to_owned());
    let Hello { node, project, extensions } = hello.clone();
    frames.write_hello(&Dialing { node, project, extensions: extensions.to_string() }).await?;
    match frames.read_hello().await? {
        Answering::Extensions(chosen) => Ok(frames.into_link(extensions.common(Extensions::parse(&chosen)), limit)),
        Answering::Refused(reason) => Err(LinkError::Refused { peer: peer.to_owned(), reason }),
    }
}

/// Reads who dials on `stream`, which was accepted. Nobody has proved anything yet.
///
/// # Errors
/// As for [`connect`]. The caller puts a timeout around it.
///
/// # Cancel safety
/// A dropped future drops the stream.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin + Send>(stream: S, peer: &str) -> Result<Dialed<S>, LinkError> {
    let mut frames = StreamFrames::new(stream, peer.to_owned());
    let Dialing { node, project, extensions } = frames.read_hello().await?;
    let hello = Hello { node, project, extensions: Extensions::parse(&extensions) };
    Ok(Dialed { frames, hello })
}

/// A peer that has said who it is, and waits to be let in.
pub struct Dialed<S> {
    frames: StreamFrames<S>,
    hello: Hello,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Dialed<S> {
    /// What it said.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Lets it in, with these extensions. A message may have up to `limit` bytes.
    pub async fn welcome(mut self, extensions: Extensions, limit: usize) -> Result<StreamLink<S>, LinkError> {
        let extensions = extensions.common(self.hello.extensions);
        self.frames.write_hello(&Answering::Extensions(extensions.to_string())).await?;
        Ok(self.frames.into_link(extensions, limit))
    }

    /// Tells it why it is not let in, and gives back the stream, which may still have to be closed.
    pub async fn refuse(mut self, reason: impl fmt::Display) -> Result<S, LinkError> {
        self.frames.write_hello(&Answering::Refused(reason.to_string())).await?;
        Ok(self.frames.framed.into_inner())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for StreamFrames<S> {
    type Item = Result<Frame, LinkError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let body = ready!(self.framed.poll_next_unpin(cx));
        Poll::Ready(body.map(|body| body.map(Frame::Binary).map_err(|error| self.error(error))))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Sink<Frame> for StreamFrames<S> {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.framed.poll_ready_unpin(cx).map_err(|error| self.error(error))
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), LinkError> {
        let (Frame::Text(body) | Frame::Binary(body)) = frame;
        self.framed.start_send_unpin(body).map_err(|error| self.error(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.framed.poll_flush_unpin(cx).map_err(|error| self.error(error))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.framed.poll_close_unpin(cx).map_err(|error| self.error(error))
    }
}

impl<S> fmt::Debug for StreamFrames<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamFrames").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Dialed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed").field("hello", &self.hello).finish_non_exhaustive()
    }
}
