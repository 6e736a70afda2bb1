//! What an edge has: the version of each object, in memory.

use std::collections::HashMap;

use kubeedge_core::{
    inventory::{Holding, InventoryAnswer, InventoryQuestion},
    message::Message,
    names::{MessageId, ResourceVersion, Uid},
    resource::ObjectPath,
    words::Operation,
};
use serde::Deserialize;

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
    objects: HashMap<ObjectPath, Held>,
}

#[derive(Debug)]
struct Held {
    version: Option<ResourceVersion>,
    /// The message that brought it.
    id: MessageId,
    /// None once it is deleted.
    uid: Option<Uid>,
}

#[derive(Deserialize)]
struct Identity {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: Uid,
}

impl Shelf {
    /// Takes what a message brings, unless something newer is there.
    pub(crate) fn apply(&mut self, message: &Message) -> Arrival {
        let Some(path) = message.resource.object().filter(|_| message.parent.is_none()) else { return Arrival::Notice };
        let version = message.resource_version;
        let arrival = match self.objects.get(path) {
            Some(held) if held.id == message.id => return Arrival::Repeated,
            // Skeletons of objects that are gone have no version.
            Some(held) if version.is_some() && held.version > version => return Arrival::Stale,
            Some(held) if held.version == version && message.operation != Operation::Delete => Arrival::Known,
            None | Some(_) => Arrival::New,
        };
        let known = self.objects.get(path).and_then(|held| held.version);
        let uid = (message.operation != Operation::Delete).then(|| message.content.parse::<Identity>().ok()).flatten();
        let uid = uid.map(|identity| identity.metadata.uid);
        self.objects.insert(path.clone(), Held { version: version.or(known), id: message.id.clone(), uid });
        arrival
    }

    /// What the edge has of the types that `question` names.
    pub(crate) fn answer(&self, question: &InventoryQuestion) -> InventoryAnswer {
        let holdings = self.objects.iter().filter(|(path, _)| question.kinds.contains(&path.kind));
        let holdings = holdings.filter_map(|(path, held)| {
            Some(Holding { path: path.clone(), uid: held.uid.clone()?, version: held.version })
        });
        InventoryAnswer::of(question, holdings.collect())
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
