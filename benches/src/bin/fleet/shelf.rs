//! What an edge has: the version of each object, in memory.

use std::collections::HashMap;

use kubeedge_core::{
    message::Message,
    names::{MessageId, ResourceVersion},
    resource::ObjectPath,
    words::Operation,
};

/// What a message of the cloud was to this edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Newer than what was there.
    New,
    /// The version that is there already, in another message: it need not have been sent.
    Known,
    /// A message that was acknowledged before: the acknowledgement was late or lost.
    Repeated,
    /// Older than what is there. Must never be.
    Stale,
    /// Not about an object.
    Notice,
}

/// The versions that an edge has. A deleted object stays as the version that it had.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    objects: HashMap<ObjectPath, (Option<ResourceVersion>, MessageId)>,
}

impl Shelf {
    /// Takes what a message brings, unless something newer is there.
    pub(crate) fn apply(&mut self, message: &Message) -> Arrival {
        let Some(path) = message.resource.object().filter(|_| message.parent.is_none()) else { return Arrival::Notice };
        let version = message.resource_version;
        let arrival = match self.objects.get(path) {
            Some((_, id)) if *id == message.id => return Arrival::Repeated,
            // Skeletons of objects that are gone have no version.
            Some((known, _)) if version.is_some() && *known > version => return Arrival::Stale,
            Some((known, _)) if *known == version && message.operation != Operation::Delete => Arrival::Known,
            None | Some(_) => Arrival::New,
        };
        let known = self.objects.get(path).and_then(|(known, _)| *known);
        self.objects.insert(path.clone(), (version.or(known), message.id.clone()));
        arrival
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::{
        names::UnixMillis,
        resource::ResourceType,
        words::{Group, Source},
    };

    use super::*;

    fn message(operation: Operation, version: u64) -> Message {
        let path = ObjectPath::namespaced("default", ResourceType::ConfigMap, "a").unwrap();
        Message::new(UnixMillis(0), Source::EdgeController, Group::Resource, operation, path)
            .version(ResourceVersion::new(version))
    }

    #[test]
    fn newest_wins_and_the_rest_is_told_apart() {
        let mut shelf = Shelf::default();
        let first = message(Operation::Insert, 5);
        assert_eq!(shelf.apply(&first), Arrival::New);
        assert_eq!(shelf.apply(&first), Arrival::Repeated);
        assert_eq!(shelf.apply(&message(Operation::Update, 5)), Arrival::Known);
        assert_eq!(shelf.apply(&message(Operation::Update, 4)), Arrival::Stale);
        assert_eq!(shelf.apply(&message(Operation::Update, 6)), Arrival::New);
        assert_eq!(shelf.apply(&message(Operation::Delete, 6)), Arrival::New);
        assert_eq!(shelf.apply(&message(Operation::Update, 5)), Arrival::Stale, "what is gone stays gone");
    }
}
