//! One client of the broker: its socket, its timers, its session.

use std::{net::SocketAddr, sync::Arc};

use kubeedge_core::{bus::BusEvent, service::Causes};
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::Accept;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    router::SubscriberId,
    session::{Session, Step, Violation, suback},
};
use crate::bus::{
    queue::{Holds, Policy, Queue},
    wire::{Turn, Wire, WireError},
};

/// How a connection has ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client has left")]
    Left,
    #[error("the client has closed the connection without a DISCONNECT")]
    Closed,
    #[error("no CONNECT in time")]
    NoConnect,
    #[error("the client was refused: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("another client has taken its id")]
    Evicted,
    #[error("the client is silent for longer than its keepalive")]
    Silent,
    #[error("the client does not take what is sent to it")]
    Stalled,
    #[error("the client was too slow for messages that must arrive")]
    Slow,
    #[error("the broker stops")]
    Shutdown,
    #[error("wire failed")]
    Wire(#[from] WireError),
    #[error("protocol violated")]
    Violation(#[from] Violation),
}

/// A client that has a socket, but has not said who it is.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    peer: SocketAddr,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, peer: SocketAddr) -> Self {
        Self { shared, peer }
    }

    /// As [`serve`](Self::serve), once the handshake of TLS is done; it has as long as a CONNECT.
    pub(super) async fn serve_tls(self, accepting: Accept<TcpStream>, shutdown: CancellationToken) {
        let (limit, peer) = (self.shared.config.timeout, self.peer);
        let accepted = tokio::select! {
            accepted = timeout(limit, accepting) => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok(Ok(stream)) => self.serve(stream, shutdown).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "mqtt client has no TLS that fits"),
            Err(_) => tracing::debug!(%peer, "mqtt client does not shake hands"),
        }
    }

    /// Serves the client until it leaves, breaks a rule or falls behind, or until `shutdown`.
    pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, shutdown: CancellationToken) {
        let (shared, peer) = (self.shared, self.peer);
        let mut wire = Wire::new(stream, shared.config.max_packet);
        let admitted = tokio::select! {
            admitted = timeout(shared.config.timeout, admit(&mut wire, &shared)) => admitted.unwrap_or(Err(End::NoConnect)),
            () = shutdown.cancelled() => Err(End::Shutdown),
        };
        let session = match admitted {
            Ok(session) => session,
            Err(end) => return tracing::debug!(%peer, error = %Causes(&end), "mqtt client is not let in"),
        };
        let queue = Queue::new(shared.config.session_queue, Policy::HoldFor(shared.config.patience));
        let Ok(id) = shared.router.attach(Arc::clone(&queue)) else { return };
        let evicted = CancellationToken::new();
        shared.router.claim(&session.client_id, id, evicted.clone());
        tracing::debug!(%peer, client = session.client_id, "mqtt client is connected");

        let held = Holds::default();
        let mut client = Client { shared: &shared, id, queue, session, wire, held, reply: None, heard: Instant::now() };
        let end = tokio::select! {
            biased;
            () = shutdown.cancelled() => End::Shutdown,
            () = evicted.cancelled() => End::Evicted,
            end = client.relay() => match end {
                Ok(never) => match never {},
                Err(end) => end,
            },
        };
        let Client { session, queue, .. } = client;
        shared.router.detach(id);
        queue.abandon();
        let client = session.client_id;
        match &end {
            End::Slow | End::Stalled => tracing::warn!(%peer, client, error = %Causes(&end), "mqtt client is cut off"),
            end => tracing::debug!(%peer, client, error = %Causes(end), "mqtt client is gone"),
        }
        if let Some(will) = session.will
            && !matches!(end, End::Left | End::Shutdown)
            && let Ok(mut holds) = shared.router.publish(&will)
        {
            tokio::select! {
                () = holds.admitted() => {}
                () = shutdown.cancelled() => {}
            }
        }
    }
}

