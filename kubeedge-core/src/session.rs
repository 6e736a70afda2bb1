//! The state of one link, without the link: what to send, what to wait for, when to give up.
//!
//! Feed a [`Session`] with what arrives and with the time, and take from it what to send and what happened:
//!
//! 1. after each [`Session::submit`], [`Session::handle_message`] or [`Session::handle_timeout`],
//! 2. drain [`Session::poll_event`] and [`Session::poll_transmit`],
//! 3. and sleep until [`Session::poll_timeout`] or the next message.
//!
//! The same state serves both ends; [`SessionConfig::cloud`] and [`SessionConfig::edge`] set it up as upstream behaves.
//! The same inputs give the same outputs in the same order. What it holds is bounded by its configuration, if it is
//! drained; an idle session holds nothing on the heap.
//!
//! Upstream: `cloud/pkg/cloudhub/session`, `edge/pkg/edgehub`.

mod config;
mod flight;

use std::{collections::VecDeque, time::Instant};

pub use self::config::{Keepalive, SessionConfig};
use self::flight::{Flights, Wait};
use crate::{
    message::{Content, Message},
    names::{MessageId, UnixMillis},
    resource::Resource,
    words::{Group, Operation, Source},
};

/// Answers and keepalives of the session's own that may wait for being written.
const CONTROLS: usize = 16;

/// When a message counts as settled for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// When it was handed to the link.
    Written,
    /// When the peer acknowledged it; until then it is sent again and again.
    Acked,
    /// When the peer answered it. Either end may ask: a Go edge answers requests to its applications, and acknowledges
    /// everything else, which is an answer too.
    Replied,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The message.
    pub message: Message,
    /// When it is settled.
    pub until: Until,
}

/// What settled a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It was written or acknowledged.
    Done,
    /// It was answered.
    Reply(Message),
}

/// Names a submitted message in later events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A message was not accepted; it comes back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Too many of its kind are waiting: submit again after the next settled event.
    #[error("the session already waits for as much as it may")]
    Full(Box<Outbound>),
    /// The session has ended, or is about to.
    #[error("the session has ended")]
    Ended(Box<Outbound>),
    /// A message with this id waits for its acknowledgement or answer: what comes could not be told apart.
    #[error("a message with the same id is in flight")]
    Duplicate(Box<Outbound>),
}

/// A message will not be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsettled {
    /// It was sent as often as configured and never acknowledged. The peer may have it.
    #[error("sent {sends} times without an acknowledgement")]
    NotAcked {
        /// How often it was sent.
        sends: u32,
    },
    /// No answer came in time. The peer may have it.
    #[error("no answer in time")]
    NoReply,
    /// The link ended first. The peer may have it.
    #[error("the link ended")]
    LinkEnded,
}

/// Why a session ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The peer was silent for too long.
    #[error("no keepalive in time")]
    KeepaliveMissed,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A message for us. Whoever takes it acknowledges it, once its effect is durable.
    Deliver(Message),
    /// An answer for which nobody waits any more. It changes nothing, but it must be acknowledged, or it comes again.
    Late(Message),
    /// The peer could not carry out a message that waits for its acknowledgement. It will be sent again, unless it is
    /// [withdrawn](Session::withdraw).
    Refused(Ticket, String),
    /// A submitted message was settled, or will never be.
    Settled(Ticket, Result<Receipt, Unsettled>),
    /// The session is over; the link should be closed.
    Ended(SessionEnd),
}

/// What waits for being written.
#[derive(Debug)]
enum Outgoing {
    /// Settled by being written.
    Once(Ticket, Message),
    /// In flight: the message is there, unless it was settled in the meantime.
    Flight(Ticket),
}

/// State of one link; see the [module](self).
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    tickets: u64,
    /// Goes before all else.
    control: VecDeque<Message>,
    transmit: VecDeque<Outgoing>,
    /// How many of `transmit` are settled already.
    stale: usize,
    events: VecDeque<SessionEvent>,
    flights: Flights,
    /// When to send the next keepalive, or by when to have got one.
    keepalive: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// We take nothing new.
    Finishing,
    /// The peer sends nothing more.
    PeerFinished,
    Ended,
}

