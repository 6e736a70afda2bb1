//! What was submitted and waits for its peer: found by ticket, by id, and by the time of the next thing to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::Ticket;
use crate::{message::Message, names::MessageId};

/// What settles a message in flight.
#[derive(Debug)]
pub(super) enum Wait {
    /// An acknowledgement; it was written so often.
    Ack { sends: u32 },
    /// An answer.
    Reply,
}

/// A message in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) wait: Wait,
    /// Whether it waits to be written, for the first time or again.
    pub(super) queued: bool,
    id: MessageId,
    /// None once a request was written: it is not sent again.
    message: Option<Message>,
    due: Instant,
}

/// All messages in flight. Everything is ordered, so equal inputs give equal outputs; each operation takes the logarithm
/// of their number. Without any it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Flights {
    by_ticket: BTreeMap<Ticket, Box<Flight>>,
    by_id: BTreeMap<MessageId, Ticket>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    acks: usize,
}

impl Flights {
    /// Takes a message that is about to be queued for writing. Its id must not be [known](Self::ticket).
    pub(super) fn insert(&mut self, ticket: Ticket, message: Message, wait: Wait, due: Instant) {
        self.acks += usize::from(matches!(wait, Wait::Ack { .. }));
        self.by_id.insert(message.id.clone(), ticket);
        self.deadlines.insert((due, ticket));
        let flight = Flight { wait, queued: true, id: message.id.clone(), message: Some(message), due };
        self.by_ticket.insert(ticket, flight.into());
    }

    /// How many wait for an acknowledgement.
    pub(super) fn acks(&self) -> usize {
        self.acks
    }

    /// How many wait for an answer.
    pub(super) fn requests(&self) -> usize {
        self.by_ticket.len() - self.acks
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_ticket.is_empty()
    }

    /// The message in flight that has this id.
    pub(super) fn ticket(&self, id: &MessageId) -> Option<Ticket> {
        self.by_id.get(id).copied()
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Flight> {
        self.by_ticket.get(&ticket).map(|flight| &**flight)
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Box<Flight>> {
        let flight = self.by_ticket.remove(&ticket)?;
        self.by_id.remove(&flight.id);
        self.deadlines.remove(&(flight.due, ticket));
        self.acks -= usize::from(matches!(flight.wait, Wait::Ack { .. }));
        if self.by_ticket.is_empty() {
            // A map keeps its last node, and most sessions are idle for most of the time.
            *self = Self::default();
        }
        Some(flight)
    }

    /// All, in the order in which they were submitted.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Ticket, Box<Flight>)> + use<> {
        std::mem::take(self).by_ticket.into_iter()
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The one that has been due for longest at `now`.
    pub(super) fn due(&self, now: Instant) -> Option<Ticket> {
        self.deadlines.first().filter(|(due, _)| *due <= now).map(|(_, ticket)| *ticket)
    }

    /// Puts one off until `due`. Tells whether it has to be queued for writing, which it now is.
    pub(super) fn put_off(&mut self, ticket: Ticket, due: Instant) -> bool {
        let Some(flight) = self.by_ticket.get_mut(&ticket) else { return false };
        self.deadlines.remove(&(flight.due, ticket));
        self.deadlines.insert((due, ticket));
        flight.due = due;
        !std::mem::replace(&mut flight.queued, true)
    }

    /// The message to write, unless it was settled while it waited for that.
    pub(super) fn write(&mut self, ticket: Ticket) -> Option<Message> {
        let flight = self.by_ticket.get_mut(&ticket)?;
        flight.queued = false;
        match &mut flight.wait {
            Wait::Ack { sends } => {
                *sends += 1;
                flight.message.clone()
            }
            Wait::Reply => flight.message.take(),
        }
    }
}
