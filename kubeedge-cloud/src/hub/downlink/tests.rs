#![allow(clippy::unwrap_used)]
use std::collections::{BTreeMap, HashSet};

use kubeedge_core::{
    message::Content,
    names::ResourceVersion,
    resource::{ObjectPath, ResourceType},
};
use proptest::prelude::*;

use super::*;
use crate::object::Digest;

fn change(event: ObjectEvent, name: &str, uid: &str, version: u64) -> ObjectChange {
    let object = NodeObject {
        path: ObjectPath::namespaced("default", ResourceType::Pod, name).unwrap(),
        uid: Uid::new(uid).unwrap(),
        version: ResourceVersion::new(version),
        api_version: "v1".into(),
        kind: "Pod".into(),
        content: Content::json(&version).unwrap(),
        digest: Digest::default(),
    };
    ObjectChange::new(event, Arc::new(object))
}

fn update(name: &str, version: u64) -> ObjectChange {
    change(ObjectEvent::Update, name, name, version)
}

fn delete(name: &str, version: u64) -> ObjectChange {
    change(ObjectEvent::Delete, name, name, version)
}

fn drain(queue: &mut DownlinkQueue) -> Vec<(ObjectEvent, String, u64)> {
    let mut sent = vec![];
    while let Some(change) = queue.next_object() {
        let version = change.object.version.map_or(0, ResourceVersion::number);
        sent.push((change.event, change.object.uid.to_string(), version));
        queue.settle(&change.object.uid, true);
    }
    sent
}

#[test]
fn the_newest_version_keeps_the_place_of_the_first() {
    let mut queue = DownlinkQueue::default();
    queue.put(change(ObjectEvent::Insert, "a", "a", 1)).unwrap();
    queue.put(update("b", 2)).unwrap();
    queue.put(update("a", 5)).unwrap();
    queue.put(update("a", 4)).unwrap();
    assert_eq!(drain(&mut queue), [(ObjectEvent::Insert, "a".into(), 5), (ObjectEvent::Update, "b".into(), 2)]);
}

#[test]
fn a_deletion_replaces_what_waits_and_is_told_once() {
    let mut queue = DownlinkQueue::default();
    queue.put(update("a", 1)).unwrap();
    queue.put(delete("a", 2)).unwrap();
    let sent = queue.next_object().unwrap();
    assert_eq!(sent.event, ObjectEvent::Delete);
    queue.put(delete("a", 2)).unwrap();
    assert!(queue.settle(&sent.object.uid, true).is_some());
    assert!(queue.is_empty());
}

#[test]
fn one_name_with_two_lives_is_two_entries_in_order() {
    let mut queue = DownlinkQueue::default();
    queue.put(change(ObjectEvent::Update, "web", "u1", 1)).unwrap();
    queue.put(change(ObjectEvent::Delete, "web", "u1", 2)).unwrap();
    queue.put(change(ObjectEvent::Insert, "web", "u2", 3)).unwrap();
    assert_eq!(drain(&mut queue), [(ObjectEvent::Delete, "u1".into(), 2), (ObjectEvent::Insert, "u2".into(), 3)]);
}

#[test]
fn a_newer_version_waits_behind_the_one_in_flight() {
    let mut queue = DownlinkQueue::default();
    queue.put(update("a", 1)).unwrap();
    let first = queue.next_object().unwrap();
    queue.put(update("a", 1)).unwrap();
    assert_eq!(queue.len(), 0, "that one is on its way already");
    queue.put(update("a", 2)).unwrap();
    assert!(queue.next_object().is_none(), "one at a time of each object");
    assert!(queue.settle(&first.object.uid, false).is_none());
    assert_eq!(drain(&mut queue), [(ObjectEvent::Update, "a".into(), 2)], "the old one is not sent again");
}

