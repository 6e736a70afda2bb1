//! Objects and their versions.

use serde_json::{Value, json};

use super::{Event, Place, State};

/// Kinds whose status only requests for the status change.
const WITH_STATUS: [&str; 4] = ["pods", "nodes", "objectsyncs", "clusterobjectsyncs"];

/// One change of one object.
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) place: Place,
    /// What was there before, and what is there now.
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

impl State {
    /// Puts a new object there.
    pub(super) fn insert(&mut self, place: &Place, mut object: Value) -> Value {
        self.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = format!("uid-{}", self.uids).into();
        metadata["creationTimestamp"] = "2027-01-01T00:00:00Z".into();
        if place.plural == "customresourcedefinitions" {
            object["status"] = json!({
                "conditions": [{ "type": "Established", "status": "True", "reason": "Is", "message": "it is" }],
                "acceptedNames": { "plural": "x", "kind": "X" }, "storedVersions": [],
            });
        } else if WITH_STATUS.contains(&place.plural.as_str())
            && let Some(members) = object.as_object_mut()
        {
            members.remove("status");
        }
        self.put(place, object)
    }

    /// Puts another version of an object there. What differs in nothing keeps its version.
    pub(super) fn update(&mut self, place: &Place, object: Value) -> Value {
        if self.objects.get(place) == Some(&object) {
            return object;
        }
        self.put(place, object)
    }

    fn put(&mut self, place: &Place, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let before = self.objects.insert(place.clone(), object.clone());
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let event = Event::Written { place: place.clone(), uid, version: self.version, shows: shows(place, &object) };
        self.changed(place, before, Some(object.clone()), event);
        object
    }

    /// Takes an object away.
    pub(super) fn delete(&mut self, place: &Place) -> Option<Value> {
        let before = self.objects.remove(place)?;
        self.version += 1;
        let uid = before["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let event = Event::Removed { place: place.clone(), uid };
        self.changed(place, Some(before.clone()), None, event);
        Some(before)
    }

    fn changed(&mut self, place: &Place, before: Option<Value>, after: Option<Value>, event: Event) {
        self.note(event);
        self.changes.push(Change { version: self.version, place: place.clone(), before, after });
        self.signal();
    }

    /// Merges the part of `patch` that the endpoint is for.
    pub(super) fn patched(stored: &Value, patch: &Value, status: bool, plural: &str) -> Value {
        let mut object = stored.clone();
        if status {
            merge(&mut object["status"], &patch["status"]);
            return object;
        }
        let mut patch = patch.clone();
        if WITH_STATUS.contains(&plural)
            && let Some(members) = patch.as_object_mut()
        {
            members.remove("status");
        }
        if let Some(metadata) = patch["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
            metadata.remove("uid");
        }
        if patch["metadata"].is_null()
            && let Some(members) = patch.as_object_mut()
        {
            members.remove("metadata");
        }
        merge(&mut object, &patch);
        object
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Some(members) = patch.as_object() else {
        if !patch.is_null() {
            *target = patch.clone();
        }
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in members {
        if value.is_null() {
            if let Some(target) = target.as_object_mut() {
                target.remove(name);
            }
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

/// The number in an object that only grows.
fn shows(place: &Place, object: &Value) -> Option<u64> {
    let text = match place.plural.as_str() {
        "pods" => object["status"]["message"].as_str(),
        "objectsyncs" | "clusterobjectsyncs" => object["status"]["objectResourceVersion"].as_str(),
        "devicestatuses" => object["status"]["twins"][0]["reported"]["value"].as_str(),
        _ => None,
    };
    text?.parse().ok()
}
