//! Recognises peers that speak the QUIC from before the IETF.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::Instant;

/// Between two complaints.
const PAUSE: Duration = Duration::from_secs(60);

/// A socket that complains about packets of gQUIC, which nobody would answer.
pub(super) struct Watched {
    socket: Arc<dyn AsyncUdpSocket>,
    complained: Mutex<Option<Instant>>,
}

impl Watched {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket, complained: Mutex::new(None) }
    }

    fn complain(&self, peer: SocketAddr, version: &str) {
        let now = Instant::now();
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|last| last + PAUSE <= now) {
            *complained = Some(now);
            tracing::error!(
                %peer, version,
                "peer speaks the QUIC from before the IETF, as Go edgecore does: it cannot connect here, set \
                 modules.edgeHub.websocket.enable in its edgecore.yaml"
            );
        }
    }
}

/// The version that a packet of gQUIC names: after the first byte, or, before Q044, after a connection id of 8 bytes.
///
/// The first byte tells such packets from those of the IETF, whose bytes are as good as random.
fn version(packet: &[u8]) -> Option<&str> {
    const LONG: u8 = 0x80;
    const NAMES_VERSION: u8 = 0x01;
    const LONG_ID: u8 = 0x08;
    let at = |start: usize| {
        let word = str::from_utf8(packet.get(start..start + 4)?).ok()?;
        (word.starts_with('Q') && word.bytes().skip(1).all(|digit| digit.is_ascii_digit())).then_some(word)
    };
    match packet.first()? {
        first if first & LONG != 0 => at(1),
        first if first & 0xc9 == NAMES_VERSION | LONG_ID => at(9),
        _ => None,
    }
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.socket.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = received {
            for (buffer, meta) in bufs.iter().zip(meta.iter()).take(count) {
                if let Some(version) = buffer.get(..meta.len).and_then(version) {
                    self.complain(meta.addr, version);
                }
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_go_are_told_from_those_of_the_ietf() {
        assert_eq!(version(b"\xffQ044\x50abcdefgh"), Some("Q044"));
        assert_eq!(version(b"\x0912345678Q043\x01"), Some("Q043"));
        assert_eq!(version(b"\xc3\x00\x00\x00\x01\x0812345678"), None, "version 1 of the IETF");
        assert_eq!(version(b"\x49Q044\x50ab\x00Q043"), None, "a short header of the IETF");
        assert_eq!(version(b"\xff"), None);
        assert_eq!(version(b""), None);
    }
}