#[test]
fn what_is_not_acknowledged_goes_to_the_back() {
    let mut queue = DownlinkQueue::default();
    queue.put(update("a", 1)).unwrap();
    queue.put(update("b", 1)).unwrap();
    let first = queue.next_object().unwrap();
    queue.settle(&first.object.uid, false);
    assert_eq!(drain(&mut queue), [(ObjectEvent::Update, "b".into(), 1), (ObjectEvent::Update, "a".into(), 1)]);
}

#[test]
fn both_parts_are_bounded() {
    let mut queue = DownlinkQueue::new(2, 2);
    queue.put(update("a", 1)).unwrap();
    queue.put(update("b", 1)).unwrap();
    assert_eq!(queue.put(update("c", 1)), Err(QueueFull));
    queue.put(update("a", 2)).unwrap();
    let notice = |id: &str| {
        let mut message = update(id, 1).message(UnixMillis(0));
        message.id = kubeedge_core::names::MessageId::new(id).unwrap();
        message
    };
    for id in ["1", "2", "3"] {
        queue.put_notice(notice(id));
    }
    assert_eq!(queue.dropped(), 1);
    for number in 0..=ANSWERS {
        queue.put_answer(notice(&format!("answer-{number}")));
    }
    assert_eq!(queue.dropped(), 2);
    assert_eq!(queue.next_notice().unwrap().id.as_str(), "answer-1", "answers come first");
    let rest: Vec<_> = std::iter::from_fn(|| queue.next_notice()).collect();
    let last: Vec<_> = rest[rest.len() - 2..].iter().map(|message| message.id.as_str()).collect();
    assert_eq!((rest.len(), last), (ANSWERS - 1 + 2, vec!["2", "3"]));
}

#[test]
fn messages_read_as_those_of_upstream() {
    let message = change(ObjectEvent::Insert, "web", "u1", 77).message(UnixMillis(5));
    assert_eq!(message.resource.to_string(), "default/pod/web");
    assert_eq!(
        (message.source, message.group, message.operation),
        (Source::EdgeController, Group::Resource, Operation::Insert)
    );
    assert_eq!(message.resource_version.unwrap().number(), 77);
}

#[derive(Clone, Debug)]
enum Step {
    Update(usize),
    Delete(usize),
    Send,
    Settle(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_usize).prop_map(Step::Update),
        1 => (0..4_usize).prop_map(Step::Delete),
        3 => Just(Step::Send),
        3 => prop::bool::weighted(0.7).prop_map(Step::Settle),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Whatever is lost on the way: versions never go backwards at the node, it ends with the truth, and the queue never
    /// holds more entries than there were objects.
    #[test]
    fn a_node_ends_with_the_truth(steps in steps()) {
        let mut queue = DownlinkQueue::default();
        let mut version = 0;
        let mut lives = [0_u32; 4];
        // By name: the UID and version that it is to have. By UID: what the node has.
        let mut truth = BTreeMap::<usize, (String, u64)>::new();
        let mut node = BTreeMap::<String, u64>::new();
        let mut seen = HashSet::new();
        let mut in_flight = vec![];
        let deliver = |change: &ObjectChange, node: &mut BTreeMap<String, u64>| {
            let uid = change.object.uid.to_string();
            if change.event == ObjectEvent::Delete {
                node.remove(&uid);
                return true;
            }
            let sent = change.object.version.unwrap().number();
            let had = node.insert(uid, sent).unwrap_or(0);
            sent >= had
        };
        for step in steps {
            version += 1;
            match step {
                Step::Update(name) => {
                    let uid = truth.entry(name).or_insert_with(|| (format!("{name}-{}", lives[name]), 0));
                    uid.1 = version;
                    seen.insert(uid.0.clone());
                    queue.put(change(ObjectEvent::Update, &format!("n{name}"), &uid.0, version)).unwrap();
                }
                Step::Delete(name) => {
                    if let Some((uid, _)) = truth.remove(&name) {
                        lives[name] += 1;
                        queue.put(change(ObjectEvent::Delete, &format!("n{name}"), &uid, version)).unwrap();
                    }
                }
                Step::Send => {
                    if let Some(change) = queue.next_object() {
                        // It may arrive even if the acknowledgement is lost.
                        prop_assert!(deliver(&change, &mut node), "went backwards");
                        in_flight.push(change.object.uid.clone());
                    }
                }
                Step::Settle(acknowledged) => {
                    if let Some(uid) = in_flight.pop() {
                        queue.settle(&uid, acknowledged);
                    }
                }
            }
            prop_assert!(queue.len() <= seen.len());
        }
        for uid in in_flight {
            queue.settle(&uid, false);
        }
        while let Some(change) = queue.next_object() {
            prop_assert!(deliver(&change, &mut node), "went backwards");
            queue.settle(&change.object.uid, true);
        }
        let expected: BTreeMap<_, _> = truth.into_values().collect();
        prop_assert_eq!(node, expected);
    }
}

