//! Which object belongs to which node. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use kubeedge_core::{
    names::{NodeName, ResourceVersion, Uid},
    resource::{ObjectPath, ResourceType},
};

use super::ledger::LedgerEntry;
use crate::{
    hub::{ObjectChange, ObjectEvent},
    object::{Kind, NodeObject},
};

/// What a controller has read in an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The node that it is bound to.
    pub(crate) node: Option<NodeName>,
    /// What that node needs along with it.
    pub(crate) references: Vec<ObjectPath>,
    /// Whether it makes that node an edge node.
    pub(crate) makes_edge: bool,
    /// Whether it is about to be deleted.
    pub(crate) terminating: bool,
}

/// What is to be done after the placement has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// In this order.
    pub(crate) changes: Vec<(NodeName, ObjectChange)>,
    /// Objects whose contents are needed now but were not kept.
    pub(crate) fetch: BTreeSet<ObjectPath>,
}

/// Something that a record says, and that only the API can decide: the objects here may be older than the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// There is no such object here.
    Unknown(ObjectPath, Uid),
    /// The record has a later version than the object here, and not the same contents.
    Ahead(ObjectPath, Uid),
}

/// All that the API has of the watched kinds, by name, and which node needs what. Contents are kept only of what an edge
/// node needs, and of device models: a Secret that none of its pods uses is a name and a version here.
///
/// An object is needed by the node that it is bound to, with all that it references there. The sets follow: what the
/// last pod needed is taken from the node again. Upstream never does that.
///
/// Upstream: `cloud/pkg/edgecontroller/manager` (location cache), `cloud/pkg/devicecontroller/controller/downstream.go`.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    objects: BTreeMap<ObjectPath, Tracked>,
    /// How often each node needs each object.
    needs: HashMap<ObjectPath, BTreeMap<NodeName, usize>>,
    nodes: BTreeMap<NodeName, NodeNeeds>,
}

#[derive(Debug)]
struct Tracked {
    uid: Uid,
    version: Option<ResourceVersion>,
    facts: Facts,
    object: Option<Arc<NodeObject>>,
}

#[derive(Debug, Default)]
struct NodeNeeds {
    /// How many objects make it an edge node: its own label, and its devices.
    edge: usize,
    paths: BTreeSet<ObjectPath>,
}

impl Placement {
    /// There is this object now.
    pub(crate) fn apply(&mut self, object: NodeObject, facts: Facts) -> Effects {
        let mut effects = Effects::default();
        let path = object.path.clone();
        if let Some(known) = self.objects.get(&path) {
            // A list may be an old one: versions are those of the whole API, so this is of an earlier life, too.
            if known.version > object.version {
                return effects;
            }
            if known.uid != object.uid {
                // Its deletion was missed.
                self.remove(&path, None, &mut effects);
            }
        }
        let (terminating, new_facts) = (facts.terminating, facts.clone());
        let known = self.objects.remove(&path);
        let (old_facts, old_object) = known.map_or_else(Default::default, |known| (known.facts, known.object));
        let (new, changed) = match &old_object {
            None => (ObjectEvent::Insert, true),
            Some(old) => (ObjectEvent::Update, old.digest != object.digest),
        };
        let object = Arc::new(object);
        let tracked = Tracked { uid: object.uid.clone(), version: object.version, facts, object: Some(object.clone()) };
        self.objects.insert(path.clone(), tracked);

        let had: BTreeSet<NodeName> = self.edges_that_need(&path).collect();
        // First take, then give back, so that what stays is not touched.
        self.count(&path, &new_facts, &mut effects);
        self.discount(&path, &old_facts, &mut effects);
        for node in had {
            if changed && self.is_needed(&node, &path) {
                effects.changes.push((node, change(new, &object, terminating)));
            }
        }
        self.trim(&path);
        effects
    }

