//! Requests of one node in progress: those about one object one after another, others side by side.

use std::collections::{HashMap, VecDeque};

use kubeedge_core::{
    message::Message,
    resource::{ObjectPath, Resource, ResourceType},
};

/// What a request is about, with all ways of speaking of one object taken together.
pub(super) type Lane = Resource;

/// Bounded: whoever asks [`has_room`](Self::has_room) before each message stops reading the socket when it is full.
#[derive(Debug)]
pub(super) struct Lanes {
    limit: usize,
    held: usize,
    /// A lane that is there is busy; what waits in it comes next.
    busy: HashMap<Lane, VecDeque<Message>>,
}

impl Lanes {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, held: 0, busy: HashMap::new() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.held < self.limit
    }

    /// Takes a request; gives it back if it can be carried out now.
    pub(super) fn arrive(&mut self, message: Message) -> Option<(Lane, Message)> {
        self.held += 1;
        let lane = lane(&message.resource);
        if let Some(waiting) = self.busy.get_mut(&lane) {
            waiting.push_back(message);
            return None;
        }
        self.busy.insert(lane.clone(), VecDeque::new());
        Some((lane, message))
    }

    /// The request of `lane` is answered; gives the next one.
    pub(super) fn done(&mut self, lane: Lane) -> Option<(Lane, Message)> {
        self.held = self.held.saturating_sub(1);
        let next = self.busy.get_mut(&lane)?.pop_front();
        match next {
            Some(message) => Some((lane, message)),
            None => {
                self.busy.remove(&lane);
                None
            }
        }
    }
}

fn lane(resource: &Resource) -> Lane {
    match resource {
        Resource::Object(path) => {
            let kind = match path.kind {
                ResourceType::PodPatch | ResourceType::PodStatus => ResourceType::Pod,
                ResourceType::NodePatch | ResourceType::NodeStatus => ResourceType::Node,
                ref kind => kind.clone(),
            };
            Resource::Object(ObjectPath { kind, ..path.clone() })
        }
        Resource::DeviceState(device) => Resource::DeviceTwin(device.clone()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::{
        names::UnixMillis,
        words::{Group, Operation, Source},
    };

    use super::*;

    fn about(resource: &str) -> Message {
        let resource = Resource::parse(resource, &Group::Meta);
        Message::new(UnixMillis(0), Source::Edged, Group::Meta, Operation::Patch, resource)
    }

    #[test]
    fn one_object_is_one_lane_however_it_is_called() {
        let mut lanes = Lanes::new(3);
        let (pod, _) = lanes.arrive(about("default/podpatch/web")).unwrap();
        let deletion = about("default/pod/web");
        assert!(lanes.arrive(deletion.clone()).is_none());
        let (other, _) = lanes.arrive(about("default/podpatch/db")).unwrap();
        assert!(!lanes.has_room());
        let (pod, next) = lanes.done(pod).unwrap();
        assert_eq!(next, deletion);
        assert!(lanes.has_room());
        assert!(lanes.done(other).is_none());
        assert!(lanes.done(pod).is_none());
        assert!(lanes.busy.is_empty() && lanes.held == 0, "nothing is left behind");
    }
}
