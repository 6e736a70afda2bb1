//! The collector: what follows from deletions, done piece by piece between requests.
//!
//! Dependents of owners that are gone, the contents of namespaces and definitions that are being deleted, and events
//! that have expired.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    cache::Cache,
    object::{Change, ChangeKind, Key, Object, Owner},
    transaction::Transaction,
};
use crate::apiserver::{
    lifecycle::{DEFINITION_FINALIZER, DeleteOptions, FOREGROUND_FINALIZER, delete, drop_finalizer, is_done},
    registry::{Resource, Strategy},
};

/// Objects that one piece of work touches at most.
const PIECE: usize = 100;
/// Events older than this are dropped, as in Kubernetes.
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// How often old events are looked for.
const EVENT_SWEEP: SignedDuration = SignedDuration::from_mins(1);

/// A piece of work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// The owner with this uid is gone or waits for its dependents.
    Dependents(Box<str>),
    /// An object names owners that may not exist.
    Owners(Arc<str>, Key),
    /// An owner in foreground deletion may have lost its last dependent.
    Foreground { group: Box<str>, kind: Box<str>, key: Key },
    /// A namespace is being deleted.
    Namespace(Box<str>),
    /// A definition is being deleted.
    Definition(Box<str>),
    /// Events have expired.
    Events,
}

/// The work that is left.
pub(super) struct Collector {
    queue: VecDeque<Work>,
    queued: HashSet<Work>,
    swept: Timestamp,
    postponed: bool,
}

impl Collector {
    /// Finds the work that an earlier run left behind.
    pub(super) fn new(cache: &Cache) -> Self {
        let mut collector =
            Self { queue: VecDeque::new(), queued: HashSet::new(), swept: Timestamp::UNIX_EPOCH, postponed: false };
        for (resource, key) in cache.owned() {
            collector.push(Work::Owners(resource, key));
        }
        for resource in cache.registry().sorted() {
            if matches!(resource.strategy, Strategy::Namespace | Strategy::Definition) {
                for object in cache.list(&resource.id, None).iter().filter(|object| object.deleting) {
                    collector.push(content(resource, object));
                }
            }
        }
        collector
    }

    /// Whether requests may be waited for.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() || self.postponed
    }

    pub(super) fn next(&mut self) -> Option<Work> {
        let work = self.queue.pop_front()?;
        self.queued.remove(&work);
        Some(work)
    }

    pub(super) fn extend(&mut self, work: Vec<Work>) {
        for work in work {
            self.push(work);
        }
    }

    /// Puts work back whose effect could not be stored; it waits for the next request.
    pub(super) fn postpone(&mut self, work: Option<Work>) {
        self.postponed = true;
        self.extend(work.into_iter().collect());
    }

    fn push(&mut self, work: Work) {
        if self.queued.insert(work.clone()) {
            self.queue.push_back(work);
        }
    }

    /// Notes what follows from committed changes.
    pub(super) fn observe(&mut self, changes: &[Arc<Change>], now: Timestamp) {
        self.postponed = false;
        for change in changes {
            let object = &change.object;
            if change.resource.strategy == Strategy::Event {
                if now.duration_since(self.swept) >= EVENT_SWEEP {
                    self.swept = now;
                    self.push(Work::Events);
                }
                if change.kind != ChangeKind::Deleted {
                    continue;
                }
            }
            if change.kind == ChangeKind::Deleted {
                self.push(Work::Dependents(object.uid.clone()));
                for owner in &object.owners {
                    let key = Key { namespace: object.key.namespace.clone(), name: owner.name.clone() };
                    self.push(Work::Foreground { group: owner.group.clone(), kind: owner.kind.clone(), key });
                }
                if !object.key.namespace.is_empty() {
                    self.push(Work::Namespace(object.key.namespace.clone()));
                }
                if change.resource.is_custom() {
                    self.push(Work::Definition((*change.resource.id).into()));
                }
                continue;
            }
            if !object.owners.is_empty() && change.before.as_ref().is_none_or(|b| b.owners != object.owners) {
                self.push(Work::Owners(change.resource.id.clone(), object.key.clone()));
            }
            if object.deleting {
                if matches!(change.resource.strategy, Strategy::Namespace | Strategy::Definition) {
                    self.push(content(&change.resource, object));
                } else {
                    self.push(Work::Dependents(object.uid.clone()));
                }
            }
        }
    }
}

