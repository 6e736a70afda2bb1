//! Messages that must reach the cloud, as records of the metadata store.
//!
//! Whoever changes something writes the change and the message about it in one commit. The hub sends what lies here
//! whenever there is a link, and removes an entry when it was answered and is still the one that was sent. An entry
//! is keyed by what it is about, so a newer one replaces an older one and an offline week takes no more room than a
//! day.

use std::sync::Arc;

use crate::{
    message::Message,
    meta::{Collection, MetaKey, MetaWrite, Precondition, Record, Selector},
    wire::json,
};

/// Key of the entry about `subject`, such as `twin/default/boiler`.
pub fn key(subject: impl Into<Arc<str>>) -> MetaKey {
    MetaKey::new(Collection::outbox(), "", subject)
}

/// The write that leaves `message` for the cloud, replacing an older one about the same subject.
pub fn leave(subject: impl Into<Arc<str>>, message: &Message) -> MetaWrite {
    MetaWrite::Put(Record::new(key(subject), json::encode(message)), Precondition::Always)
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
