//! One link from its dial to its end, as a future over the session.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream as _, future::BoxFuture};
use kubeedge_core::{
    message::Message,
    names::SharedClock,
    service::BoxError,
    session::{Outbound, Receipt, Session, SessionEnd, SessionEvent, SubmitError, Ticket, Until},
    transport::{Link, LinkError, SessionWriter},
    uplink::{Inbound, UplinkError},
    words::Source,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Sleep, sleep_until},
};
use tower::Service;

use super::{
    calls::{Bucket, Call},
    config::HubConfig,
};

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the cloud closed the link")]
    Closed,
    #[error("the link broke")]
    Broken(#[source] LinkError),
    #[error("the link takes no more messages")]
    WriteTimeout,
    #[error("the session ended: {0}")]
    Session(SessionEnd),
    #[error("nobody serves the cloud's messages")]
    Inbound(#[source] BoxError),
    #[error("closed on our side")]
    Finished,
}

type Answering = BoxFuture<'static, Result<Option<Message>, BoxError>>;

/// What a call waits for.
type Reply = oneshot::Sender<Result<Receipt, UplinkError>>;

/// Reads and writes are polled side by side, so two peers that both have full sockets still drain each other.
pub(super) struct Connection<'a> {
    config: &'a HubConfig,
    clock: &'a SharedClock,
    inbound: &'a mut Inbound,
    calls: &'a mut mpsc::Receiver<Call>,
    link: Box<dyn Link>,
    session: Session,
    bucket: Option<Bucket>,
    waiting: HashMap<Ticket, Reply>,
    /// A call for which the session has no room yet.
    held: Option<Call>,
    /// Messages of the cloud that nobody has looked at, in order.
    inbox: VecDeque<Message>,
    answering: Option<(Message, Answering)>,
    /// Answers for which the session has no room yet: at most that of `answering`, and one per message read.
    answers: VecDeque<Message>,
    inbound_ready: bool,
    writer: SessionWriter,
    timer: Pin<Box<Sleep>>,
    heard: bool,
    closing: bool,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        config: &'a HubConfig,
        clock: &'a SharedClock,
        inbound: &'a mut Inbound,
        calls: &'a mut mpsc::Receiver<Call>,
        link: Box<dyn Link>,
    ) -> Self {
        let now = Instant::now();
        Self {
            config,
            clock,
            inbound,
            calls,
            link,
            session: Session::new(config.session.clone(), now.into_std()),
            bucket: config.rate.map(Bucket::new),
            waiting: HashMap::new(),
            held: None,
            inbox: VecDeque::new(),
            answering: None,
            answers: VecDeque::new(),
            inbound_ready: false,
            writer: SessionWriter::new(),
            timer: Box::pin(sleep_until(now)),
            heard: false,
            closing: false,
        }
    }

    /// Whether the cloud has sent anything.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    /// From now on nothing new is taken: the future resolves when what is under way is stored and written.
    pub(super) fn begin_close(&mut self) {
        self.closing = true;
        // Not acknowledged, so it comes again.
        self.inbox.clear();
    }

    /// Tells everybody who waits that the link is gone, and gives the link back to be closed.
    pub(super) fn end(mut self) -> Box<dyn Link> {
        self.session.end();
        // The session tells of its end only when it ends by itself.
        let _ = self.take_events();
        if let Some(call) = self.held.take() {
            refuse(call);
        }
        self.link
    }

    /// Does what can be done now. Tells whether anything was: then there may be more.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut done = self.write(cx)?;
        done |= self.take_events()?;
        done |= self.serve(cx)?;
        done |= self.read(cx)?;
        done |= self.take_calls(cx);
        done |= self.wait(cx)?;
        if self.closing
            && !done
            && self.answering.is_none()
            && self.answers.is_empty()
            && self.writer.stalled_since().is_none()
        {
            return Err(End::Finished);
        }
        Ok(done)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let now = Instant::now().into_std();
        self.writer.poll_write(cx, now, &mut *self.link, &mut self.session).map_err(End::Broken)
    }

    fn take_events(&mut self) -> Result<bool, End> {
        let mut done = false;
        while let Some(event) = self.session.poll_event() {
            done = true;
            match event {
                SessionEvent::Deliver(message) => self.inbox.push_back(message),
                // Whoever asked is gone, but the cloud sends it until it is acknowledged.
                SessionEvent::Late(message) => self.answers.push_back(message.acknowledgement(self.clock.now())),
                SessionEvent::Settled(ticket, outcome) => {
                    let Some(reply) = self.waiting.remove(&ticket) else { continue };
                    // As above: whoever asked may have gone before the session knew.
                    if let Err(Ok(Receipt::Reply(message))) = reply.send(outcome.map_err(UplinkError::from)) {
                        self.answers.push_back(message.acknowledgement(self.clock.now()));
                    }
                }
                SessionEvent::Refused(_, reason) => tracing::warn!(reason, "the cloud refused a message"),
                SessionEvent::Ended(why) => return Err(End::Session(why)),
                _ => {}
            }
        }
        Ok(done)
    }

    /// Lets the inbound service work, on one message at a time: the order of an object's versions is kept.
    fn serve(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut done = false;
        while let Some(answer) = self.answers.pop_front() {
            match self.session.submit(Instant::now().into_std(), Outbound { message: answer, until: Until::Written }) {
                Ok(_) => done = true,
                Err(SubmitError::Full(back) | SubmitError::Ended(back)) => {
                    self.answers.push_front(back.message);
                    return Ok(done);
                }
                Err(_) => return Ok(done),
            }
        }
        if let Some((message, answering)) = &mut self.answering {
            let Poll::Ready(outcome) = answering.as_mut().poll(cx) else { return Ok(done) };
            let answer = outcome.unwrap_or_else(|error| {
                tracing::warn!(error = &*error, resource = %message.resource, "message of the cloud failed");
                Some(message.refusal(self.clock.now(), Source::EdgeHub, &error))
            });
            self.answers.extend(answer);
            self.answering = None;
            return Ok(true);
        }
        if !self.inbound_ready && !self.closing {
            match self.inbound.poll_ready(cx).map_err(End::Inbound)? {
                Poll::Ready(()) => (done, self.inbound_ready) = (true, true),
                Poll::Pending => return Ok(done),
            }
        }
        if self.inbound_ready
            && let Some(message) = self.inbox.pop_front()
        {
            self.inbound_ready = false;
            let answering = self.inbound.call(message.clone());
            self.answering = Some((message, answering));
            done = true;
        }
        Ok(done)
    }

    /// Reads only while there is room for what may come, so a service that is busy stops the socket.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let served = self.inbound_ready || self.answering.is_some();
        if self.closing || !served || self.inbox.len() + self.answers.len() >= self.config.inbox {
            return Ok(false);
        }
        match Pin::new(&mut self.link).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                self.heard = true;
                self.session.handle_message(Instant::now().into_std(), message);
                self.take_events()?;
                Ok(true)
            }
            Poll::Ready(Some(Err(LinkError::Closed)) | None) => Err(End::Closed),
            Poll::Ready(Some(Err(error))) => Err(End::Broken(error)),
            Poll::Pending => Ok(false),
        }
    }

    fn take_calls(&mut self, cx: &mut Context<'_>) -> bool {
        if self.closing {
            return false;
        }
        let now = Instant::now();
        let call = match self.held.take() {
            Some(call) => call,
            None if self.bucket.as_ref().is_some_and(|bucket| bucket.ready_at(now) > now) => return false,
            None => match self.calls.poll_recv(cx) {
                Poll::Ready(Some(call)) => {
                    if let Some(bucket) = &mut self.bucket {
                        bucket.take(now);
                    }
                    call
                }
                // Every handle is gone: there is still what the cloud sends.
                Poll::Ready(None) | Poll::Pending => return false,
            },
        };
        let Call { outbound, reply } = call;
        match self.session.submit(now.into_std(), outbound) {
            Ok(ticket) => {
                self.waiting.insert(ticket, reply);
                true
            }
            Err(SubmitError::Full(back) | SubmitError::Ended(back)) => {
                self.held = Some(Call { outbound: *back, reply });
                false
            }
            // The same message is under way for somebody else.
            Err(_) => {
                let _ = reply.send(Err(UplinkError::Busy));
                true
            }
        }
    }

    /// Waits for the next thing that time brings, and does it.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let now = Instant::now();
        let stall = self.writer.stalled_since().map(|since| Instant::from_std(since) + self.config.write_timeout);
        if stall.is_some_and(|due| due <= now) {
            return Err(End::WriteTimeout);
        }
        let token = self.bucket.as_ref().map(|bucket| bucket.ready_at(now)).filter(|at| *at > now);
        let session = self.session.poll_timeout().map(Instant::from_std);
        let Some(next) = [stall, token, session].into_iter().flatten().min() else { return Ok(false) };
        if next > now {
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
        }
        self.session.handle_timeout(Instant::now().into_std(), self.clock.now());
        Ok(true)
    }
}

impl Future for Connection<'_> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
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

/// Tells a caller that there is no link.
pub(super) fn refuse(call: Call) {
    let _ = call.reply.send(Err(UplinkError::Disconnected));
}
