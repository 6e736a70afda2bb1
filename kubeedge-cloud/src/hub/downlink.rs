//! What waits to be sent to a node: per object its newest version, and messages that are sent once.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use kubeedge_core::{
    message::Message,
    names::{Uid, UnixMillis},
    resource::ObjectPath,
    words::{Group, Operation, Source},
};

use crate::object::NodeObject;

/// What has become of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectEvent {
    /// The node gets it for the first time, as far as we know.
    Insert,
    /// It has changed, or the node may have it already.
    Update,
    /// The node is no longer to have it.
    Delete,
}

/// An object that a node is to have, or to have no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectChange {
    /// What has become of it.
    pub event: ObjectEvent,
    /// The module that a Go edge takes it from: `devicecontroller` for devices and models, else `edgecontroller`.
    pub source: Source,
    /// The object; for a deletion its last state, or its skeleton.
    pub object: Arc<NodeObject>,
}

impl ObjectChange {
    /// A change of `object`, from the controller that owns its kind.
    pub fn new(event: ObjectEvent, object: Arc<NodeObject>) -> Self {
        use kubeedge_core::resource::ResourceType;
        let source = match object.path.kind {
            ResourceType::Device | ResourceType::DeviceModel => Source::DeviceController,
            _ => Source::EdgeController,
        };
        Self { event, source, object }
    }

    /// The message that tells of it.
    pub fn message(&self, now: UnixMillis) -> Message {
        let operation = match self.event {
            ObjectEvent::Insert => Operation::Insert,
            ObjectEvent::Update => Operation::Update,
            ObjectEvent::Delete => Operation::Delete,
        };
        Message::new(now, self.source.clone(), Group::Resource, operation, self.object.path.clone())
            .version(self.object.version)
            .content(self.object.content.clone())
    }

    fn is_delete(&self) -> bool {
        self.event == ObjectEvent::Delete
    }

    /// Whether nothing is to be sent after this change that this one has not told already. A node that was not to have an
    /// object any more may be to have it again.
    fn covers(&self, later: &Self) -> bool {
        if self.is_delete() {
            later.is_delete()
        } else {
            !later.is_delete() && self.object.version >= later.object.version
        }
    }
}

/// Something for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Downlink {
    /// An object: sent until the node acknowledges it, and replaced by a newer version as long as it waits.
    Object(ObjectChange),
    /// A message that is sent once. Of too many that wait, the oldest are dropped.
    Notice(Message),
    /// The answer to what the node has sent, later than at once. Of too many that wait, the oldest are dropped: the node
    /// sends again what is not answered.
    Answer(Message),
}

/// More objects have changed than may wait for one node; see [`DownlinkQueue::put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many objects wait for the node")]
pub struct QueueFull;

/// What waits for one node. Pure: no clock, no task.
///
/// Objects are known by their UID, so that the deletion of one and the creation of the next under the same name are two
/// entries. An entry keeps its place when a newer version replaces it. A deletion replaces whatever waits, and so does
/// what comes after it: changes are put in their order, so the last one is the truth. While something of one name is in
/// flight, whatever is next of that name waits behind it, as a repetition of an older object must not reach the node after
/// a younger one.
///
/// Upstream: `cloud/pkg/cloudhub/common/message_pool.go`, which keeps a store for each node that ever was.
#[derive(Debug)]
pub struct DownlinkQueue {
    objects: usize,
    notices: usize,
    order: VecDeque<Uid>,
    waiting: HashMap<Uid, ObjectChange>,
    in_flight: HashMap<Uid, ObjectChange>,
    /// The names of what is in flight.
    busy: HashSet<ObjectPath>,
    resting: HashMap<Uid, ObjectChange>,
    once: VecDeque<Message>,
    answers: VecDeque<Message>,
    dropped: u64,
}

/// Answers that may wait for one node.
const ANSWERS: usize = 4096;

impl Default for DownlinkQueue {
    /// Up to 65 536 objects and 256 messages that are sent once.
    fn default() -> Self {
        Self::new(65_536, 256)
    }
}

