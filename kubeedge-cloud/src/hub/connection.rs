//! One connection: the socket on one side, the session on the other.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt as _, SinkExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{FuturesUnordered, SplitSink, SplitStream},
};
use kubeedge_core::{
    message::Message,
    names::{NodeName, Uid},
    session::{Outbound, Session, SessionEnd, SessionEvent, SubmitError, Ticket, Until},
    wire::json,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Utf8Bytes,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tower::ServiceExt as _;

use super::{
    HubParts,
    downlink::ObjectChange,
    lanes::{LaneLimits, Lanes, Slot, Work},
    registry::{CloseReason, Mailbox},
    uplink::{Destination, FromNode},
};

/// Frames that may wait for the socket; what waits beyond that waits in the session and in the mailbox.
const WRITES: usize = 16;
/// So many times more requests are held than carried out at a time.
const HELD: usize = 8;
/// For the peer to take the last frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the peer closed the connection")]
    ClosedByPeer,
    #[error("the hub ended the session: {0:?}")]
    ClosedByHub(CloseReason),
    #[error("no keepalive in time")]
    KeepaliveMissed,
    #[error("the peer did not take a frame in time")]
    WriteTimeout,
    #[error("the peer sent a malformed message")]
    Malformed(#[source] json::DecodeError),
    #[error("the peer sent a binary frame that is not text")]
    NotText,
    #[error("the connection broke")]
    Broken(#[from] tungstenite::Error),
}

impl End {
    fn frame(&self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::ClosedByPeer | Self::Broken(_) | Self::WriteTimeout => return None,
            Self::ClosedByHub(CloseReason::Shutdown) => (CloseCode::Restart, "the cloud stops"),
            Self::ClosedByHub(CloseReason::Replaced) => (CloseCode::Normal, "the node has connected anew"),
            Self::ClosedByHub(CloseReason::NodeDeleted) => (CloseCode::Normal, "the node was deleted"),
            Self::ClosedByHub(CloseReason::QueueFull) => (CloseCode::Again, "too many objects wait"),
            Self::KeepaliveMissed => (CloseCode::Policy, "no keepalive in time"),
            Self::Malformed(_) | Self::NotText => (CloseCode::Invalid, "malformed message"),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

/// Carries messages both ways until either side ends it.
///
/// Reading, writing and the handlers of requests run side by side in this one future, and only bounded queues lie between
/// them. When the peer does not read, writing stops after [`WRITES`] frames; then answers pile up until no further
/// request is read; then its keepalives are not read either, and the session ends. Nobody else notices.
pub(super) async fn run<S>(socket: WebSocketStream<S>, node: NodeName, mailbox: Arc<Mailbox>, hub: Arc<HubParts>) -> End
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sink, stream) = socket.split();
    let (frames, outgoing) = mpsc::channel(WRITES);
    let end = {
        let driver = Driver::new(node, &mailbox, &hub).run(stream, frames);
        let writer = write(&mut sink, outgoing, hub.config.write_timeout);
        let mut closed = std::pin::pin!(mailbox.closed());
        tokio::select! {
            end = driver => end,
            end = writer => end,
            reason = &mut closed => End::ClosedByHub(reason),
        }
    };
    if let Some(frame) = end.frame() {
        // What the peer makes of it is its business.
        let _ = timeout(FAREWELL, sink.send(tungstenite::Message::Close(Some(frame)))).await;
    }
    end
}

async fn write<S>(
    sink: &mut SplitSink<WebSocketStream<S>, tungstenite::Message>,
    mut frames: mpsc::Receiver<String>,
    patience: Duration,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(frame) = frames.recv().await {
        match timeout(patience, sink.send(tungstenite::Message::Text(frame.into()))).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => return err.into(),
            Err(_) => return End::WriteTimeout,
        }
    }
    // The driver holds the other end, and whoever drops it knows why.
    std::future::pending().await
}

type Answered = (Slot, Option<Message>);

struct Driver<'a> {
    node: NodeName,
    mailbox: &'a Mailbox,
    hub: &'a HubParts,
    session: Session,
    lanes: Lanes,
    handlers: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Answers that the session has no room for. At most as many as there are requests in the lanes.
    answers: VecDeque<(Slot, Message)>,
    notice: Option<Message>,
    in_flight: HashMap<Ticket, Uid>,
    frame: Option<String>,
    dropped: u64,
}

impl<'a> Driver<'a> {
    fn new(node: NodeName, mailbox: &'a Mailbox, hub: &'a HubParts) -> Self {
        Self {
            node,
            mailbox,
            hub,
            session: Session::new(hub.config.session.clone(), Instant::now().into_std()),
            lanes: Lanes::new(LaneLimits {
                running: hub.config.requests,
                held: hub.config.requests * HELD,
                bytes: hub.config.message_limit,
            }),
            handlers: FuturesUnordered::new(),
            answers: VecDeque::new(),
            notice: None,
            in_flight: HashMap::new(),
            frame: None,
            dropped: 0,
        }
    }