    /// The contents of an object that had to be fetched.
    pub(crate) fn fill(&mut self, object: NodeObject) -> Effects {
        let mut effects = Effects::default();
        let path = object.path.clone();
        let Some(known) = self.objects.get_mut(&path) else { return effects };
        if known.uid != object.uid || known.version > object.version || known.object.is_some() {
            return effects;
        }
        let (object, terminating) = (Arc::new(object), known.facts.terminating);
        known.version = object.version;
        known.object = Some(object.clone());
        for node in self.edges_that_need(&path) {
            effects.changes.push((node, change(ObjectEvent::Insert, &object, terminating)));
        }
        self.trim(&path);
        effects
    }

    /// The object is gone; `last` is what is known of it.
    pub(crate) fn delete(&mut self, last: NodeObject) -> Effects {
        let mut effects = Effects::default();
        if self.objects.get(&last.path).is_some_and(|known| known.uid == last.uid) {
            let path = last.path.clone();
            self.remove(&path, Some(last), &mut effects);
        }
        effects
    }

    /// The objects of this kind that are not among those. A list may be older than what is known, so whether they are gone
    /// has to be asked.
    pub(crate) fn missing(&self, kind: &ResourceType, there: &HashSet<ObjectPath>) -> Vec<(ObjectPath, Uid)> {
        let of_kind = self.objects.iter().filter(|(path, _)| path.kind == *kind && !there.contains(*path));
        of_kind.map(|(path, tracked)| (path.clone(), tracked.uid.clone())).collect()
    }

    /// The object with this UID is gone, without a trace. Whether it was known.
    pub(crate) fn vanish(&mut self, path: &ObjectPath, uid: &Uid) -> (bool, Effects) {
        let mut effects = Effects::default();
        let known = self.objects.get(path).is_some_and(|known| known.uid == *uid);
        if known {
            self.remove(path, None, &mut effects);
        }
        (known, effects)
    }

    /// Whether `node` needs the object called `path`, existing or not.
    pub(crate) fn needs(&self, node: &NodeName, path: &ObjectPath) -> bool {
        self.nodes.get(node).is_some_and(|needs| needs.paths.contains(path))
    }

    /// The object called `path`, if its contents are kept.
    pub(crate) fn object(&self, path: &ObjectPath) -> Option<Arc<NodeObject>> {
        self.objects.get(path)?.object.clone()
    }

    /// The UID of the object called `path`, if there is one.
    pub(crate) fn uid(&self, path: &ObjectPath) -> Option<&Uid> {
        self.objects.get(path).map(|tracked| &tracked.uid)
    }

    /// The node that the object called `path` is bound to.
    pub(crate) fn binding(&self, path: &ObjectPath) -> Option<&NodeName> {
        self.objects.get(path)?.facts.node.as_ref()
    }

    /// All objects of `kind`.
    pub(crate) fn paths(&self, kind: &ResourceType) -> impl Iterator<Item = &ObjectPath> {
        self.objects.keys().filter(move |path| path.kind == *kind)
    }

    /// The objects of `kind` that `node` needs and that exist.
    pub(crate) fn of_node(&self, node: &NodeName, kind: &ResourceType) -> Vec<Arc<NodeObject>> {
        let paths = self.nodes.get(node).into_iter().flat_map(|needs| &needs.paths);
        let paths: BTreeSet<_> = paths.filter(|path| path.kind == *kind).collect();
        paths.into_iter().filter_map(|path| self.object(path)).collect()
    }

    /// All objects of `kind` that are bound to a node, by what was read in them.
    pub(crate) fn bound(&self, kind: &ResourceType) -> impl Iterator<Item = (&ObjectPath, &NodeName)> {
        let of_kind = self.objects.iter().filter(move |(path, _)| path.kind == *kind);
        of_kind.filter_map(|(path, tracked)| Some((path, tracked.facts.node.as_ref()?)))
    }

    /// The objects of `kind` that refer to one of those, bound or not.
    pub(crate) fn referring(&self, kind: &ResourceType, to: &BTreeSet<ObjectPath>) -> Vec<ObjectPath> {
        let of_kind = self.objects.iter().filter(move |(path, _)| path.kind == *kind);
        let refers = |tracked: &Tracked| tracked.facts.references.iter().any(|path| to.contains(path));
        of_kind.filter(|(_, tracked)| refers(tracked)).map(|(path, _)| path.clone()).collect()
    }

