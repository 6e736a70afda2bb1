//! The state of one link, without the link: what to send, what to wait for, when to give up.
//!
//! Feed a [`Session`] with what arrives and with the time, and take from it what to send and what happened:
//!
//! 1. after each [`Session::submit`], [`Session::handle_message`] or [`Session::handle_timeout`],
//! 2. drain [`Session::poll_event`] and [`Session::poll_transmit`],
//! 3. and sleep until [`Session::poll_timeout`] or the next message.
//!
//! The same state serves both ends; [`SessionConfig::cloud`] and [`SessionConfig::edge`] set it up as upstream behaves.
//!
//! Upstream: `cloud/pkg/cloudhub/session`, `edge/pkg/edgehub`.

mod config;

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

pub use self::config::{Keepalive, SessionConfig};
use crate::{
    message::{Content, Message},
    names::{MessageId, UnixMillis},
    resource::Resource,
    words::{Group, Operation, Source},
};

/// When a message counts as settled for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// When it was handed to the link.
    Written,
    /// When the peer acknowledged it; until then it is sent again and again.
    Acked,
    /// When the peer answered it.
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
    /// The session has ended.
    #[error("the session has ended")]
    Ended(Box<Outbound>),
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
    /// The peer could not carry out a message that waits for its acknowledgement; it will be sent again.
    Refused(Ticket, String),
    /// A submitted message was settled, or will never be.
    Settled(Ticket, Result<Receipt, Unsettled>),
    /// The session is over; the link should be closed.
    Ended(SessionEnd),
}

#[derive(Debug)]
struct Unacked {
    ticket: Ticket,
    message: Message,
    sends: u32,
    next: Instant,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    deadline: Instant,
}

