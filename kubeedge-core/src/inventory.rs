//! What an edge has of the cloud's objects, asked when it connects: the extension `inventory`.
//!
//! The cloud remembers what each node has acknowledged. Whether that is still true it asks with a digest of what it
//! remembers: a node that has just that answers "the same", in some 200 bytes, and gets nothing again. A node that has
//! something else, because one of the two has lost its memory, answers with the list.

use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::{
    message::{Content, ContentError, Message},
    names::{ResourceVersion, Uid, UnixMillis},
    resource::{ObjectPath, Resource, ResourceType},
    words::{Group, Operation, Source},
};

/// An object that an edge has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// Where it is.
    pub path: ObjectPath,
    /// Which one it is.
    pub uid: Uid,
    /// Its version.
    pub version: Option<ResourceVersion>,
}

/// Digest of a set of holdings, in whatever order they come: the sum of their 128-bit hashes. It tells apart what differs
/// by accident; an edge that forges it deceives nobody but itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InventoryDigest {
    count: u64,
    sum: u128,
}

impl InventoryDigest {
    /// Takes one in.
    pub fn add(&mut self, holding: &Holding) {
        let mut hasher = SipHasher13::new();
        // Slashes and zeros are in none of the parts.
        hasher.write(holding.path.to_string().as_bytes());
        hasher.write_u8(0);
        hasher.write(holding.uid.as_str().as_bytes());
        hasher.write_u8(0);
        hasher.write(&holding.version.map_or(0, ResourceVersion::number).to_le_bytes());
        self.sum = self.sum.wrapping_add(hasher.finish128().as_u128());
        self.count += 1;
    }
}

impl<'a> FromIterator<&'a Holding> for InventoryDigest {
    fn from_iter<T: IntoIterator<Item = &'a Holding>>(holdings: T) -> Self {
        let mut digest = Self::default();
        holdings.into_iter().for_each(|holding| digest.add(holding));
        digest
    }
}

/// What the cloud asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InventoryQuestion {
    /// The types of objects that are meant.
    pub kinds: Vec<ResourceType>,
    /// What the node should have of them.
    pub digest: InventoryDigest,
}

/// What the edge answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InventoryAnswer {
    /// Just that.
    Same,
    /// Something else: this.
    Differs(Vec<Holding>),
}

#[derive(Serialize, Deserialize)]
struct WireQuestion {
    kinds: Vec<String>,
    count: u64,
    digest: String,
}

#[derive(Serialize, Deserialize)]
struct WireAnswer {
    same: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    objects: Vec<WireHolding>,
}

#[derive(Serialize, Deserialize)]
struct WireHolding {
    resource: String,
    uid: Uid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

impl InventoryQuestion {
    /// Asks whether a node has just the objects of `digest`, of all that are of `kinds`.
    pub fn new(kinds: impl Into<Vec<ResourceType>>, digest: InventoryDigest) -> Self {
        Self { kinds: kinds.into(), digest }
    }

    /// The message that asks it.
    pub fn message(&self, now: UnixMillis) -> Message {
        let question = WireQuestion {
            kinds: self.kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
            count: self.digest.count,
            digest: format!("{:032x}", self.digest.sum),
        };
        Message::new(now, Source::CloudHub, Group::Resource, Operation::Query, Resource::Inventory)
            .content(content(&question))
    }

    /// Whether `message` is such a question.
    pub fn is_asked_by(message: &Message) -> bool {
        message.resource == Resource::Inventory && message.operation == Operation::Query
    }

    /// Reads the question.
    ///
    /// # Errors
    /// When the content is no question.
    pub fn read(message: &Message) -> Result<Self, ContentError> {
        let WireQuestion { kinds, count, digest } = message.content.parse()?;
        // Text that is no digest differs from every digest.
        let sum = u128::from_str_radix(&digest, 16).unwrap_or_default();
        let kinds = kinds.iter().map(|kind| ResourceType::from_word(kind)).collect();
        Ok(Self { kinds, digest: InventoryDigest { count, sum } })
    }
}

impl InventoryAnswer {
    /// The answer of a node that has `holdings`.
    pub fn of(question: &InventoryQuestion, holdings: Vec<Holding>) -> Self {
        let digest: InventoryDigest = holdings.iter().collect();
        if digest == question.digest { Self::Same } else { Self::Differs(holdings) }
    }

