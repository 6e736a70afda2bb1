//! The QUIC port: IETF QUIC (RFC 9000), for nodes of ours.
//!
//! A node opens one bidirectional stream, which carries a [`StreamLink`]; who it is says its certificate, as on the
//! WebSocket. Upstream's QUIC is the one from before the IETF and cannot be met: such packets are recognised, and named
//! in the log.

mod gquic;

use std::{io, net::UdpSocket, sync::Arc, time::Duration};

use kubeedge_core::{
    names::NodeName,
    transport::stream::{self, StreamLink},
};
use quinn::{
    Endpoint, EndpointConfig, Incoming, Runtime as _, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::QuicServerConfig,
};
use rustls::pki_types::CertificateDer;
use tokio::{io::Join, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    connection::Farewell,
    door::{Admitted, Guests, HubDoor, Rejected},
};
use crate::pki::{PkiError, peer_node_name};

/// The protocol that both ends name in the TLS handshake.
const ALPN: &[u8] = b"kubeedge";
/// Longest silence of a peer that owes us something: a keepalive of the node comes more often.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of one connection that wait for being read here, or for being confirmed by the peer.
const WINDOW: u32 = 256 * 1024;
/// For the peer to take the last packet.
const FAREWELL: Duration = Duration::from_secs(1);
/// Handshakes under way after which a peer has to prove its address first.
const RETRY_OVER: usize = 64;

impl HubDoor {
    /// Accepts nodes that send to `socket` until `shutdown`; then says farewell to all.
    ///
    /// `tls` has to require and verify a client certificate, as [`websocket_config`](crate::pki::websocket_config) does;
    /// its ALPN is replaced.
    ///
    /// # Errors
    /// When the socket or the TLS configuration cannot be used. Must be called within a runtime.
    ///
    /// # Cancel safety
    /// Dropping the future ends all sessions without a farewell.
    pub async fn quic(
        &self,
        socket: UdpSocket,
        tls: Arc<rustls::ServerConfig>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let config = server_config(&tls).map_err(io::Error::other)?;
        let runtime = Arc::new(TokioRuntime);
        let socket = gquic::Watched::new(runtime.wrap_udp_socket(socket)?);
        let endpoint =
            Endpoint::new_with_abstract_socket(EndpointConfig::default(), Some(config), Arc::new(socket), runtime)?;
        let guests = Guests::on_one_socket(self.clone(), shutdown);
        let accepting = endpoint.clone();
        guests
            .serve(async |guests: &Guests| {
                loop {
                    let room = guests.room().await;
                    let Some(incoming) = accepting.accept().await else { return };
                    if guests.handshakes() > RETRY_OVER && !incoming.remote_address_validated() {
                        // A forged address costs the forger a packet, and us no memory. It cannot fail: the address is
                        // not validated.
                        let _ = incoming.retry();
                        continue;
                    }
                    let (peer, door) = (incoming.remote_address(), self.clone());
                    let shake = async move |incoming| {
                        let (node, admitted) = shake(incoming, &door).await?;
                        Ok((node, admitted, door))
                    };
                    guests.spawn(
                        room,
                        peer,
                        std::future::ready(incoming),
                        shake,
                        move |(node, admitted, door), shutdown| async move {
                            let Node { connection, mut link } = node;
                            let end = door.converse(admitted, &mut link, &peer, &shutdown).await;
                            let (code, reason) = match end.farewell() {
                                Some(farewell) => (farewell as u32, farewell.reason()),
                                None => (0, ""),
                            };
                            connection.close(VarInt::from_u32(code), reason.as_bytes());
                        },
                    );
                }
            })
            .await;
        endpoint.close(VarInt::from_u32(Farewell::CloudStops as u32), Farewell::CloudStops.reason().as_bytes());
        let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        Ok(())
    }
}

fn server_config(tls: &rustls::ServerConfig) -> Result<ServerConfig, PkiError> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(PkiError::crypto)?));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(VarInt::from_u32(u32::try_from(IDLE.as_millis()).unwrap_or(u32::MAX)).into()))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(WINDOW.into())
        .receive_window(WINDOW.into())
        .send_window(WINDOW.into())
        .datagram_receive_buffer_size(None);
    // In a storm a peer may have to wait for its turn.
    config.transport_config(Arc::new(transport)).retry_token_lifetime(IDLE);
    Ok(config)
}

/// A node whose handshake is done. The stream says nothing once the connection is dropped.
struct Node {
    connection: quinn::Connection,
    link: StreamLink<Join<quinn::RecvStream, quinn::SendStream>>,
}

async fn shake(incoming: Incoming, door: &HubDoor) -> Result<(Node, Admitted), Rejected> {
    let peer = incoming.remote_address().to_string();
    let connection = incoming.await?;
    let node = proven_node(&connection)?;
    let (send, receive) = connection.accept_bi().await?;
    let dialed = stream::accept(tokio::io::join(receive, send), &peer).await?;
    match door.admit(dialed.hello(), &node) {
        Ok(admitted) => {
            let link = dialed.welcome(admitted.extensions(), door.message_limit()).await?;
            Ok((Node { connection, link }, admitted))
        }
        Err(refusal) => {
            let (_, mut send) = dialed.refuse(&refusal).await?.into_inner();
            // Dropping the connection would drop what it has not sent yet.
            let _ = send.finish();
            let _ = timeout(FAREWELL, send.stopped()).await;
            Err(Rejected::Refused(refusal, node))
        }
    }
}

fn proven_node(connection: &quinn::Connection) -> Result<NodeName, Rejected> {
    let identity = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'_>>>().ok());
    let certificate = identity.as_ref().and_then(|chain| chain.first()).ok_or(Rejected::NoCertificate)?;
    peer_node_name(certificate).map_err(Rejected::Certificate)
}