impl DownlinkQueue {
    /// A queue for so many objects, and so many messages that are sent once.
    pub fn new(objects: usize, notices: usize) -> Self {
        Self {
            objects,
            notices,
            order: VecDeque::new(),
            waiting: HashMap::new(),
            in_flight: HashMap::new(),
            busy: HashSet::new(),
            resting: HashMap::new(),
            once: VecDeque::new(),
            answers: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Takes a change. One that is older than what waits or is in flight changes nothing.
    ///
    /// # Errors
    /// [`QueueFull`]: then the session has to end, as the node would miss this change. It is brought to the truth when
    /// it connects again.
    pub fn put(&mut self, change: ObjectChange) -> Result<(), QueueFull> {
        let uid = &change.object.uid;
        if let Some(waiting) = self.waiting.get_mut(uid) {
            if !waiting.covers(&change) {
                // What the node never had is still an insertion.
                let event = match (waiting.event, change.event) {
                    (ObjectEvent::Insert, ObjectEvent::Update) => ObjectEvent::Insert,
                    (_, event) => event,
                };
                *waiting = ObjectChange { event, ..change };
            }
            return Ok(());
        }
        let told = self.in_flight.get(uid).or_else(|| self.resting.get(uid));
        if told.is_some_and(|told| told.covers(&change)) {
            return Ok(());
        }
        if self.len() >= self.objects {
            return Err(QueueFull);
        }
        // What was refused may be taken in its newer version.
        self.resting.remove(uid);
        self.order.push_back(uid.clone());
        self.waiting.insert(uid.clone(), change);
        Ok(())
    }

    /// Takes a message that is sent once; if there are too many, the oldest is dropped.
    pub fn put_notice(&mut self, message: Message) {
        if self.once.len() >= self.notices && self.once.pop_front().is_some() {
            self.dropped += 1;
        }
        self.once.push_back(message);
    }

    /// Takes an answer; if there are too many, the oldest is dropped.
    pub fn put_answer(&mut self, message: Message) {
        if self.answers.len() >= ANSWERS && self.answers.pop_front().is_some() {
            self.dropped += 1;
        }
        self.answers.push_back(message);
    }

    /// The next change to send, which is in flight from now on: [`settle`](Self::settle) it. Of a name under which a
    /// change is still in flight, none is given.
    pub fn next_object(&mut self) -> Option<ObjectChange> {
        let is_free = |uid| self.waiting.get(uid).is_some_and(|change| !self.busy.contains(&change.object.path));
        let at = self.order.iter().position(is_free)?;
        let uid = self.order.remove(at)?;
        let change = self.waiting.remove(&uid)?;
        self.busy.insert(change.object.path.clone());
        self.in_flight.insert(uid, change.clone());
        Some(change)
    }

    /// The next message that is sent once, answers first.
    pub fn next_notice(&mut self) -> Option<Message> {
        self.answers.pop_front().or_else(|| self.once.pop_front())
    }

    /// The change that was in flight has been acknowledged, or has not: then it waits again, behind all others, unless
    /// a newer one does already. Returns what was acknowledged.
    pub fn settle(&mut self, uid: &Uid, acknowledged: bool) -> Option<ObjectChange> {
        let change = self.in_flight.remove(uid)?;
        self.busy.remove(&change.object.path);
        if acknowledged {
            return Some(change);
        }
        if !self.waiting.contains_key(uid) {
            self.order.push_back(uid.clone());
            self.waiting.insert(uid.clone(), change);
        }
        None
    }

    /// The node could not take the change that was in flight. Unless a newer one waits already, it rests until
    /// [`rested`](Self::rested); tells whether it does.
    pub fn rest(&mut self, uid: &Uid) -> bool {
        let Some(change) = self.in_flight.remove(uid) else { return false };
        self.busy.remove(&change.object.path);
        let rests = !self.waiting.contains_key(uid);
        if rests {
            self.resting.insert(uid.clone(), change);
        }
        rests
    }

    /// What is in flight, in no order.
    pub fn unsettled(&self) -> impl Iterator<Item = &ObjectChange> {
        self.in_flight.values()
    }

    /// A change that was resting waits again.
    pub fn rested(&mut self, uid: &Uid) {
        if let Some(change) = self.resting.remove(uid) {
            self.order.push_back(uid.clone());
            self.waiting.insert(uid.clone(), change);
        }
    }

    /// How many objects wait or rest, those in flight not counted.
    pub fn len(&self) -> usize {
        self.order.len() + self.resting.len()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.in_flight.is_empty() && self.once.is_empty() && self.answers.is_empty()
    }

    /// How many messages that are sent once were dropped, answers included.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
#[path = "downlink/tests.rs"]
mod tests;