/// Waits for CONNECT and answers it.
async fn admit<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, shared: &Shared) -> Result<Session, End> {
    let admitted = match wire.turn(true).await {
        Ok(Turn::Packet(Packet::Connect(connect))) => Session::admit(connect, &shared.config),
        Ok(Turn::Packet(_)) => return Err(Violation::Unexpected("before CONNECT").into()),
        Ok(Turn::Closed | Turn::Flushed) => return Err(End::Closed),
        // A CONNECT of another version does not parse. Newer clients take this answer as a hint to speak 3.1.1.
        Err(WireError::Malformed(_)) => Err(ConnectReturnCode::RefusedProtocolVersion),
        Err(error) => return Err(error.into()),
    };
    let code = admitted.as_ref().err().copied().unwrap_or(ConnectReturnCode::Success);
    wire.queue(&Packet::ConnAck(ConnAck::new(code, false)))?;
    while !matches!(wire.turn(false).await?, Turn::Flushed) {}
    admitted.map_err(End::Refused)
}

/// A client that was let in.
struct Client<'a, S> {
    shared: &'a Shared,
    id: SubscriberId,
    queue: Arc<Queue>,
    session: Session,
    wire: Wire<S>,
    /// Subscribers that the last publication waits for; nothing more is read until then.
    held: Holds,
    /// Its confirmation.
    reply: Option<Packet>,
    heard: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<'_, S> {
    async fn relay(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            let held = !self.held.is_empty();
            let read = !held && self.wire.has_room();
            let deliver = self.session.has_room() && self.wire.has_room();
            let deadline = self.deadline(read);
            let at = deadline.as_ref().map(|(at, _)| *at);
            tokio::select! {
                turn = self.wire.turn(read) => match turn? {
                    Turn::Packet(packet) => {
                        self.heard = Instant::now();
                        let step = self.session.handle(packet)?;
                        self.step(step)?;
                    }
                    Turn::Flushed => {}
                    Turn::Closed => return Err(End::Closed),
                },
                item = self.queue.next(), if deliver => match item {
                    Some(BusEvent::Message(event)) => {
                        let packet = self.session.deliver(event);
                        self.wire.queue(&packet)?;
                    }
                    Some(_) => {}
                    None => return Err(End::Slow),
                },
                // A client that confirms nothing must not miss that it was cut off.
                () = self.queue.ended(), if !deliver => return Err(End::Slow),
                () = self.held.admitted(), if held => self.answer()?,
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                    if let Some((_, end)) = deadline {
                        return Err(end);
                    }
                }
            }
        }
    }

    /// When the connection ends if nothing happens. The silence of a client that we do not read from is our own.
    fn deadline(&self, read: bool) -> Option<(Instant, End)> {
        let silent = self.session.keep_alive.filter(|_| read).map(|period| (self.heard + period * 3 / 2, End::Silent));
        let stalled = self.wire.stalled_since().map(|since| (since + self.shared.config.timeout, End::Stalled));
        silent.into_iter().chain(stalled).min_by_key(|(at, _)| *at)
    }

    fn step(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::Nothing => {}
            Step::Reply(packet) => self.wire.queue(&packet)?,
            Step::Publish(event, reply) => {
                self.held = self.shared.router.publish(&event).map_err(|_closed| End::Shutdown)?;
                self.reply = reply;
                if self.held.is_empty() {
                    self.answer()?;
                }
            }
            Step::Subscribe(packet_id, filters) => {
                let limit = self.shared.config.max_subscriptions;
                let granted = filters.into_iter().map(|asked| {
                    let (filter, qos) = asked?;
                    self.shared.router.subscribe(self.id, &filter, qos, limit).then_some(qos)
                });
                // Retained messages wait in the queue: the answer goes out before them.
                let reply = suback(packet_id, granted);
                self.wire.queue(&reply)?;
            }
            Step::Unsubscribe(filters, reply) => {
                for filter in &filters {
                    self.shared.router.unsubscribe(self.id, filter);
                }
                self.wire.queue(&reply)?;
            }
            Step::Leave => return Err(End::Left),
        }
        Ok(())
    }

    /// Confirms the last publication, which every subscriber has by now.
    fn answer(&mut self) -> Result<(), End> {
        self.heard = Instant::now();
        if let Some(reply) = self.reply.take() {
            self.wire.queue(&reply)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