#[test]
fn what_was_refused_rests_until_its_time_or_until_there_is_a_newer_version() {
    let version = |change: Option<ObjectChange>| change.unwrap().object.version.unwrap().number();
    let mut queue = DownlinkQueue::default();
    queue.put(update("a", 1)).unwrap();
    let uid = queue.next_object().unwrap().object.uid.clone();
    assert!(queue.rest(&uid));
    assert!(queue.next_object().is_none() && !queue.is_empty());
    queue.put(update("a", 1)).unwrap();
    assert!(queue.next_object().is_none(), "the same again changes nothing");
    queue.rested(&uid);
    assert_eq!(version(queue.next_object()), 1);
    assert!(queue.rest(&uid));
    queue.put(update("a", 2)).unwrap();
    assert_eq!(version(queue.next_object()), 2, "a newer one need not wait");
    queue.rested(&uid);
    assert!(queue.settle(&uid, true).is_some());
    assert!(queue.is_empty());
}

#[test]
fn what_is_always_an_update_comes_after_its_deletion_too() {
    let mut queue = DownlinkQueue::default();
    queue.put(delete("secret", 1)).unwrap();
    let uid = queue.next_object().unwrap().object.uid.clone();
    queue.put(update("secret", 1)).unwrap();
    queue.settle(&uid, true);
    assert_eq!(drain(&mut queue), [(ObjectEvent::Update, "secret".into(), 1)]);
}

#[test]
fn a_younger_object_waits_until_the_older_of_its_name_is_settled() {
    let mut queue = DownlinkQueue::default();
    queue.put(change(ObjectEvent::Insert, "web", "u1", 1)).unwrap();
    let first = queue.next_object().unwrap();
    queue.put(change(ObjectEvent::Delete, "web", "u1", 2)).unwrap();
    queue.put(change(ObjectEvent::Insert, "web", "u2", 3)).unwrap();
    queue.put(update("other", 4)).unwrap();
    let other = queue.next_object().unwrap();
    assert_eq!(other.object.uid.as_str(), "other", "others do not wait");
    assert!(queue.next_object().is_none(), "the first may be sent again until it is settled");
    queue.settle(&first.object.uid, false);
    assert_eq!(drain(&mut queue), [(ObjectEvent::Delete, "u1".into(), 2), (ObjectEvent::Insert, "u2".into(), 3)]);
}

#[test]
fn what_a_node_is_to_have_again_comes_after_its_deletion() {
    let insert = || change(ObjectEvent::Insert, "a", "a", 1);
    let mut queue = DownlinkQueue::default();
    queue.put(delete("a", 1)).unwrap();
    queue.put(insert()).unwrap();
    assert_eq!(drain(&mut queue), [(ObjectEvent::Insert, "a".into(), 1)], "one that waits is not sent at all");
    queue.put(delete("a", 1)).unwrap();
    let uid = queue.next_object().unwrap().object.uid.clone();
    queue.put(insert()).unwrap();
    assert!(queue.next_object().is_none());
    queue.settle(&uid, true);
    assert_eq!(drain(&mut queue), [(ObjectEvent::Insert, "a".into(), 1)]);
}
