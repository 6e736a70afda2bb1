//! Lets peers in whose `:authority` is none.
//!
//! grpc-go puts the path of a Unix socket into `:authority`, percent-encoded or as it is. That is no authority as
//! RFC 3986 has it, and the HTTP/2 of this process would refuse the request. So the frames of such a peer go through
//! [`Rewriter`], which writes its header blocks anew with a fixed authority and passes everything else on untouched.
//! Padding and priority of headers mean nothing to the server and are left out.
//!
//! Upstream: grpc-go (`internal/transport`, target of a `ClientConn`).

mod rewriter;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::rewriter::Rewriter;

/// A connection whose peer speaks HTTP/2 as a client; read through it, each request has a valid authority.
#[derive(Debug)]
pub(super) struct ValidAuthority<S> {
    stream: S,
    rewriter: Rewriter,
    raw: Box<[u8; 8192]>,
    ready: BytesMut,
}

impl<S> ValidAuthority<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, rewriter: Rewriter::default(), raw: Box::new([0; 8192]), ready: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ValidAuthority<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ready.is_empty() {
            let mut raw = ReadBuf::new(&mut *this.raw);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut raw))?;
            if raw.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.rewriter
                .push(raw.filled(), &mut this.ready)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        let count = this.ready.len().min(buf.remaining());
        buf.put_slice(&this.ready[..count]);
        this.ready.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ValidAuthority<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
