//! Requests of one node in progress: those about one object one after another, others side by side.

use std::collections::{HashMap, VecDeque};

use kubeedge_core::{
    message::Message,
    resource::{ObjectPath, Resource, ResourceType},
};

/// What a request is about, with all ways of speaking of one object taken together.
pub(super) type Lane = Resource;

/// How much of one node may be in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneLimits {
    /// Requests that are carried out at a time.
    pub(super) running: usize,
    /// Requests that are there at all, the running ones included.
    pub(super) held: usize,
    /// Bytes of their contents, but for the last one that came.
    pub(super) bytes: usize,
}

/// Bounded: whoever asks [`has_room`](Self::has_room) before each message stops reading the socket when it is full.
///
/// More are held than run, so that a Kubernetes API that hangs does not keep keepalives and acknowledgements, which lie
/// between the requests, from being read.
#[derive(Debug)]
pub(super) struct Lanes {
    limits: LaneLimits,
    running: usize,
    held: usize,
    bytes: usize,
    /// A lane that is there has a request that runs or is ready.
    busy: HashMap<Lane, VecDeque<Message>>,
    ready: VecDeque<Work>,
}

/// A request to carry out: give the rest back to [`Lanes::done`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) lane: Lane,
    pub(super) message: Message,
}

/// The lane and the size of a request that is carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot {
    lane: Lane,
    bytes: usize,
}

impl Work {
    /// What is to be given back.
    pub(super) fn slot(&self) -> Slot {
        Slot { lane: self.lane.clone(), bytes: size(&self.message) }
    }
}

impl Lanes {
    pub(super) fn new(limits: LaneLimits) -> Self {
        Self { limits, running: 0, held: 0, bytes: 0, busy: HashMap::new(), ready: VecDeque::new() }
    }

    pub(super) fn has_room(&self) -> bool {
        self.held < self.limits.held && self.bytes < self.limits.bytes
    }

    /// Takes a request; gives one that can be carried out now.
    pub(super) fn arrive(&mut self, message: Message) -> Option<Work> {
        self.held += 1;
        self.bytes += size(&message);
        let lane = lane(&message.resource);
        if let Some(waiting) = self.busy.get_mut(&lane) {
            waiting.push_back(message);
        } else {
            self.busy.insert(lane.clone(), VecDeque::new());
            self.ready.push_back(Work { lane, message });
        }
        self.next()
    }

    /// A request is answered; gives the next one.
    pub(super) fn done(&mut self, slot: Slot) -> Option<Work> {
        let Slot { lane, bytes } = slot;
        self.running -= 1;
        self.held -= 1;
        self.bytes -= bytes;
        match self.busy.get_mut(&lane).and_then(VecDeque::pop_front) {
            // Behind all others, so that no lane starves another.
            Some(message) => self.ready.push_back(Work { lane, message }),
            None => {
                self.busy.remove(&lane);
            }
        }
        self.next()
    }

    fn next(&mut self) -> Option<Work> {
        if self.running >= self.limits.running {
            return None;
        }
        let work = self.ready.pop_front()?;
        self.running += 1;
        Some(work)
    }
}

fn size(message: &Message) -> usize {
    message.content.as_json().len()
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
        message::Content,
        names::UnixMillis,
        words::{Group, Operation, Source},
    };

    use super::*;

    fn about(resource: &str) -> Message {
        let resource = Resource::parse(resource, &Group::Meta);
        Message::new(UnixMillis(0), Source::Edged, Group::Meta, Operation::Patch, resource)
    }

    const LIMITS: LaneLimits = LaneLimits { running: 2, held: 4, bytes: 100 };

    #[test]
    fn one_object_is_one_lane_however_it_is_called() {
        let mut lanes = Lanes::new(LIMITS);
        let pod = lanes.arrive(about("default/podpatch/web")).unwrap();
        let deletion = about("default/pod/web");
        assert!(lanes.arrive(deletion.clone()).is_none());
        let other = lanes.arrive(about("default/podpatch/db")).unwrap();
        let next = lanes.done(pod.slot()).unwrap();
        assert_eq!(next.message, deletion);
        assert!(lanes.done(other.slot()).is_none());
        assert!(lanes.done(next.slot()).is_none());
        assert!(
            lanes.busy.is_empty() && (lanes.held, lanes.running, lanes.bytes) == (0, 0, 0),
            "nothing is left behind"
        );
    }

    #[test]
    fn what_runs_and_what_is_held_have_limits_of_their_own() {
        let mut lanes = Lanes::new(LIMITS);
        let running: Vec<_> = ["a", "b"].map(|name| lanes.arrive(about(&format!("x/pod/{name}"))).unwrap()).into();
        for name in ["c", "d"] {
            assert!(lanes.has_room());
            assert!(lanes.arrive(about(&format!("x/pod/{name}"))).is_none());
        }
        assert!(!lanes.has_room());
        let third = lanes.done(running[1].slot()).unwrap();
        assert_eq!(third.message.resource.to_string(), "x/pod/c");
        assert!(lanes.has_room());
    }

    #[test]
    fn large_requests_fill_it_sooner() {
        let mut lanes = Lanes::new(LIMITS);
        let large = about("x/pod/a").content(Content::text(&"x".repeat(100)));
        let work = lanes.arrive(large).unwrap();
        assert!(!lanes.has_room());
        lanes.done(work.slot());
        assert!(lanes.has_room());
    }
}
