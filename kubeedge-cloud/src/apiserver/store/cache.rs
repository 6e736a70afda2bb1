//! What is in memory: the objects, the history of their changes, and who owns whom.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::watch;

use super::object::{Change, ChangeKind, Key, Object};
use crate::apiserver::registry::{Registry, Strategy};

/// Changes that are kept per resource for watches and lists in pages to catch up with.
const HISTORY_LENGTH: usize = 4096;
/// In a storm more are kept: those that are not older.
///
/// Upstream: etcd is compacted every five minutes.
const HISTORY_AGE: Duration = Duration::from_secs(300);
/// Bytes of such changes per resource.
const HISTORY_BYTES: usize = 16 << 20;

/// Changes after a version.
pub(crate) enum Since {
    /// These changes; everything up to `version` has been seen with them.
    Changes { changes: Vec<Arc<Change>>, version: u64 },
    /// The history does not reach back so far; its oldest point is given.
    TooOld { oldest: u64 },
    /// The resource is no longer served.
    Closed,
}

/// The state as of the last commit.
#[derive(Debug)]
pub(super) struct Cache {
    version: u64,
    base: Registry,
    registry: Arc<Registry>,
    shelves: HashMap<Arc<str>, Shelf>,
    dependents: HashMap<Box<str>, BTreeSet<(Arc<str>, Key)>>,
}

/// The objects of one resource.
#[derive(Debug)]
struct Shelf {
    objects: BTreeMap<Key, Arc<Object>>,
    history: VecDeque<Past>,
    bytes: usize,
    /// The history holds every change after this version.
    floor: u64,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Past {
    change: Arc<Change>,
    since: Instant,
}

impl Shelf {
    fn new(floor: u64) -> Self {
        Self { objects: BTreeMap::new(), history: VecDeque::new(), bytes: 0, floor, changed: watch::Sender::new(()) }
    }
}

impl Cache {
    pub(super) fn new(version: u64) -> Self {
        let base = Registry::builtin();
        let mut cache = Self {
            version,
            registry: Arc::new(base.clone()),
            base,
            shelves: HashMap::new(),
            dependents: HashMap::new(),
        };
        cache.sync_shelves();
        cache
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(super) fn get(&self, resource: &str, key: &Key) -> Option<&Arc<Object>> {
        self.shelves.get(resource)?.objects.get(key)
    }

    pub(super) fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Some(shelf) = self.shelves.get(resource) else { return Vec::new() };
        in_namespace(&shelf.objects, namespace).cloned().collect()
    }

    /// Whether any object of the resource is in the namespace.
    pub(super) fn is_empty(&self, resource: &str, namespace: Option<&str>) -> bool {
        self.shelves.get(resource).is_none_or(|shelf| in_namespace(&shelf.objects, namespace).next().is_none())
    }

    /// The objects that name this uid as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<(Arc<str>, Key)> {
        self.dependents.get(uid).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    /// Every object that names an owner.
    pub(super) fn owned(&self) -> BTreeSet<(Arc<str>, Key)> {
        self.dependents.values().flatten().cloned().collect()
    }

    /// The objects as they were at `version`, from the one that follows `after` on.
    pub(super) fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&Key>,
        version: u64,
    ) -> Option<Vec<Arc<Object>>> {
        let shelf = self.shelves.get(resource)?;
        if version < shelf.floor || version > self.version {
            return None;
        }
        let follows = |key: &Key| after.is_none_or(|after| key > after);
        let mut objects: BTreeMap<&Key, &Arc<Object>> = in_namespace(&shelf.objects, namespace)
            .map(|object| (&object.key, object))
            .skip_while(|(key, _)| !follows(key))
            .collect();
        let changes = shelf.history.iter().rev().map(|past| &past.change);
        for change in changes.take_while(|change| change.version() > version) {
            let key = &change.object.key;
            if namespace.is_some_and(|ns| *ns != *key.namespace) || !follows(key) {
                continue;
            }
            match &change.before {
                Some(before) => objects.insert(&before.key, before),
                None => objects.remove(&change.object.key),
            };
        }
        Some(objects.into_values().cloned().collect())
    }

    pub(super) fn changes(&self, resource: &str, version: u64, most: usize) -> Since {
        let Some(shelf) = self.shelves.get(resource) else { return Since::Closed };
        if version < shelf.floor {
            return Since::TooOld { oldest: shelf.floor };
        }
        let start = shelf.history.partition_point(|past| past.change.version() <= version);
        let changes: Vec<_> = shelf.history.range(start..).take(most).map(|past| past.change.clone()).collect();
        let all = start + changes.len() == shelf.history.len();
        let version = if all { self.version } else { changes.last().map_or(version, |last| last.version()) };
        Since::Changes { changes, version }
    }

