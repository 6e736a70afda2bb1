//! Change.

use std::sync::Arc;

use serde_json::Value;

use super::{Target, check, control, fill, is_done, limit, metadata};
use crate::apiserver::{
    registry::Strategy,
    status::{ApiError, FieldError},
    store::{Object, Transaction},
    validate::check_update,
};

/// Which part of an object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    /// The finalizers of a namespace.
    Finalize,
    /// The conditions of a certificate signing request.
    Approval,
    /// The node of a pod.
    Binding,
}

/// Fields of the metadata that only the server sets.
const FIXED: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "namespace",
    "selfLink",
];

/// Replaces `old` by the decoded object `new`, as far as `part` allows, and returns what is stored then, in the
/// version of the request. An object that waited only for its last finalizer is removed.
pub(crate) fn update(
    transaction: &mut Transaction<'_>,
    target: &Target,
    old: &Arc<Object>,
    mut new: Value,
    part: Part,
) -> Result<Value, ApiError> {
    let resource = &target.resource;
    let name = old.key.name.to_string();
    check_preconditions(target, old, &mut new)?;
    let mut was = old.value();
    was["apiVersion"] = target.api_version().into();
    keep_fixed(&was, &mut new);
    let mut new = take_part(target, &was, new, part);
    fill(target, &mut new);
    if part == Part::Main {
        super::defaults::carry_over(resource.strategy, &was, &mut new);
    }
    control(resource, &mut new, transaction.now());
    let mut errors = check(target, &new);
    if part == Part::Main {
        errors.extend(check_update(resource.strategy, &was, &new));
    }
    errors.extend(check_finalizers(old, &was, &new));
    if !errors.is_empty() {
        return Err(ApiError::invalid(resource.kind_subject(&name), &errors));
    }
    count_generation(target, &was, &mut new);
    if same(&was, &new) {
        return Ok(was);
    }
    new["apiVersion"] = resource.api_version(resource.storage_version()).into();
    let mut stored = if old.deleting && is_done(resource, &new) {
        transaction.remove(resource, new)
    } else {
        let (kept, stored) = transaction.put(resource, new);
        limit(&kept)?;
        stored
    };
    stored["apiVersion"] = target.api_version().into();
    Ok(stored)
}

fn check_preconditions(target: &Target, old: &Object, new: &mut Value) -> Result<(), ApiError> {
    let resource = &target.resource;
    let name = &old.key.name;
    let metadata = metadata(new);
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("name") {
        "" => {}
        given if given == &**name => {}
        given => {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
    }
    if !text("uid").is_empty() && text("uid") != &*old.uid {
        let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: {}", text("uid"), old.uid);
        return Err(ApiError::conflict(resource.subject(name), &why));
    }
    match text("resourceVersion") {
        "" | "0" if resource.unconditional_update() => {}
        "" | "0" => {
            let why = "must be specified for an update";
            let errors = [FieldError::invalid("metadata.resourceVersion", &0.into(), why)];
            return Err(ApiError::invalid(resource.kind_subject(name), &errors));
        }
        given if given.parse() == Ok(old.version) => {}
        given if given.parse::<u64>().is_err() => {
            let errors =
                [FieldError::invalid("metadata.resourceVersion", &given.into(), "must be an unsigned integer")];
            return Err(ApiError::invalid(resource.kind_subject(name), &errors));
        }
        _ => return Err(ApiError::modified(resource.subject(name))),
    }
    metadata.insert("name".to_owned(), (&**name).into());
    metadata.insert("resourceVersion".to_owned(), old.version.to_string().into());
    Ok(())
}

fn keep_fixed(was: &Value, new: &mut Value) {
    let metadata = metadata(new);
    for key in FIXED {
        match was["metadata"].get(key) {
            Some(value) => metadata.insert(key.to_owned(), value.clone()),
            None => metadata.remove(key),
        };
    }
    if metadata.get("generateName").is_none()
        && let Some(prefix) = was["metadata"].get("generateName")
    {
        metadata.insert("generateName".to_owned(), prefix.clone());
    }
}

fn put_or_remove(object: &mut Value, key: &str, value: Option<Value>) {
    if let Some(map) = object.as_object_mut() {
        match value {
            Some(value) => map.insert(key.to_owned(), value),
            None => map.remove(key),
        };
    }
}

fn take_part(target: &Target, was: &Value, mut new: Value, part: Part) -> Value {
    match part {
        Part::Main => {
            if target.has_status() {
                put_or_remove(&mut new, "status", was.get("status").cloned());
            }
            if target.resource.strategy == Strategy::Namespace {
                // Only the finalize subresource changes these.
                put_or_remove(&mut new, "spec", was.get("spec").cloned());
            }
            new
        }
        Part::Status | Part::Approval => {
            let mut kept = was.clone();
            put_or_remove(&mut kept, "status", new.get("status").cloned());
            let managed = new["metadata"].get("managedFields").cloned();
            if target.resource.is_custom() {
                put_or_remove(&mut kept["metadata"], "managedFields", managed);
            } else {
                let owners = was["metadata"].get("ownerReferences").cloned();
                kept["metadata"] = new["metadata"].take();
                put_or_remove(&mut kept["metadata"], "ownerReferences", owners);
            }
            kept
        }
        Part::Finalize => {
            let mut kept = was.clone();
            put_or_remove(&mut kept, "spec", new.get("spec").cloned());
            kept
        }
        Part::Binding => new,
    }
}

fn check_finalizers(old: &Object, was: &Value, new: &Value) -> Vec<FieldError> {
    let list = |object: &Value| -> Vec<Value> {
        object.pointer("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let before = list(was);
    let added: Vec<_> = list(new).into_iter().filter(|finalizer| !before.contains(finalizer)).collect();
    if !old.deleting || added.is_empty() {
        return Vec::new();
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers {}",
        Value::from(added)
    );
    vec![FieldError::forbidden("metadata.finalizers", &why)]
}

fn count_generation(target: &Target, was: &Value, new: &mut Value) {
    if !target.resource.counts_generations() {
        return;
    }
    let ignored =
        |key: &str| matches!(key, "metadata" | "apiVersion" | "kind") || (key == "status" && target.has_status());
    let body = |object: &Value| -> Vec<(String, Value)> {
        let fields = object.as_object().into_iter().flatten();
        fields.filter(|(key, _)| !ignored(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    if body(was) != body(new) {
        let generation = was.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        metadata(new).insert("generation".to_owned(), (generation + 1).into());
    }
}

/// Whether a change would change nothing but its own bookkeeping.
fn same(was: &Value, new: &Value) -> bool {
    if was == new {
        return true;
    }
    let bare = |object: &Value| {
        let mut object = object.clone();
        let metadata = metadata(&mut object);
        metadata.remove("resourceVersion");
        for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("time");
            }
        }
        // Empty maps and lists in metadata are as good as none.
        metadata.retain(|_, value| {
            !value.as_object().is_some_and(serde_json::Map::is_empty) && !value.as_array().is_some_and(Vec::is_empty)
        });
        object
    };
    bare(was) == bare(new)
}
