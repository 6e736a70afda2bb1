//! One connection: the link on one side, the session and the mailbox of the node on the other.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream as _, future::BoxFuture, stream::FuturesUnordered};
use kubeedge_core::{
    message::Message,
    names::{NodeName, Uid},
    session::{Outbound, Receipt, Session, SessionEnd, SessionEvent, SubmitError, Ticket, Unsettled, Until},
    transport::{Extensions, Link, LinkError, SessionWriter},
};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::ServiceExt as _;

use super::{
    HubParts,
    downlink::ObjectChange,
    lanes::{LaneLimits, Lanes, Slot, Work},
    mailbox::{AskError, Asked, Mailbox, Reply},
    registry::CloseReason,
    uplink::{Destination, FromNode},
};

/// So many times more requests are held than carried out at a time.
const HELD: usize = 8;
/// After an object was refused for the first time; doubles up to [`LONGEST_REST`].
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConversationEnd {
    /// The peer has closed it, or is gone.
    #[error("the peer closed the connection")]
    ClosedByPeer,
    /// We have.
    #[error("the hub ended the session: {0:?}")]
    ClosedByHub(CloseReason),
    /// The peer was silent for too long.
    #[error("no keepalive in time")]
    KeepaliveMissed,
    /// The peer does not read.
    #[error("the peer did not take a frame in time")]
    WriteTimeout,
    /// The link broke, or brought what is no message.
    #[error("the link broke")]
    Broken(#[from] LinkError),
}

/// What a peer is told at the end. The number goes over the wire where the link has a place for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    CloudStops = 1,
    Replaced = 2,
    NodeDeleted = 3,
    QueueFull = 4,
    KeepaliveMissed = 5,
    Malformed = 6,
}

impl Farewell {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::CloudStops => "the cloud stops",
            Self::Replaced => "the node has connected anew",
            Self::NodeDeleted => "the node was deleted",
            Self::QueueFull => "too many objects wait",
            Self::KeepaliveMissed => "no keepalive in time",
            Self::Malformed => "malformed message",
        }
    }
}

impl ConversationEnd {
    /// `None` if the peer cannot be told anything.
    pub(super) fn farewell(&self) -> Option<Farewell> {
        Some(match self {
            Self::ClosedByHub(CloseReason::Shutdown) => Farewell::CloudStops,
            Self::ClosedByHub(CloseReason::Replaced) => Farewell::Replaced,
            Self::ClosedByHub(CloseReason::NodeDeleted) => Farewell::NodeDeleted,
            Self::ClosedByHub(CloseReason::QueueFull) => Farewell::QueueFull,
            Self::KeepaliveMissed => Farewell::KeepaliveMissed,
            Self::Broken(err) if err.is_malformed() => Farewell::Malformed,
            Self::ClosedByPeer | Self::WriteTimeout | Self::Broken(_) => return None,
        })
    }
}

type Answered = (Slot, Option<Message>);

/// Carries messages both ways until either side ends it.
///
/// Reading, writing and the handlers of requests run side by side in this one future, and only bounded queues lie between
/// them. When the peer does not read, writing stops; then answers pile up until no further request is read; then its
/// keepalives are not read either, and the session ends. Nobody else notices.
pub(super) struct Conversation<'a, L: ?Sized> {
    node: NodeName,
    mailbox: &'a Mailbox,
    hub: &'a HubParts,
    link: &'a mut L,
    session: Session,
    writer: SessionWriter,
    lanes: Lanes,
    handlers: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Answers that the session has no room for. At most as many as there are requests in the lanes.
    answers: VecDeque<(Slot, Message)>,
    /// A message of the mailbox that the session has no room for.
    notice: Option<Message>,
    ask: Option<Asked>,
    in_flight: HashMap<Ticket, Uid>,
    /// How often each object was refused since it was last taken.
    refusals: HashMap<Uid, u32>,
    /// Objects that were refused, by the time at which they are sent again.
    resting: BTreeSet<(Instant, Uid)>,
    asked: HashMap<Ticket, Reply>,
    timer: Pin<Box<Sleep>>,
    dropped: u64,
}