    pub(super) fn subscribe(&self, resource: &str) -> Option<watch::Receiver<()>> {
        self.shelves.get(resource).map(|shelf| shelf.changed.subscribe())
    }

    /// Takes an object in while the database is loaded.
    pub(super) fn load(&mut self, resource: &Arc<str>, object: Arc<Object>) {
        self.own(resource, &object);
        if let Some(shelf) = self.shelves.get_mut(resource) {
            shelf.objects.insert(object.key.clone(), object);
        }
    }

    /// Takes committed changes in, in their order, and wakes the watches.
    pub(super) fn commit(&mut self, changes: Vec<Arc<Change>>, version: u64) {
        self.version = version;
        let now = Instant::now();
        let mut touched = BTreeSet::new();
        let mut definitions = false;
        for change in changes {
            let id = &change.resource.id;
            definitions |= change.resource.strategy == Strategy::Definition;
            if let Some(before) = &change.before {
                self.disown(id, before);
            }
            if change.kind != ChangeKind::Deleted {
                self.own(id, &change.object);
            }
            touched.insert(id.clone());
            if let Some(shelf) = self.shelves.get_mut(id) {
                shelf.take(change, now);
            }
        }
        if definitions {
            self.refresh_registry();
        }
        for id in touched {
            if let Some(shelf) = self.shelves.get(&id) {
                shelf.changed.send_replace(());
            }
        }
    }

    /// Reads the definitions anew.
    pub(super) fn refresh_registry(&mut self) {
        let definitions = self.list("customresourcedefinitions.apiextensions.k8s.io", None);
        let mut definitions: Vec<Value> = definitions.iter().map(|object| object.value()).collect();
        // Of two that claim the same kind, the older one keeps it.
        definitions.sort_by(|a, b| {
            let age = |d: &Value| d.pointer("/metadata/creationTimestamp").and_then(Value::as_str).map(str::to_owned);
            age(a).cmp(&age(b))
        });
        self.registry = Arc::new(self.base.with_definitions(definitions.iter(), self.version));
        self.sync_shelves();
    }

    fn sync_shelves(&mut self) {
        let registry = self.registry.clone();
        let version = self.version;
        for resource in registry.sorted().into_iter().filter(|r| r.strategy != Strategy::Review) {
            self.shelves.entry(resource.id.clone()).or_insert_with(|| Shelf::new(version));
        }
        let served: BTreeSet<_> = registry.sorted().into_iter().map(|r| r.id.clone()).collect();
        self.shelves.retain(|id, _| served.contains(id));
    }

    fn own(&mut self, resource: &Arc<str>, object: &Object) {
        for owner in &object.owners {
            let entry = self.dependents.entry(owner.uid.clone()).or_default();
            entry.insert((resource.clone(), object.key.clone()));
        }
    }

    fn disown(&mut self, resource: &Arc<str>, object: &Object) {
        for owner in &object.owners {
            if let Some(set) = self.dependents.get_mut(&owner.uid) {
                set.remove(&(resource.clone(), object.key.clone()));
                if set.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }
}

impl Shelf {
    fn take(&mut self, change: Arc<Change>, now: Instant) {
        if change.kind == ChangeKind::Deleted {
            self.objects.remove(&change.object.key);
        } else {
            self.objects.insert(change.object.key.clone(), change.object.clone());
        }
        self.bytes += change.size();
        self.history.push_back(Past { change, since: now });
        while let Some(Past { change, since }) = self.history.front()
            && (self.bytes > HISTORY_BYTES
                || self.history.len() > HISTORY_LENGTH && now.duration_since(*since) > HISTORY_AGE)
        {
            self.bytes -= change.size();
            self.floor = change.version();
            self.history.pop_front();
        }
    }
}

fn in_namespace<'a>(
    objects: &'a BTreeMap<Key, Arc<Object>>,
    namespace: Option<&str>,
) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
    let namespace: Option<Box<str>> = namespace.map(Into::into);
    let start = Key { namespace: namespace.clone().unwrap_or_default(), name: Box::default() };
    objects
        .range(start..)
        .take_while(move |(key, _)| namespace.as_ref().is_none_or(|ns| *ns == key.namespace))
        .map(|(_, object)| object)
}