impl Session {
    /// The state of a link that was opened at `now`.
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        let keepalive = match config.keepalive {
            // The peer counts from the connection on, so the first one goes at once.
            Keepalive::Send { .. } => now,
            Keepalive::Expect { within } => now + within,
        };
        Self {
            config,
            tickets: 0,
            control: VecDeque::new(),
            transmit: VecDeque::new(),
            stale: 0,
            events: VecDeque::new(),
            flights: Flights::default(),
            keepalive,
            phase: Phase::Open,
        }
    }

    /// Takes a message to send.
    ///
    /// # Errors
    /// [`SubmitError`] gives the message back.
    pub fn submit(&mut self, now: Instant, outbound: Outbound) -> Result<Ticket, SubmitError> {
        let takes = match self.phase {
            Phase::Open => true,
            // What was delivered may still be acknowledged.
            Phase::Finishing | Phase::PeerFinished => outbound.until == Until::Written,
            Phase::Ended => false,
        };
        if !takes {
            return Err(SubmitError::Ended(outbound.into()));
        }
        if self.flights.ticket(&outbound.message.id).is_some() {
            return Err(SubmitError::Duplicate(outbound.into()));
        }
        let full = match outbound.until {
            Until::Written => self.transmit.len() - self.stale >= self.config.queue,
            Until::Acked => self.flights.acks() >= self.config.window,
            Until::Replied => self.flights.requests() >= self.config.requests,
        };
        if full {
            return Err(SubmitError::Full(outbound.into()));
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let message = outbound.message;
        let (wait, due) = match outbound.until {
            Until::Written => {
                self.transmit.push_back(Outgoing::Once(ticket, message));
                return Ok(ticket);
            }
            Until::Acked => (Wait::Ack { sends: 0 }, now + self.config.resend),
            Until::Replied => (Wait::Reply, now + self.config.reply),
        };
        self.flights.insert(ticket, message, wait, due);
        self.transmit.push_back(Outgoing::Flight(ticket));
        Ok(ticket)
    }

    /// How many more messages may be submitted that wait for an acknowledgement.
    pub fn window_left(&self) -> usize {
        if self.phase == Phase::Open { self.config.window.saturating_sub(self.flights.acks()) } else { 0 }
    }

    /// Takes a message that arrived.
    pub fn handle_message(&mut self, now: Instant, message: Message) {
        if matches!(self.phase, Phase::PeerFinished | Phase::Ended) {
            return;
        }
        match message.operation {
            Operation::Keepalive => {
                if let Keepalive::Expect { within } = self.config.keepalive {
                    self.keepalive = now + within;
                }
            }
            // Upstream: `pkg/viaduct/pkg/conn` answers these below the session.
            Operation::Config | Operation::Ping | Operation::Pong => {
                let mut answer = message.acknowledgement(message.timestamp);
                answer.content = Content::text("ack");
                self.control(answer);
            }
            _ => self.route(message),
        }
    }

    fn route(&mut self, message: Message) {
        let Some(parent) = &message.parent else {
            // While we finish, what comes anew is left for the next session: it is not acknowledged in this one.
            if self.phase == Phase::Open {
                self.events.push_back(SessionEvent::Deliver(message));
            }
            return;
        };
        let known = self.known(parent);
        match (known, &message.operation) {
            (Some((ticket, Wait::Reply)), _) => self.settle(ticket, Ok(Receipt::Reply(message))),
            (Some((ticket, Wait::Ack { .. })), Operation::Response) => self.settle(ticket, Ok(Receipt::Done)),
            // Not an acknowledgement: the schedule of resends stands.
            (Some((ticket, Wait::Ack { .. })), Operation::Error) => {
                let reason = message.content.as_text().unwrap_or_else(|| message.content.as_json().to_owned());
                self.events.push_back(SessionEvent::Refused(ticket, reason));
            }
            // Told of nothing that anybody still does.
            (None, Operation::Error) => {}
            _ if self.config.delivers_answers => self.events.push_back(SessionEvent::Late(message)),
            _ => {}
        }
    }

    /// Takes back a message that is not settled: it is not sent again, its place in the window is free, and nobody is told
    /// of it any more. An acknowledgement that comes all the same changes nothing. Tells whether it was there.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        self.flights.remove(ticket).is_some()
    }

    fn known(&self, id: &MessageId) -> Option<(Ticket, &Wait)> {
        let ticket = self.flights.ticket(id)?;
        self.flights.get(ticket).map(|flight| (ticket, &flight.wait))
    }

    fn settle(&mut self, ticket: Ticket, how: Result<Receipt, Unsettled>) {
        let Some(flight) = self.flights.remove(ticket) else { return };
        self.events.push_back(SessionEvent::Settled(ticket, how));
        if flight.queued {
            self.stale += 1;
            // Nobody writes, perhaps: then the queue must not grow with each that times out.
            if self.stale * 2 > self.transmit.len() {
                let flights = &self.flights;
                self.transmit.retain(|outgoing| match outgoing {
                    Outgoing::Once(..) => true,
                    Outgoing::Flight(ticket) => flights.get(*ticket).is_some(),
                });
                self.stale = 0;
                release(&mut self.transmit);
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, wall: UnixMillis) {
        if self.phase == Phase::Ended {
            return;
        }
        if self.keepalive <= now {
            match self.config.keepalive {
                Keepalive::Send { every } => {
                    self.keepalive = now + every;
                    if self.phase != Phase::PeerFinished {
                        self.control(keepalive(wall));
                    }
                }
                Keepalive::Expect { .. } => {
                    self.end();
                    self.events.push_back(SessionEvent::Ended(SessionEnd::KeepaliveMissed));
                    return;
                }
            }
        }
        while let Some(ticket) = self.flights.due(now) {
            self.overdue(ticket, now);
        }
    }

    fn overdue(&mut self, ticket: Ticket, now: Instant) {
        let Some(flight) = self.flights.get(ticket) else { return };
        let Wait::Ack { sends } = flight.wait else {
            self.settle(ticket, Err(Unsettled::NoReply));
            return;
        };
        // What was never written is not lost; it waits for the link.
        if sends >= self.config.sends && !flight.queued {
            self.settle(ticket, Err(Unsettled::NotAcked { sends }));
            return;
        }
        // What still waits to be written need not be written twice.
        let queue = self.flights.put_off(ticket, now + self.config.resend);
        if queue {
            self.transmit.push_back(Outgoing::Flight(ticket));
        }
    }

    /// How many messages wait for [`Session::poll_transmit`].
    pub fn transmit_len(&self) -> usize {
        self.control.len() + self.transmit.len() - self.stale
    }

    /// The next message to write. What waits for being written is settled by this.
    pub fn poll_transmit(&mut self) -> Option<Message> {
        if let Some(message) = pop(&mut self.control) {
            return Some(message);
        }
        loop {
            match pop(&mut self.transmit)? {
                Outgoing::Once(ticket, message) => {
                    self.events.push_back(SessionEvent::Settled(ticket, Ok(Receipt::Done)));
                    return Some(message);
                }
                Outgoing::Flight(ticket) => match self.flights.write(ticket) {
                    Some(message) => return Some(message),
                    None => self.stale -= 1,
                },
            }
        }
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        pop(&mut self.events)
    }

    /// When [`Session::handle_timeout`] has something to do; `None` when it never will.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let keepalive = match (self.phase, self.config.keepalive) {
            (Phase::Ended, _) => return None,
            (Phase::PeerFinished, Keepalive::Send { .. }) => None,
            _ => Some(self.keepalive),
        };
        self.flights.next_due().into_iter().chain(keepalive).min()
    }

    /// Begins an orderly end: nothing new is taken, neither from us nor from the peer, whose new messages are passed
    /// over; unacknowledged, they come again in the next session. What is in flight may still be settled, and what was
    /// delivered be acknowledged, until [`Session::is_finished`]. How long to wait for that is the caller's choice.
    pub fn finish(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Finishing;
        }
    }

    /// The peer has closed its half and sends nothing more, though it may still read: what waits for its word is told
    /// so now, and what only has to be written still is, until [`Session::is_finished`]. A missing keepalive ends the
    /// session as ever.
    pub fn peer_finished(&mut self) {
        if matches!(self.phase, Phase::Open | Phase::Finishing) {
            self.phase = Phase::PeerFinished;
            let waiting = self.flights.drain().map(|(ticket, _)| lost(ticket));
            self.events.extend(waiting);
            self.transmit.retain(|outgoing| matches!(outgoing, Outgoing::Once(..)));
            self.stale = 0;
        }
    }

    /// Whether an end was begun and nothing is left to write or to wait for: the link should be closed.
    pub fn is_finished(&self) -> bool {
        self.phase != Phase::Open && self.transmit_len() == 0 && self.flights.is_empty()
    }

    /// Ends the session because the link did: everything that waits is told so. Idempotent.
    pub fn end(&mut self) {
        self.phase = Phase::Ended;
        self.control = VecDeque::new();
        let unwritten = std::mem::take(&mut self.transmit).into_iter().filter_map(|outgoing| match outgoing {
            Outgoing::Once(ticket, _) => Some(ticket),
            Outgoing::Flight(_) => None,
        });
        let mut tickets: Vec<_> = self.flights.drain().map(|(ticket, _)| ticket).chain(unwritten).collect();
        tickets.sort_unstable();
        self.stale = 0;
        self.events.extend(tickets.into_iter().map(lost));
    }

    /// Control messages jump the queue of data, and are dropped when the link does not even take those.
    fn control(&mut self, message: Message) {
        if self.control.len() < CONTROLS {
            self.control.push_back(message);
        }
    }
}

fn lost(ticket: Ticket) -> SessionEvent {
    SessionEvent::Settled(ticket, Err(Unsettled::LinkEnded))
}

fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front()?;
    release(queue);
    Some(first)
}

/// Gives back what an empty queue holds: a cloud has very many sessions, and few are busy at a time.
fn release<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
}

/// Upstream: `edge/pkg/edgehub/process.go`.
fn keepalive(wall: UnixMillis) -> Message {
    Message::new(wall, Source::EdgeHub, Group::Resource, Operation::Keepalive, Resource::Keepalive)
        .content(Content::text("ping"))
}
