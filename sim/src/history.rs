//! What has happened, in order.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kubeedge_core::{
    message::Message,
    meta::MetaKey,
    names::{MessageId, NodeName},
    words::Operation,
};
use serde::Deserialize;

use crate::api::Place;

/// One thing that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The API has this object now.
    Written {
        /// Where.
        place: Place,
        /// Which.
        uid: String,
        /// At which version of the API.
        version: u64,
        /// For a pod or a device status: the number of the report that it shows. For a record of the ledger: the version
        /// that the node has.
        shows: Option<u64>,
    },
    /// The API does not have this object any more.
    Removed {
        /// Where it was.
        place: Place,
        /// Which it was.
        uid: String,
    },
    /// An edge has read a message about an object from its link.
    Received {
        /// The edge.
        edge: NodeName,
        /// The message, counted over the whole history.
        message: usize,
        /// Whether the object is to be stored; otherwise it is to be deleted.
        stores: bool,
        /// The record that it is about.
        key: MetaKey,
        /// Which object.
        uid: Option<String>,
        /// Its version.
        version: u64,
    },
    /// An edge has handed its answer to such a message to its link.
    Answered {
        /// The edge.
        edge: NodeName,
        /// The message that is answered.
        message: usize,
        /// Whether it is the acknowledgement; otherwise it says why not.
        acknowledged: bool,
    },
    /// A commit with this record of an object is durable; no object if it was deleted.
    Stored {
        /// The edge.
        edge: NodeName,
        /// The record.
        key: MetaKey,
        /// UID, version and content.
        object: Option<Copy>,
    },
    /// A commit that leaves a report for the cloud is durable.
    Left {
        /// The edge.
        edge: NodeName,
        /// What it is about.
        subject: String,
        /// Which object it is about.
        uid: String,
        /// Counts the reports about that object.
        number: u64,
    },
    /// A commit that takes such an entry away because it was answered is durable.
    Settled {
        /// The edge.
        edge: NodeName,
        /// What it was about.
        subject: String,
        /// Which object it was about.
        uid: String,
        /// Its number.
        number: u64,
    },
    /// Somebody has done something to the world.
    Note(String),
}

/// What an edge has of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Which it is.
    pub uid: String,
    /// Its version.
    pub version: u64,
    /// Its JSON.
    pub json: String,
}

/// An event and its time since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Duration,
    /// What.
    pub event: Event,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.2} ", self.at.as_secs_f64())?;
        match &self.event {
            Event::Written { place, uid, version, shows } => {
                write!(f, "api   has {place} uid {uid} at {version}")?;
                shows.map_or(Ok(()), |number| write!(f, " showing {number}"))
            }
            Event::Removed { place, uid } => write!(f, "api   lost {place} uid {uid}"),
            Event::Received { edge, message, stores, key, uid, version } => {
                let what = if *stores { "store" } else { "delete" };
                write!(f, "{edge} got #{message}: {what} {key} uid {uid:?} at {version}")
            }
            Event::Answered { edge, message, acknowledged } => {
                write!(f, "{edge} {} #{message}", if *acknowledged { "acknowledged" } else { "refused" })
            }
            Event::Stored { edge, key, object: Some(copy) } => {
                write!(f, "{edge} stored {key} uid {} at {}", copy.uid, copy.version)
            }
            Event::Stored { edge, key, object: None } => write!(f, "{edge} deleted {key}"),
            Event::Left { edge, subject, uid, number } => write!(f, "{edge} left {subject} {number} about {uid}"),
            Event::Settled { edge, subject, uid, number } => write!(f, "{edge} settled {subject} {number} about {uid}"),
            Event::Note(text) => write!(f, "----- {text}"),
        }
    }
}

/// Records what happens. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    now: Duration,
    entries: Vec<Entry>,
    messages: HashMap<MessageId, usize>,
}

#[derive(Deserialize)]
struct Identity {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl History {
    /// All entries so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    pub(crate) fn tick(&self, now: Duration) {
        self.lock().now = now;
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// The entries from the so-manieth on.
    pub(crate) fn since(&self, first: usize) -> Vec<Entry> {
        self.lock().entries.get(first..).unwrap_or_default().to_vec()
    }

    /// Whether the last that `edge` did with the record of `key` was to delete it.
    pub(crate) fn deleted(&self, edge: &NodeName, key: &MetaKey) -> bool {
        let inner = self.lock();
        let last = inner.entries.iter().rev().find_map(|entry| match &entry.event {
            Event::Stored { edge: of, key: about, object } if of == edge && about == key => Some(object.is_none()),
            _ => None,
        });
        last.unwrap_or(false)
    }

    pub(crate) fn add(&self, event: Event) {
        let mut inner = self.lock();
        let at = inner.now;
        inner.entries.push(Entry { at, event });
    }

    /// An edge has read `message`; only objects count.
    pub(crate) fn received(&self, edge: &NodeName, message: &Message) {
        let stores = match message.operation {
            Operation::Insert | Operation::Update | Operation::Patch => true,
            Operation::Delete => false,
            _ => return,
        };
        let Some(path) = message.resource.object() else { return };
        let Some(name) = &path.name else { return };
        let namespace = path.namespace.as_ref().map_or("", |namespace| namespace.as_str());
        let key = MetaKey::new((&path.kind).into(), namespace, name.as_str());
        let metadata = message.content.parse::<Identity>().ok().map(|identity| identity.metadata);
        let (uid, version) = metadata.map_or((None, None), |metadata| (metadata.uid, metadata.resource_version));
        let version = version.and_then(|version| version.parse().ok()).unwrap_or(0);
        let number = self.number(&message.id);
        self.add(Event::Received { edge: edge.clone(), message: number, stores, key, uid, version });
    }

    /// An edge hands `message` to its link; only answers to objects count.
    pub(crate) fn sent(&self, edge: &NodeName, message: &Message) {
        let acknowledged = match message.operation {
            Operation::Response => true,
            Operation::Error => false,
            _ => return,
        };
        let number = message.parent.as_ref().and_then(|parent| self.lock().messages.get(parent).copied());
        if let Some(message) = number {
            self.add(Event::Answered { edge: edge.clone(), message, acknowledged });
        }
    }

    /// Ids are random, so that histories have their numbers.
    fn number(&self, id: &MessageId) -> usize {
        let mut inner = self.lock();
        let next = inner.messages.len();
        *inner.messages.entry(id.clone()).or_insert(next)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