    /// The message that tells it.
    pub fn message(&self, question: &Message, now: UnixMillis) -> Message {
        let objects = match self {
            Self::Same => Vec::new(),
            Self::Differs(holdings) => holdings.iter().map(WireHolding::of).collect(),
        };
        let answer = WireAnswer { same: *self == Self::Same, objects };
        Message::new(now, Source::EdgeHub, Group::Resource, Operation::Response, Resource::Inventory)
            .answering(&question.id)
            .content(content(&answer))
    }

    /// Reads the answer. Objects whose resource cannot be read are left out: the cloud then sends them again.
    ///
    /// # Errors
    /// When the content is no answer.
    pub fn read(message: &Message) -> Result<Self, ContentError> {
        let answer: WireAnswer = message.content.parse()?;
        Ok(if answer.same {
            Self::Same
        } else {
            Self::Differs(answer.objects.into_iter().filter_map(WireHolding::read).collect())
        })
    }
}

impl WireHolding {
    fn of(holding: &Holding) -> Self {
        Self {
            resource: holding.path.to_string(),
            uid: holding.uid.clone(),
            version: holding.version.map(|version| version.to_string()),
        }
    }

    fn read(self) -> Option<Holding> {
        let Resource::Object(path) = Resource::parse(&self.resource, &Group::Resource) else { return None };
        let version = self.version.and_then(|version| version.parse().ok());
        Some(Holding { path, uid: self.uid, version })
    }
}

/// Text and numbers always have a JSON form.
fn content(value: &impl Serialize) -> Content {
    Content::json(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: UnixMillis = UnixMillis(5);

    fn holding(name: &str, uid: &str, version: u64) -> Holding {
        let path = ObjectPath::namespaced("default", ResourceType::Pod, name).unwrap();
        Holding { path, uid: Uid::new(uid).unwrap(), version: ResourceVersion::new(version) }
    }

    fn ask(remembered: &[Holding], there: &[Holding]) -> InventoryAnswer {
        let question = InventoryQuestion::new([ResourceType::Pod], remembered.iter().collect());
        let asked = question.message(NOW);
        assert!(InventoryQuestion::is_asked_by(&asked));
        let read = InventoryQuestion::read(&asked).unwrap();
        assert_eq!(read, question);
        InventoryAnswer::read(&InventoryAnswer::of(&read, there.to_vec()).message(&asked, NOW)).unwrap()
    }

    #[test]
    fn the_same_in_another_order_is_the_same() {
        let (a, b) = (holding("a", "1", 7), holding("b", "2", 8));
        assert_eq!(ask(&[a.clone(), b.clone()], &[b, a]), InventoryAnswer::Same);
        assert_eq!(ask(&[], &[]), InventoryAnswer::Same);
    }

    #[test]
    fn each_difference_is_noticed_and_told() {
        let (a, b) = (holding("a", "1", 7), holding("b", "2", 8));
        let remembered = [a.clone(), b.clone()];
        for there in [
            vec![a.clone()],
            vec![a.clone(), b.clone(), holding("c", "3", 9)],
            vec![a.clone(), holding("b", "2", 9)],
            vec![a.clone(), holding("b", "3", 8)],
            vec![a, holding("bb", "2", 8)],
            vec![b.clone(), b],
            vec![],
        ] {
            assert_eq!(ask(&remembered, &there), InventoryAnswer::Differs(there));
        }
    }

    #[test]
    fn what_is_no_question_or_answer_is_an_error() {
        let message = InventoryQuestion::new([], InventoryDigest::default()).message(NOW).content(Content::text("x"));
        assert!(InventoryQuestion::read(&message).is_err());
        assert!(InventoryAnswer::read(&message).is_err());
    }
}