    async fn run<S>(mut self, mut stream: SplitStream<WebSocketStream<S>>, frames: mpsc::Sender<String>) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            self.fill();
            if let Some(end) = self.drain() {
                return end;
            }
            let due = self.session.poll_timeout().map(Instant::from_std);
            tokio::select! {
                // Fairness is `select`'s: none of these can starve another.
                read = stream.next(), if self.lanes.has_room() => {
                    match read {
                        None => return End::ClosedByPeer,
                        Some(Err(err)) => return err.into(),
                        Some(Ok(frame)) => if let Err(end) = self.receive(frame) { return end },
                    }
                }
                Some((slot, answer)) = self.handlers.next() => match answer {
                    Some(answer) => self.answers.push_back((slot, answer)),
                    None => self.done(slot),
                },
                Ok(slot) = frames.reserve(), if self.frame.is_some() => {
                    if let Some(frame) = self.frame.take() {
                        slot.send(frame);
                    }
                }
                () = self.mailbox.wake.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.session.handle_timeout(Instant::now().into_std(), self.hub.clock.now());
                }
            }
        }
    }

    fn receive(&mut self, frame: tungstenite::Message) -> Result<(), End> {
        let text: Utf8Bytes = match frame {
            tungstenite::Message::Text(text) => text,
            tungstenite::Message::Binary(bytes) => bytes.try_into().map_err(|_| End::NotText)?,
            tungstenite::Message::Close(_) => return Err(End::ClosedByPeer),
            // Pongs go out by themselves.
            _ => return Ok(()),
        };
        let message = json::decode(&text).map_err(End::Malformed)?;
        self.session.handle_message(Instant::now().into_std(), message);
        Ok(())
    }

    /// Hands the session what it has room for.
    fn fill(&mut self) {
        let now = Instant::now().into_std();
        while let Some((slot, answer)) = self.answers.pop_front() {
            if let Some(answer) = self.submit_once(answer) {
                self.answers.push_front((slot, answer));
                break;
            }
            self.done(slot);
        }
        while let Some(notice) = self.notice.take().or_else(|| self.mailbox.next_notice()) {
            self.notice = self.submit_once(notice);
            if self.notice.is_some() {
                break;
            }
        }
        while self.session.window_left() > 0
            && let Some(change) = self.mailbox.next_object()
        {
            let message = change.message(self.hub.clock.now());
            let uid = change.object.uid.clone();
            if let Ok(ticket) = self.session.submit(now, Outbound { message, until: Until::Acked }) {
                self.in_flight.insert(ticket, uid);
            } else {
                self.mailbox.settle(&uid, false);
                break;
            }
        }
        let dropped = self.mailbox.dropped();
        if dropped > self.dropped {
            tracing::warn!(node = %self.node, dropped = dropped - self.dropped, "node is too slow, messages were dropped");
            self.dropped = dropped;
        }
    }

    /// Gives the message back if there is no room.
    fn submit_once(&mut self, message: Message) -> Option<Message> {
        let now = Instant::now().into_std();
        match self.session.submit(now, Outbound { message, until: Until::Written }) {
            Err(SubmitError::Full(outbound) | SubmitError::Ended(outbound)) => Some(outbound.message),
            _ => None,
        }
    }

    /// Takes from the session what happened, and the next frame.
    fn drain(&mut self) -> Option<End> {
        loop {
            if self.frame.is_none() {
                self.frame = self.session.poll_transmit().map(|message| json::encode(&message));
            }
            let event = self.session.poll_event()?;
            match event {
                SessionEvent::Deliver(message) => self.deliver(message),
                SessionEvent::Settled(ticket, how) => {
                    if let Some(uid) = self.in_flight.remove(&ticket)
                        && let Some(change) = self.mailbox.settle(&uid, how.is_ok())
                    {
                        self.acknowledged(&change);
                    }
                    // There may be room for the next one.
                    self.fill();
                }
                SessionEvent::Refused(ticket, why) => {
                    let uid = self.in_flight.get(&ticket);
                    tracing::warn!(node = %self.node, ?uid, why = short(&why), "node cannot take an object, it will be tried again");
                }
                SessionEvent::Ended(SessionEnd::KeepaliveMissed) => return Some(End::KeepaliveMissed),
                _ => {}
            }
        }
    }

    fn acknowledged(&self, change: &ObjectChange) {
        self.hub.deliveries.delivered(&self.node, change);
    }

    fn deliver(&mut self, message: Message) {
        if Destination::of(&message).is_none() {
            tracing::trace!(node = %self.node, operation = %message.operation, resource = %message.resource, "nothing to do");
            return;
        }
        let work = self.lanes.arrive(message);
        self.start(work);
    }

    fn start(&mut self, work: Option<Work>) {
        let Some(work) = work else { return };
        let (uplinks, node, slot) = (self.hub.uplinks.clone(), self.node.clone(), work.slot());
        let message = work.message;
        let resource = message.resource.clone();
        let handler = async move {
            let answer = match uplinks.oneshot(FromNode { node: node.clone(), message }).await {
                Ok(answer) => answer,
                Err(err) => {
                    tracing::warn!(%node, %resource, err, "message of a node failed");
                    None
                }
            };
            (slot, answer)
        };
        self.handlers.push(handler.boxed());
    }

    fn done(&mut self, slot: Slot) {
        let work = self.lanes.done(slot);
        self.start(work);
    }
}

/// What a peer says, cut to a line.
fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(256)).unwrap_or_default()
}