    /// What is to be asked of the API before a node with these records is compared.
    pub(crate) fn doubts(&self, ledger: &[LedgerEntry]) -> Vec<Doubt> {
        let doubt = |entry: &LedgerEntry| match self.objects.get(&entry.path).filter(|known| known.uid == entry.uid) {
            None => Some(Doubt::Unknown(entry.path.clone(), entry.uid.clone())),
            Some(known) if entry.is_ahead_of(known.version, known.object.as_deref()) => {
                Some(Doubt::Ahead(entry.path.clone(), entry.uid.clone()))
            }
            Some(_) => None,
        };
        ledger.iter().filter(|entry| is_ours(entry)).filter_map(doubt).collect()
    }

    /// What brings a node with these records to the truth: deletions first, then what others refer to, then the rest. A
    /// node that is up to date gets nothing. Nothing is deleted of a kind that is not among `listed`.
    pub(crate) fn resync(
        &self,
        node: &NodeName,
        ledger: &[LedgerEntry],
        listed: &BTreeSet<ResourceType>,
    ) -> Vec<ObjectChange> {
        let records: HashMap<&Uid, &LedgerEntry> = ledger.iter().map(|entry| (&entry.uid, entry)).collect();
        let needed = self.nodes.get(node).filter(|needs| needs.edge > 0).into_iter().flat_map(|needs| &needs.paths);
        let needed: Vec<(&ObjectPath, &Tracked)> =
            needed.filter_map(|path| Some((path, self.objects.get(path)?))).collect();
        let uids: HashSet<&Uid> = needed.iter().map(|(_, tracked)| &tracked.uid).collect();
        let mut changes: Vec<ObjectChange> = Vec::new();
        for entry in ledger.iter().filter(|entry| !uids.contains(&entry.uid)) {
            // A node is not told of its own end.
            if entry.path.kind == ResourceType::Node || !is_ours(entry) || !listed.contains(&entry.path.kind) {
                continue;
            }
            if let Ok(skeleton) = entry.skeleton() {
                changes.push(ObjectChange::new(ObjectEvent::Delete, Arc::new(skeleton)));
            }
        }
        for (_, tracked) in needed {
            if let Some(object) = &tracked.object
                && records.get(&tracked.uid).is_none_or(|entry| !entry.is_current(object))
            {
                changes.push(ObjectChange::new(ObjectEvent::Update, object.clone()));
            }
        }
        changes.sort_by_key(|change| {
            let gone = change.event == ObjectEvent::Delete;
            (!gone, rank(&change.object.path.kind), change.object.version, change.object.path.clone())
        });
        changes
    }

    fn remove(&mut self, path: &ObjectPath, last: Option<NodeObject>, effects: &mut Effects) {
        let Some(tracked) = self.objects.remove(path) else { return };
        let kind = Kind::delivered(&path.kind);
        let last = last.map(Arc::new).or(tracked.object).or_else(|| {
            let kind = kind?;
            NodeObject::skeleton(path.clone(), tracked.uid.clone(), kind.api_version(), kind.kind.into())
                .ok()
                .map(Arc::new)
        });
        // A node is not told of its own end: its session is closed.
        if let Some(last) = last.filter(|_| path.kind != ResourceType::Node) {
            for node in self.edges_that_need(path) {
                effects.changes.push((node, ObjectChange::new(ObjectEvent::Delete, last.clone())));
            }
        }
        self.discount(path, &tracked.facts, effects);
    }

    fn count(&mut self, path: &ObjectPath, facts: &Facts, effects: &mut Effects) {
        let Some(node) = &facts.node else { return };
        if facts.makes_edge {
            self.nodes.entry(node.clone()).or_default().edge += 1;
            if self.nodes.get(node).is_some_and(|needs| needs.edge == 1) {
                let mut paths: Vec<_> =
                    self.nodes.get(node).into_iter().flat_map(|needs| needs.paths.iter().cloned()).collect();
                paths.sort_by_key(|path| (rank(&path.kind), path.clone()));
                for path in paths {
                    self.arrives(node, &path, effects);
                }
            }
        }
        for path in facts.references.iter().chain([path]) {
            let times = self.needs.entry(path.clone()).or_default().entry(node.clone()).or_default();
            *times += 1;
            if *times == 1 {
                let needs = self.nodes.entry(node.clone()).or_default();
                needs.paths.insert(path.clone());
                if needs.edge > 0 {
                    self.arrives(node, path, effects);
                }
            }
        }
    }

