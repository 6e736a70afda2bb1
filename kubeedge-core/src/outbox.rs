//! Messages that must reach the cloud, as records of the metadata store.
//!
//! Whoever changes something writes the change and the message about it in one commit. The hub sends what lies here
//! whenever there is a link, and removes an entry once it is settled. There are two classes:
//!
//! * *State* ([`leave`]): an entry is keyed by its [`Subject`], and a newer one replaces an older one. It is never
//!   dropped; an offline week takes no more room than a day.
//! * *Streams* ([`append`]): each entry is one of many, such as events of pods or uploads of rules, and they are sent in
//!   the order in which they were committed. A full stream drops its oldest entry, or refuses the newest, as the
//!   writer chose.
//!
//! [`OutboxLayer`](crate::layer::OutboxLayer) around the store keeps both within [`OutboxLimits`] and numbers the
//! entries of streams. The node builder puts it on; without it a stream takes one entry and then conflicts.
//!
//! In the store the namespace of an entry of state is empty, and its name is the subject; the namespace of an entry of
//! a stream is the stream, and its name is its number in 20 digits.

mod entry;
mod limits;

pub use self::{
    entry::{Entry, Sequence, Stream, Subject},
    limits::{OutboxLimit, OutboxLimits, StreamLimit},
};
use crate::{
    message::Message,
    meta::{Collection, MetaKey, MetaWrite, Precondition, Record, Selector},
    resource::{Resource, ResourceType},
    session::Until,
    wire::json,
    words::{Group, Operation, Source},
};

/// What becomes of an append to a stream that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The oldest entries of the stream make room, in the same commit; see
    /// [`OutboxDrops`](crate::layer::OutboxDrops).
    #[default]
    DropOldest,
    /// The commit fails with [`MetaError::OutboxFull`](crate::meta::MetaError::OutboxFull).
    Refuse,
}

/// Key of the entry of state about `subject`.
pub fn key(subject: &Subject) -> MetaKey {
    Entry::State(subject.clone()).key()
}

/// The write that leaves `message` for the cloud, replacing an older one about the same subject.
pub fn leave(subject: &Subject, message: &Message) -> MetaWrite {
    MetaWrite::Put(Record::new(key(subject), json::encode(message)), Precondition::Always)
}

/// The write that takes back what was left about `subject`; fine if there is nothing.
pub fn withdraw(subject: &Subject) -> MetaWrite {
    MetaWrite::Delete(key(subject), Precondition::Always)
}

/// The write that adds `message` to the end of `stream`.
pub fn append(stream: &Stream, message: &Message, when_full: WhenFull) -> MetaWrite {
    let sequence = match when_full {
        WhenFull::DropOldest => Sequence::NEXT,
        WhenFull::Refuse => Sequence::NEXT_IF_ROOM,
    };
    let key = Entry::Stream(stream.clone(), sequence).key();
    MetaWrite::Put(Record::new(key, json::encode(message)), Precondition::Absent)
}

/// The write that takes `entry` away, unless a newer one has taken its place.
pub fn settle(entry: &Record) -> MetaWrite {
    MetaWrite::Delete(entry.key.clone(), Precondition::Unchanged(entry.revision))
}

/// All entries.
pub fn selector() -> Selector {
    Selector::all(Collection::outbox())
}

/// The message of an entry.
///
/// # Errors
/// [`json::DecodeError`] if the bytes on disk are damaged.
pub fn message(entry: &Record) -> Result<Message, json::DecodeError> {
    json::decode(&String::from_utf8_lossy(&entry.value))
}

/// What settles `message`: its answer, or being written to the link if no KubeEdge cloud ever answers it.
///
/// Events, uploads of MQTT, results of ServiceBus and membership queries are never answered. For them "at least once" ends
/// at the socket: what was written to a link that broke is lost, as it is upstream. Between two of ours nothing better is
/// agreed on.
///
/// Upstream: `cloud/pkg/cloudhub/dispatcher/message_dispatcher.go`.
pub fn settled_by(message: &Message) -> Until {
    let unanswered = match (&message.operation, &message.resource) {
        (_, Resource::MembershipDetail) => true,
        (_, Resource::Object(path)) if path.kind == ResourceType::Event => true,
        // A call of ServiceBus is answered; the result of one that the cloud asked for is not.
        (Operation::Upload, _) if message.group == Group::User => {
            message.source != Source::ServiceBus || message.parent.is_some()
        }
        _ => false,
    };
    if unanswered { Until::Written } else { Until::Replied }
}
