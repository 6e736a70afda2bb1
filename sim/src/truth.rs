//! What every edge should have, by the API.

use std::collections::{BTreeMap, BTreeSet};

use kubeedge_core::{
    meta::{Collection, MetaKey},
    names::NodeName,
};
use serde_json::Value;

use crate::{
    api::{Api, Place},
    disk::{Disk, copy},
    history::History,
};

/// What an edge has to act upon: an object without its version and its status.
fn essence(object: &Value) -> (String, String) {
    let mut object = object.clone();
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    if let Some(members) = object.as_object_mut() {
        for member in ["status", "apiVersion", "kind"] {
            members.remove(member);
        }
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
    }
    (uid, object.to_string())
}

/// The objects of `node`: itself, its pods, and what they refer to, as far as it exists.
fn wanted(objects: &BTreeMap<Place, Value>, node: &NodeName) -> BTreeMap<MetaKey, (String, String)> {
    let mut places = BTreeSet::from([(Place::cluster("nodes", node.as_str()), "node")]);
    let pods = objects.iter().filter(|(place, _)| place.plural == "pods");
    for (place, pod) in pods.filter(|(_, pod)| pod["spec"]["nodeName"].as_str() == Some(node.as_str())) {
        places.insert((place.clone(), "pod"));
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            if let Some(name) = volume["configMap"]["name"].as_str() {
                places.insert((Place::namespaced("configmaps", name), "configmap"));
            }
            if let Some(name) = volume["secret"]["secretName"].as_str() {
                places.insert((Place::namespaced("secrets", name), "secret"));
            }
        }
    }
    let there = places.into_iter().filter_map(|(place, kind)| {
        let object = objects.get(&place)?;
        Some((MetaKey::new(Collection::new(kind).ok()?, place.namespace, place.name), essence(object)))
    });
    there.collect()
}

/// One edge as the checker looks at it.
pub(crate) struct Looked<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) disk: &'a Disk,
    /// Whether it can tell what it has.
    pub(crate) tells: bool,
}

/// What keeps the world from being settled; nothing if it is.
///
/// An edge that cannot tell what it has, as no Go edge can, differs from the truth for good if its last acknowledgement
/// about an object was lost with the link or with the cloud: it keeps what was deleted before the cloud learned that it
/// came, and lacks what is needed again before the cloud learned that it went. Both are let pass.
pub(crate) fn differences(api: &Api, history: &History, edges: &[Looked<'_>]) -> Vec<String> {
    let objects = api.objects();
    let mut differences = Vec::new();
    for (place, pod) in objects.iter().filter(|(place, _)| place.plural == "pods") {
        if pod["metadata"]["deletionTimestamp"].is_string() {
            differences.push(format!("{place} has not ended"));
        }
    }
    for Looked { node, disk, tells } in edges {
        let mut wanted = wanted(&objects, node);
        let mut ledger = ledger(&objects, node);
        let mut has = BTreeMap::new();
        let mut recorded = BTreeMap::new();
        for record in disk.objects() {
            let Some(copy) = copy(&record) else { continue };
            if !tells && !wanted.contains_key(&record.key) && !ledger.contains_key(&copy.uid) {
                continue;
            }
            let object: Value = serde_json::from_str(&copy.json).unwrap_or_default();
            recorded.insert(copy.uid, copy.version);
            has.insert(record.key, essence(&object));
        }
        if !tells {
            // The contents are compared below: they may be those of an older version, which is all that was acknowledged.
            for (uid, version) in &mut ledger {
                if let Some(had) = recorded.get(uid).filter(|had| *had > version) {
                    *version = *had;
                }
            }
            wanted.retain(|key, (uid, _)| {
                let went = !has.contains_key(key) && ledger.contains_key(uid) && history.deleted(node, key);
                if went {
                    ledger.remove(uid);
                }
                !went
            });
        }
        for key in wanted.keys().chain(has.keys()).collect::<BTreeSet<_>>() {
            if wanted.get(key) != has.get(key) {
                differences.push(format!("{node}: {key} should be {:?} and is {:?}", wanted.get(key), has.get(key)));
            }
        }
        if ledger != recorded {
            differences.push(format!("the ledger says that {node} has {ledger:?}, and it has {recorded:?}"));
        }
        for entry in disk.outbox() {
            differences.push(format!("{node}: {} still waits for the cloud", entry.key));
        }
    }
    differences
}

/// What `node` has by the ledger: versions by UID.
fn ledger(objects: &BTreeMap<Place, Value>, node: &NodeName) -> BTreeMap<String, u64> {
    let records = objects.iter().filter(|(place, _)| place.plural.ends_with("objectsyncs"));
    let of_node = records.filter_map(|(place, record)| {
        let uid = place.name.strip_prefix(node.as_str())?.strip_prefix('.')?;
        let version = record["status"]["objectResourceVersion"].as_str().and_then(|version| version.parse().ok());
        Some((uid.to_owned(), version.unwrap_or(0)))
    });
    of_node.collect()
}