/// State of one link; see the [module](self).
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    tickets: u64,
    transmit: VecDeque<(Message, Option<Ticket>)>,
    events: VecDeque<SessionEvent>,
    unacked: HashMap<MessageId, Unacked>,
    waiting: HashMap<MessageId, Waiting>,
    /// When to send the next keepalive, or by when to have got one.
    keepalive: Instant,
    ended: bool,
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
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            unacked: HashMap::new(),
            waiting: HashMap::new(),
            keepalive,
            ended: false,
        }
    }

    /// Takes a message to send.
    ///
    /// # Errors
    /// [`SubmitError`] gives the message back.
    pub fn submit(&mut self, now: Instant, outbound: Outbound) -> Result<Ticket, SubmitError> {
        if self.ended {
            return Err(SubmitError::Ended(outbound.into()));
        }
        let full = match outbound.until {
            Until::Written => self.transmit.len() >= self.config.queue,
            Until::Acked => self.unacked.len() >= self.config.window,
            Until::Replied => self.waiting.len() >= self.config.requests,
        };
        if full {
            return Err(SubmitError::Full(outbound.into()));
        }
        let ticket = self.next_ticket();
        let message = outbound.message;
        match outbound.until {
            Until::Written => self.transmit.push_back((message, Some(ticket))),
            Until::Acked => {
                let unacked = Unacked { ticket, message: message.clone(), sends: 1, next: now + self.config.resend };
                self.unacked.insert(message.id.clone(), unacked);
                self.transmit.push_back((message, None));
            }
            Until::Replied => {
                self.waiting.insert(message.id.clone(), Waiting { ticket, deadline: now + self.config.reply });
                self.transmit.push_back((message, None));
            }
        }
        Ok(ticket)
    }

    /// How many more messages may be submitted that wait for an acknowledgement.
    pub fn window_left(&self) -> usize {
        if self.ended { 0 } else { self.config.window.saturating_sub(self.unacked.len()) }
    }

    /// Takes a message that arrived.
    pub fn handle_message(&mut self, now: Instant, message: Message) {
        if self.ended {
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
            self.events.push_back(SessionEvent::Deliver(message));
            return;
        };
        if let Some(waiting) = self.waiting.remove(parent) {
            self.events.push_back(SessionEvent::Settled(waiting.ticket, Ok(Receipt::Reply(message))));
        } else if message.operation == Operation::Error {
            // Not an acknowledgement: the schedule of resends stands.
            if let Some(unacked) = self.unacked.get(parent) {
                let reason = message.content.as_text().unwrap_or_else(|| message.content.as_json().to_owned());
                self.events.push_back(SessionEvent::Refused(unacked.ticket, reason));
            }
        } else if let Some(unacked) = self.unacked.remove(parent) {
            self.events.push_back(SessionEvent::Settled(unacked.ticket, Ok(Receipt::Done)));
        } else if self.config.delivers_answers {
            self.events.push_back(SessionEvent::Late(message));
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, wall: UnixMillis) {
        if self.ended {
            return;
        }
        if self.keepalive <= now {
            match self.config.keepalive {
                Keepalive::Send { every } => {
                    self.keepalive = now + every;
                    self.control(keepalive(wall));
                }
                Keepalive::Expect { .. } => {
                    self.end();
                    self.events.push_back(SessionEvent::Ended(SessionEnd::KeepaliveMissed));
                    return;
                }
            }
        }
        let late: Vec<_> =
            self.waiting.iter().filter(|(_, waiting)| waiting.deadline <= now).map(|(id, _)| id.clone()).collect();
        for id in late {
            if let Some(waiting) = self.waiting.remove(&id) {
                self.events.push_back(SessionEvent::Settled(waiting.ticket, Err(Unsettled::NoReply)));
            }
        }
        let due: Vec<_> =
            self.unacked.iter().filter(|(_, unacked)| unacked.next <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.resend(&id, now);
        }
    }

    fn resend(&mut self, id: &MessageId, now: Instant) {
        let Some(unacked) = self.unacked.get_mut(id) else { return };
        if unacked.sends >= self.config.sends {
            let (ticket, sends) = (unacked.ticket, unacked.sends);
            self.unacked.remove(id);
            self.events.push_back(SessionEvent::Settled(ticket, Err(Unsettled::NotAcked { sends })));
            return;
        }
        unacked.sends += 1;
        unacked.next = now + self.config.resend;
        let message = unacked.message.clone();
        // A message that still waits to be written need not be written twice.
        if !self.transmit.iter().any(|(queued, _)| queued.id == message.id) {
            self.transmit.push_back((message, None));
        }
    }

    /// How many messages wait for [`Session::poll_transmit`].
    pub fn transmit_len(&self) -> usize {
        self.transmit.len()
    }

    /// The next message to write. What waits for being written is settled by this.
    pub fn poll_transmit(&mut self) -> Option<Message> {
        let (message, ticket) = self.transmit.pop_front()?;
        if let Some(ticket) = ticket {
            self.events.push_back(SessionEvent::Settled(ticket, Ok(Receipt::Done)));
        }
        Some(message)
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] has something to do; `None` after the end.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let waiting = self.waiting.values().map(|waiting| waiting.deadline);
        let unacked = self.unacked.values().map(|unacked| unacked.next);
        waiting.chain(unacked).chain([self.keepalive]).min()
    }

    /// Ends the session because the link did: everything that waits is told so. Idempotent.
    pub fn end(&mut self) {
        self.ended = true;
        let unwritten = self.transmit.drain(..).filter_map(|(_, ticket)| ticket);
        let unacked = self.unacked.drain().map(|(_, unacked)| unacked.ticket);
        let waiting = self.waiting.drain().map(|(_, waiting)| waiting.ticket);
        let mut lost: Vec<_> = unwritten.chain(unacked).chain(waiting).collect();
        lost.sort_unstable();
        self.events.extend(lost.into_iter().map(|ticket| SessionEvent::Settled(ticket, Err(Unsettled::LinkEnded))));
    }

    fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Control messages jump the queue of data, and are dropped when the link does not even take those.
    fn control(&mut self, message: Message) {
        if self.transmit.len() < self.config.queue.saturating_mul(2) {
            self.transmit.push_front((message, None));
        }
    }
}

/// Upstream: `edge/pkg/edgehub/process.go`.
fn keepalive(wall: UnixMillis) -> Message {
    Message::new(wall, Source::EdgeHub, Group::Resource, Operation::Keepalive, Resource::Keepalive)
        .content(Content::text("ping"))
}