fn content(resource: &Resource, object: &Object) -> Work {
    if resource.strategy == Strategy::Namespace {
        Work::Namespace(object.key.name.clone())
    } else {
        Work::Definition(object.key.name.clone())
    }
}

impl Work {
    /// Does a piece and returns what is left of it.
    pub(super) fn run(&self, transaction: &mut Transaction<'_>) -> Vec<Work> {
        let again = match self {
            Work::Dependents(uid) => dependents(transaction, uid),
            Work::Owners(resource, key) => {
                owners(transaction, resource, key);
                false
            }
            Work::Foreground { group, kind, key } => {
                foreground(transaction, group, kind, key);
                false
            }
            Work::Namespace(name) => namespace(transaction, name),
            Work::Definition(name) => definition(transaction, name),
            Work::Events => events(transaction),
        };
        if again { vec![self.clone()] } else { Vec::new() }
    }
}

fn dependents(transaction: &mut Transaction<'_>, uid: &str) -> bool {
    let dependents = transaction.cache().dependents(uid);
    let mut touched = 0;
    for (resource, key) in &dependents {
        if touched == PIECE {
            return true;
        }
        touched += usize::from(owners(transaction, resource, key));
    }
    false
}

/// Deletes an object whose owners are all gone, and drops references to some that are. Tells whether it did.
fn owners(transaction: &mut Transaction<'_>, resource: &str, key: &Key) -> bool {
    let registry = transaction.registry().clone();
    let Some(resource) = registry.sorted().into_iter().find(|r| &*r.id == resource).cloned() else { return false };
    let Some(object) = transaction.get(&resource, key) else { return false };
    if object.owners.is_empty() {
        return false;
    }
    let states: Vec<_> = object.owners.iter().map(|owner| state(transaction, owner, &object.key.namespace)).collect();
    if states.contains(&OwnerState::Present) {
        let gone: Vec<_> = object.owners.iter().zip(&states).filter(|(_, s)| **s == OwnerState::Gone).collect();
        if gone.is_empty() || object.deleting {
            return false;
        }
        let mut value = object.value();
        if let Some(list) = value.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) {
            list.retain(|reference| !gone.iter().any(|(owner, _)| reference["uid"] == *owner.uid));
        }
        transaction.put(&resource, value);
        return true;
    }
    if object.deleting {
        return false;
    }
    delete(transaction, &resource, &object, &DeleteOptions::default()).is_ok()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnerState {
    /// It is there, or it is of a kind that is not served here.
    Present,
    Gone,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

fn state(transaction: &Transaction<'_>, owner: &Owner, namespace: &str) -> OwnerState {
    let Some(resource) = transaction.registry().by_kind(&owner.group, &owner.kind) else { return OwnerState::Present };
    let key = Key::new(if resource.namespaced { namespace } else { "" }, &owner.name);
    match transaction.get(resource, &key) {
        Some(object) if object.uid == owner.uid => {
            let waiting = object.deleting && has_finalizer(&object.value(), FOREGROUND_FINALIZER);
            if waiting { OwnerState::Waiting } else { OwnerState::Present }
        }
        _ => OwnerState::Gone,
    }
}

fn has_finalizer(value: &Value, name: &str) -> bool {
    value.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| list.iter().any(|f| f == name))
}