    fn discount(&mut self, path: &ObjectPath, facts: &Facts, effects: &mut Effects) {
        let Some(node) = &facts.node else { return };
        for path in [path].into_iter().chain(&facts.references) {
            let Some(of_path) = self.needs.get_mut(path) else { continue };
            let Some(times) = of_path.get_mut(node) else { continue };
            *times -= 1;
            if *times > 0 {
                continue;
            }
            of_path.remove(node);
            if of_path.is_empty() {
                self.needs.remove(path);
            }
            if let Some(needs) = self.nodes.get_mut(node) {
                needs.paths.remove(path);
                if needs.edge > 0
                    && let Some(object) = self.objects.get(path).and_then(|tracked| tracked.object.clone())
                {
                    effects.changes.push((node.clone(), ObjectChange::new(ObjectEvent::Delete, object)));
                }
            }
            self.trim(path);
        }
        if let Some(needs) = self.nodes.get_mut(node) {
            needs.edge -= usize::from(facts.makes_edge);
            let paths: Vec<ObjectPath> =
                if needs.edge == 0 { needs.paths.iter().cloned().collect() } else { Vec::new() };
            if needs.edge == 0 && needs.paths.is_empty() {
                self.nodes.remove(node);
            }
            for path in &paths {
                self.trim(path);
            }
        }
    }

    /// An edge node needs an object that it did not need before.
    fn arrives(&self, node: &NodeName, path: &ObjectPath, effects: &mut Effects) {
        match self.objects.get(path) {
            Some(Tracked { object: Some(object), facts, .. }) => {
                effects.changes.push((node.clone(), change(ObjectEvent::Insert, object, facts.terminating)));
            }
            Some(_) => {
                effects.fetch.insert(path.clone());
            }
            // It is sent when it comes into being.
            None => {}
        }
    }

    fn edges_that_need(&self, path: &ObjectPath) -> impl Iterator<Item = NodeName> + use<'_> {
        let nodes = self.needs.get(path).into_iter().flat_map(BTreeMap::keys);
        nodes.filter(|node| self.nodes.get(*node).is_some_and(|needs| needs.edge > 0)).cloned()
    }

    fn is_needed(&self, node: &NodeName, path: &ObjectPath) -> bool {
        self.nodes.get(node).is_some_and(|needs| needs.edge > 0 && needs.paths.contains(path))
    }

    /// Lets go of contents that no edge node needs. Those of models are kept, as the first device has to come after its
    /// model: a Go edge never tells the mapper of a device whose model it does not have, not even when it gets it later.
    fn trim(&mut self, path: &ObjectPath) {
        if path.kind != ResourceType::DeviceModel
            && self.edges_that_need(path).next().is_none()
            && let Some(tracked) = self.objects.get_mut(path)
        {
            tracked.object = None;
        }
    }
}

/// Records of other kinds are the business of others.
fn is_ours(entry: &LedgerEntry) -> bool {
    Kind::delivered(&entry.path.kind).is_some()
}

/// What refers to others comes after them.
fn rank(kind: &ResourceType) -> u8 {
    match kind {
        ResourceType::Node => 0,
        ResourceType::ConfigMap | ResourceType::Secret | ResourceType::DeviceModel => 1,
        _ => 2,
    }
}

fn change(event: ObjectEvent, object: &Arc<NodeObject>, terminating: bool) -> ObjectChange {
    // As upstream: Secrets, nodes, and what is about to go are always an update.
    let event = match (event, &object.path.kind) {
        (ObjectEvent::Insert, ResourceType::Secret | ResourceType::Node) => ObjectEvent::Update,
        (ObjectEvent::Insert, _) if terminating => ObjectEvent::Update,
        (event, _) => event,
    };
    ObjectChange::new(event, object.clone())
}

#[cfg(test)]
#[path = "placement/tests.rs"]
mod tests;
