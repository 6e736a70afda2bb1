//! Packets over a byte stream, both ways at once and with bounded buffers.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use rumqttc::mqttbytes::{self, v4::Packet};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Read at once; also what an idle connection gives back to the allocator above.
const CHUNK: usize = 4096;
/// Nothing new is queued while so many bytes wait to be written.
const HIGH_WATER: usize = 64 * 1024;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("connection failed")]
    Io(#[from] io::Error),
    #[error("malformed packet")]
    Malformed(#[from] mqttbytes::Error),
}

/// What a turn of the wire has brought.
#[derive(Debug)]
pub(super) enum Turn {
    /// A packet from the peer.
    Packet(Packet),
    /// All that was queued is written.
    Flushed,
    /// The peer has closed the stream.
    Closed,
}

/// One MQTT connection: a stream, the bytes read and not yet understood, the bytes queued and not yet written.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    max_packet: usize,
    inbox: BytesMut,
    outbox: BytesMut,
    unflushed: bool,
    progress: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A wire that refuses packets whose body is longer than `max_packet` before it reads them.
    pub(super) fn new(stream: S, max_packet: usize) -> Self {
        let (inbox, outbox) = (BytesMut::new(), BytesMut::new());
        Self { stream, max_packet, inbox, outbox, unflushed: false, progress: Instant::now() }
    }

    /// Whether another packet may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < HIGH_WATER
    }

    /// Since when the peer has taken no byte of what waits for it.
    #[cfg_attr(not(feature = "broker"), allow(dead_code, reason = "a client notices by its keepalive"))]
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        (!self.outbox.is_empty()).then_some(self.progress)
    }

    /// Queues `packet`; [`Self::turn`] writes it.
    pub(super) fn queue(&mut self, packet: &Packet) -> Result<(), WireError> {
        if self.outbox.is_empty() {
            self.progress = Instant::now();
        }
        packet.write(&mut self.outbox, usize::MAX)?;
        Ok(())
    }

    /// Moves bytes until there is something to say. Reads only if `read`: whoever is busy lets the peer wait.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn turn(&mut self, read: bool) -> Result<Turn, WireError> {
        poll_fn(|cx| self.poll_turn(cx, read)).await
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<Result<Turn, WireError>> {
        if let Poll::Ready(written) = self.poll_write(cx) {
            written?;
            return Poll::Ready(Ok(Turn::Flushed));
        }
        if read { self.poll_read(cx) } else { Poll::Pending }
    }

    /// Ready once, when all that was queued is out.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbox))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.outbox.advance(written),
            }
            self.progress = Instant::now();
            self.unflushed = true;
        }
        if !self.unflushed {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.unflushed = false;
        if self.outbox.capacity() > CHUNK {
            self.outbox = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn, WireError>> {
        loop {
            match Packet::read(&mut self.inbox, self.max_packet) {
                Ok(packet) => return Poll::Ready(Ok(Turn::Packet(packet))),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
            if self.inbox.is_empty() {
                self.inbox = BytesMut::new();
            }
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(Turn::Closed));
            }
            self.inbox.extend_from_slice(chunk.filled());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rumqttc::mqttbytes::{QoS, v4::Publish};
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn publish(len: usize) -> Packet {
        Packet::Publish(Publish::new("t", QoS::AtMostOnce, vec![7; len]))
    }

    #[tokio::test]
    async fn packets_cross_whole_however_they_are_cut() {
        let (here, there) = tokio::io::duplex(7);
        let (mut here, mut there) = (Wire::new(here, 10_000), Wire::new(there, 10_000));
        for len in [0, 1, 200, 9_000] {
            here.queue(&publish(len)).unwrap();
        }
        let send = async {
            assert!(matches!(here.turn(true).await.unwrap(), Turn::Flushed));
        };
        let receive = async {
            for len in [0, 1, 200, 9_000] {
                match there.turn(true).await.unwrap() {
                    Turn::Packet(packet) => assert_eq!(packet, publish(len)),
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::join!(send, receive);
        drop(here);
        assert!(matches!(there.turn(true).await.unwrap(), Turn::Closed));
    }

    #[tokio::test]
    async fn a_packet_over_the_limit_is_refused_by_its_header() {
        let (mut here, there) = tokio::io::duplex(64);
        let mut there = Wire::new(there, 100);
        here.write_all(&[0x30, 0xff, 0xff, 0x7f]).await.unwrap();
        assert!(matches!(there.turn(true).await, Err(WireError::Malformed(_))));
        assert!(there.inbox.capacity() <= CHUNK * 2, "nothing is reserved for what is refused");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut wire = Wire::new(tokio_test_stream(bytes), 1000);
                while let Ok(Turn::Packet(_)) = wire.turn(true).await {}
            });
        }
    }

    fn tokio_test_stream(bytes: Vec<u8>) -> impl AsyncRead + AsyncWrite + Unpin {
        tokio::io::join(std::io::Cursor::new(bytes), tokio::io::sink())
    }
}