/// Lets an owner go whose last dependent went.
fn foreground(transaction: &mut Transaction<'_>, group: &str, kind: &str, key: &Key) {
    let Some(resource) = transaction.registry().by_kind(group, kind).cloned() else { return };
    let key = Key::new(if resource.namespaced { &key.namespace } else { "" }, &key.name);
    let Some(object) = transaction.get(&resource, &key).filter(|object| object.deleting) else { return };
    let mut value = object.value();
    if !has_finalizer(&value, FOREGROUND_FINALIZER) {
        return;
    }
    let left = transaction.cache().dependents(&object.uid);
    let registry = transaction.registry().clone();
    let any_left = left.iter().any(|(id, key)| {
        registry.sorted().into_iter().find(|r| r.id == *id).is_some_and(|r| transaction.get(r, key).is_some())
    });
    if !any_left {
        drop_finalizer(&mut value, FOREGROUND_FINALIZER);
        settle(transaction, &resource, value);
    }
}

/// Stores an object that is being deleted, or removes it if nothing holds it any more.
fn settle(transaction: &mut Transaction<'_>, resource: &Arc<Resource>, value: Value) {
    if is_done(resource, &value) {
        transaction.remove(resource, value);
    } else {
        transaction.put(resource, value);
    }
}

fn namespace(transaction: &mut Transaction<'_>, name: &str) -> bool {
    let registry = transaction.registry().clone();
    let Some(resource) = registry.find("", "namespaces") else { return false };
    let Some(object) = transaction.get(resource, &Key::new("", name)).filter(|object| object.deleting) else {
        return false;
    };
    let mut left = PIECE;
    let mut empty = true;
    for content in registry.sorted().into_iter().filter(|r| r.namespaced && r.strategy != Strategy::Review) {
        if transaction.is_empty(content, Some(name)) {
            continue;
        }
        for object in transaction.list(content, Some(name)) {
            if object.deleting {
                continue;
            }
            if left == 0 {
                return true;
            }
            left -= 1;
            drop(delete(transaction, content, &object, &DeleteOptions::default()));
        }
        empty &= transaction.is_empty(content, Some(name));
    }
    let mut value = object.value();
    let held = value.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if empty && held {
        if let Some(list) = value.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) {
            list.retain(|finalizer| finalizer != "kubernetes");
        }
        settle(transaction, resource, value);
    }
    false
}

fn definition(transaction: &mut Transaction<'_>, name: &str) -> bool {
    let registry = transaction.registry().clone();
    let Some(resource) = registry.find("apiextensions.k8s.io", "customresourcedefinitions") else { return false };
    let Some(object) = transaction.get(resource, &Key::new("", name)).filter(|object| object.deleting) else {
        return false;
    };
    if let Some(content) = registry.sorted().into_iter().find(|r| &*r.id == name && r.is_custom()) {
        for (done, object) in transaction.list(content, None).into_iter().filter(|o| !o.deleting).enumerate() {
            if done == PIECE {
                return true;
            }
            drop(delete(transaction, content, &object, &DeleteOptions::default()));
        }
        if !transaction.is_empty(content, None) {
            return false;
        }
    }
    let mut value = object.value();
    if drop_finalizer(&mut value, DEFINITION_FINALIZER) {
        settle(transaction, resource, value);
    }
    false
}

fn events(transaction: &mut Transaction<'_>) -> bool {
    let registry = transaction.registry().clone();
    let Some(resource) = registry.find("", "events") else { return false };
    let now = transaction.now();
    let mut left = PIECE;
    for object in transaction.list(resource, None) {
        let value = object.value();
        let times = ["/lastTimestamp", "/series/lastObservedTime", "/eventTime", "/metadata/creationTimestamp"];
        let time = |pointer: &&str| value.pointer(pointer)?.as_str()?.parse::<Timestamp>().ok();
        let latest = times.iter().filter_map(time).max();
        if latest.is_some_and(|latest| now.duration_since(latest) > EVENT_LIFE) {
            if left == 0 {
                return true;
            }
            left -= 1;
            transaction.remove(resource, value);
        }
    }
    false
}
