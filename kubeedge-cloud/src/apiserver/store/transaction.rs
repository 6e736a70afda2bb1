//! A change in the making: sees its own writes, and is kept or dropped as a whole.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    cache::Cache,
    object::{Change, ChangeKind, Key, Object},
};
use crate::apiserver::registry::{Registry, Resource};

/// Objects that were written in this batch and are not in the cache yet; `None` is a deleted one.
pub(super) type Overlay = BTreeMap<(Arc<str>, Key), Option<Arc<Object>>>;

/// Reads and writes of one request on the writer thread.
pub(crate) struct Transaction<'a> {
    cache: &'a Cache,
    batch: &'a Overlay,
    own: Overlay,
    changes: Vec<Arc<Change>>,
    version: u64,
    now: jiff::Timestamp,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(cache: &'a Cache, batch: &'a Overlay, version: u64, now: jiff::Timestamp) -> Self {
        Self { cache, batch, own: Overlay::new(), changes: Vec::new(), version, now }
    }

    pub(super) fn finish(self) -> (Overlay, Vec<Arc<Change>>, u64) {
        (self.own, self.changes, self.version)
    }

    pub(super) fn cache(&self) -> &Cache {
        self.cache
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.now
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        self.cache.registry()
    }

    pub(crate) fn get(&self, resource: &Resource, key: &Key) -> Option<Arc<Object>> {
        let place = (resource.id.clone(), key.clone());
        match self.own.get(&place).or_else(|| self.batch.get(&place)) {
            Some(written) => written.clone(),
            None => self.cache.get(&resource.id, key).cloned(),
        }
    }

    /// The objects of a resource, those of one namespace if it is given.
    pub(crate) fn list(&self, resource: &Resource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let mut objects: BTreeMap<Key, Arc<Object>> =
            self.cache.list(&resource.id, namespace).into_iter().map(|o| (o.key.clone(), o)).collect();
        for (place, written) in self.batch.iter().chain(&self.own) {
            if place.0 != resource.id || namespace.is_some_and(|ns| ns != &*place.1.namespace) {
                continue;
            }
            match written {
                Some(object) => objects.insert(place.1.clone(), object.clone()),
                None => objects.remove(&place.1),
            };
        }
        objects.into_values().collect()
    }

    /// Whether the resource has no object in the namespace, or none at all.
    pub(super) fn is_empty(&self, resource: &Resource, namespace: Option<&str>) -> bool {
        let touched = self.batch.keys().chain(self.own.keys()).any(|(id, _)| *id == resource.id);
        if touched { self.list(resource, namespace).is_empty() } else { self.cache.is_empty(&resource.id, namespace) }
    }

    /// The objects that name this uid as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(Arc<Resource>, Arc<Object>)> {
        let registry = self.registry().sorted();
        let dependents = self.cache.dependents(uid).into_iter();
        dependents
            .filter_map(|(id, key)| {
                let resource = registry.iter().find(|r| r.id == id)?;
                Some(((*resource).clone(), self.get(resource, &key)?))
            })
            .collect()
    }

    /// Stores an object under the next version and returns it with that version.
    pub(crate) fn put(&mut self, resource: &Arc<Resource>, mut value: Value) -> (Arc<Object>, Value) {
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        let object = Arc::new(Object::new(&value, self.version, &resource.fields));
        let before = self.get(resource, &object.key);
        let kind = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.own.insert((resource.id.clone(), object.key.clone()), Some(object.clone()));
        self.changes.push(Arc::new(Change { resource: resource.clone(), kind, object: object.clone(), before }));
        (object, value)
    }

    /// Removes an object; `value` is its last state, which is returned under the version of the removal.
    pub(crate) fn remove(&mut self, resource: &Arc<Resource>, mut value: Value) -> Value {
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        let object = Arc::new(Object::new(&value, self.version, &resource.fields));
        let before = self.get(resource, &object.key);
        self.own.insert((resource.id.clone(), object.key.clone()), None);
        let kind = ChangeKind::Deleted;
        self.changes.push(Arc::new(Change { resource: resource.clone(), kind, object, before }));
        value
    }
}