impl<'a, L: Link + ?Sized> Conversation<'a, L> {
    pub(super) fn new(
        node: NodeName,
        mailbox: &'a Mailbox,
        hub: &'a HubParts,
        extensions: Extensions,
        link: &'a mut L,
    ) -> Self {
        let now = Instant::now();
        let config = hub.config.session.clone().window(extensions.window.map_or(1, |window| window.get().into()));
        Self {
            node,
            mailbox,
            hub,
            link,
            session: Session::new(config, now.into_std()),
            writer: SessionWriter::new(),
            lanes: Lanes::new(LaneLimits {
                running: hub.config.requests,
                held: hub.config.requests * HELD,
                bytes: hub.config.message_limit,
            }),
            handlers: FuturesUnordered::new(),
            answers: VecDeque::new(),
            notice: None,
            ask: None,
            in_flight: HashMap::new(),
            refusals: HashMap::new(),
            resting: BTreeSet::new(),
            asked: HashMap::new(),
            timer: Box::pin(sleep_until(now)),
            dropped: 0,
        }
    }

    /// Does what can be done now. Tells whether anything was: then there may be more.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, ConversationEnd> {
        let now = Instant::now();
        self.mailbox.register(cx.waker());
        if let Some(reason) = self.mailbox.closing() {
            return Err(ConversationEnd::ClosedByHub(reason));
        }
        let mut done = self.fill(now);
        done |= self.writer.poll_write(cx, now.into_std(), self.link, &mut self.session)?;
        done |= self.take_events()?;
        done |= self.take_answer(cx);
        done |= self.read(cx, now)?;
        done |= self.wait(cx, now)?;
        Ok(done)
    }

    /// Hands the session what it has room for.
    fn fill(&mut self, now: Instant) -> bool {
        let mut done = false;
        while let Some((slot, answer)) = self.answers.pop_front() {
            if let Some(answer) = self.submit_once(now, answer) {
                self.answers.push_front((slot, answer));
                break;
            }
            done = true;
            self.done(slot);
        }
        while let Some(notice) = self.notice.take().or_else(|| self.mailbox.next_notice()) {
            self.notice = self.submit_once(now, notice);
            if self.notice.is_some() {
                break;
            }
            done = true;
        }
        while let Some(Asked { message, reply }) = self.ask.take().or_else(|| self.mailbox.next_ask()) {
            match self.session.submit(now.into_std(), Outbound { message, until: Until::Replied }) {
                Ok(ticket) => {
                    self.asked.insert(ticket, reply);
                    done = true;
                }
                Err(SubmitError::Full(back) | SubmitError::Ended(back)) => {
                    self.ask = Some(Asked { message: back.message, reply });
                    break;
                }
                Err(_) => drop(reply.send(Err(AskError::NoReply))),
            }
        }
        while self.session.window_left() > 0
            && let Some(change) = self.mailbox.next_object()
        {
            let message = change.message(self.hub.clock.now());
            let uid = change.object.uid.clone();
            if let Ok(ticket) = self.session.submit(now.into_std(), Outbound { message, until: Until::Acked }) {
                self.in_flight.insert(ticket, uid);
                done = true;
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
        done
    }

    /// Gives the message back if there is no room.
    fn submit_once(&mut self, now: Instant, message: Message) -> Option<Message> {
        match self.session.submit(now.into_std(), Outbound { message, until: Until::Written }) {
            Err(SubmitError::Full(outbound) | SubmitError::Ended(outbound)) => Some(outbound.message),
            _ => None,
        }
    }

    /// Takes from the session what happened.
    fn take_events(&mut self) -> Result<bool, ConversationEnd> {
        let mut done = false;
        while let Some(event) = self.session.poll_event() {
            done = true;
            match event {
                SessionEvent::Deliver(message) => self.deliver(message),
                SessionEvent::Settled(ticket, how) => self.settled(ticket, how),
                SessionEvent::Refused(ticket, why) => self.refused(ticket, &why),
                SessionEvent::Ended(SessionEnd::KeepaliveMissed) => return Err(ConversationEnd::KeepaliveMissed),
                _ => {}
            }
        }
        Ok(done)
    }

    fn settled(&mut self, ticket: Ticket, how: Result<Receipt, Unsettled>) {
        if let Some(uid) = self.in_flight.remove(&ticket) {
            self.refusals.remove(&uid);
            if let Some(change) = self.mailbox.settle(&uid, how.is_ok()) {
                self.acknowledged(&change);
            }
        } else if let Some(reply) = self.asked.remove(&ticket) {
            let answer = match how {
                Ok(Receipt::Reply(answer)) => Ok(answer),
                Err(Unsettled::LinkEnded) => Err(AskError::NotConnected),
                _ => Err(AskError::NoReply),
            };
            // Whoever asked may have gone.
            drop(reply.send(answer));
        }
    }

    /// An object that the node cannot take does not hold up the others: it gives its place in the window, and is sent again
    /// after a pause.
    fn refused(&mut self, ticket: Ticket, why: &str) {
        let Some(uid) = self.in_flight.remove(&ticket) else { return };
        self.session.withdraw(ticket);
        let refusals = self.refusals.entry(uid.clone()).or_default();
        let rest = FIRST_REST.saturating_mul(1 << (*refusals).min(16)).min(LONGEST_REST);
        *refusals += 1;
        tracing::warn!(node = %self.node, %uid, why = short(why), ?rest, "node cannot take an object, it will be tried again");
        if self.mailbox.rest(&uid) {
            self.resting.insert((Instant::now() + rest, uid));
        }
    }

    fn acknowledged(&self, change: &ObjectChange) {
        self.hub.deliveries.delivered(&self.node, change);
    }

    fn take_answer(&mut self, cx: &mut Context<'_>) -> bool {
        match Pin::new(&mut self.handlers).poll_next(cx) {
            Poll::Ready(Some((slot, Some(answer)))) => self.answers.push_back((slot, answer)),
            Poll::Ready(Some((slot, None))) => self.done(slot),
            Poll::Ready(None) | Poll::Pending => return false,
        }
        true
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, ConversationEnd> {
        if !self.lanes.has_room() {
            return Ok(false);
        }
        match Pin::new(&mut *self.link).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                self.session.handle_message(now.into_std(), message);
                self.take_events()?;
                Ok(true)
            }
            Poll::Ready(Some(Err(LinkError::Closed)) | None) => Err(ConversationEnd::ClosedByPeer),
            Poll::Ready(Some(Err(err))) => Err(err.into()),
            Poll::Pending => Ok(false),
        }
    }

    /// Waits for the next thing that time brings, and does it.
    fn wait(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, ConversationEnd> {
        let stall = self.writer.stalled_since().map(|since| Instant::from_std(since) + self.hub.config.write_timeout);
        if stall.is_some_and(|due| due <= now) {
            return Err(ConversationEnd::WriteTimeout);
        }
        let session = self.session.poll_timeout().map(Instant::from_std);
        let rested = self.resting.first().map(|(due, _)| *due);
        let Some(next) = [stall, session, rested].into_iter().flatten().min() else { return Ok(false) };
        if next > now {
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
        }
        let now = Instant::now();
        while self.resting.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, uid)) = self.resting.pop_first() {
                self.mailbox.rested(&uid);
            }
        }
        self.session.handle_timeout(now.into_std(), self.hub.clock.now());
        Ok(true)
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

impl<L: Link + ?Sized> Future for Conversation<'_, L> {
    type Output = ConversationEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConversationEnd> {
        let this = &mut *self;
        loop {
            match this.step(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
    }
}

impl<L: ?Sized> Drop for Conversation<'_, L> {
    /// Whoever asked the node something learns that there is no answer, and the ledger what nobody knows.
    fn drop(&mut self) {
        if !self.mailbox.extensions.inventory {
            for change in self.mailbox.unsettled() {
                self.hub.deliveries.uncertain(&self.node, &change);
            }
        }
        self.mailbox.refuse_asks();
        let waiting = self.asked.drain().map(|(_, reply)| reply);
        for reply in waiting.chain(self.ask.take().map(|ask| ask.reply)) {
            drop(reply.send(Err(AskError::NotConnected)));
        }
    }
}

/// What a peer says, cut to a line.
fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(256)).unwrap_or_default()
}
