//! Deletion.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{metadata, seconds};
use crate::apiserver::{
    registry::{Resource, Strategy},
    status::ApiError,
    store::{Object, Transaction},
};

/// Holds a definition until its objects are gone.
pub(crate) const DEFINITION_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Holds an owner until its dependents are gone.
pub(crate) const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
/// Namespaces that stay.
const LASTING: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What becomes of an owner's dependents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted afterwards.
    #[default]
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// How an object is to be deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Propagation,
    pub(crate) uid: Option<String>,
    pub(crate) version: Option<String>,
}

/// What a delete led to.
#[derive(Debug)]
pub(crate) struct Deleted {
    /// The object's last or present state, in its storage version.
    pub(crate) object: Value,
    /// Whether it is gone already.
    pub(crate) gone: bool,
}

/// Deletes an object, or marks it for deletion if something holds it.
pub(crate) fn delete(
    transaction: &mut Transaction<'_>,
    resource: &Arc<Resource>,
    object: &Arc<Object>,
    options: &DeleteOptions,
) -> Result<Deleted, ApiError> {
    check_preconditions(resource, object, options)?;
    if resource.strategy == Strategy::Namespace && LASTING.contains(&&*object.key.name) {
        return Err(ApiError::forbidden(resource.subject(&object.key.name), "this namespace may not be deleted"));
    }
    let was = object.value();
    let mut value = was.clone();
    propagate(transaction, object, options.propagation, &mut value);
    if resource.strategy == Strategy::Definition && !object.deleting {
        add_finalizer(&mut value, DEFINITION_FINALIZER);
    }
    let grace = grace(resource, &value, options);
    mark(transaction.now(), grace, &mut value);
    if resource.strategy == Strategy::Namespace {
        value["status"]["phase"] = "Terminating".into();
    }
    if is_done(resource, &value) {
        return Ok(Deleted { object: transaction.remove(resource, value), gone: true });
    }
    if value != was {
        value = transaction.put(resource, value).1;
    }
    Ok(Deleted { object: value, gone: false })
}

/// Whether nothing holds an object that is marked for deletion.
pub(crate) fn is_done(resource: &Resource, value: &Value) -> bool {
    let grace = value.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let held = resource.strategy == Strategy::Namespace
        && value.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    grace == 0 && !held && !Object::has_finalizers(value)
}

/// Removes a finalizer and tells whether it was there.
pub(crate) fn drop_finalizer(value: &mut Value, name: &str) -> bool {
    let Some(list) = value.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) else { return false };
    let before = list.len();
    list.retain(|finalizer| finalizer != name);
    let dropped = list.len() < before;
    if list.is_empty() {
        metadata(value).remove("finalizers");
    }
    dropped
}

fn add_finalizer(value: &mut Value, name: &str) {
    let list = metadata(value).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut().filter(|list| !list.iter().any(|finalizer| finalizer == name)) {
        list.push(name.into());
    }
}

fn check_preconditions(resource: &Resource, object: &Object, options: &DeleteOptions) -> Result<(), ApiError> {
    let subject = || resource.subject(&object.key.name);
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != &*object.uid) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object.uid);
        return Err(ApiError::conflict(subject(), &why));
    }
    if let Some(version) = options.version.as_deref().filter(|version| version.parse() != Ok(object.version)) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            object.version
        );
        return Err(ApiError::conflict(subject(), &why));
    }
    Ok(())
}

fn propagate(transaction: &mut Transaction<'_>, object: &Object, propagation: Propagation, value: &mut Value) {
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => {
            if !transaction.dependents(&object.uid).is_empty() {
                add_finalizer(value, FOREGROUND_FINALIZER);
            }
        }
        Propagation::Orphan => {
            for (resource, dependent) in transaction.dependents(&object.uid) {
                let mut value = dependent.value();
                if let Some(list) = value.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) {
                    list.retain(|reference| reference["uid"] != *object.uid);
                }
                transaction.put(&resource, value);
            }
        }
    }
}

/// How long the object may take to end: pods that a node runs have time, all else goes at once.
fn grace(resource: &Resource, value: &Value, options: &DeleteOptions) -> i64 {
    if resource.strategy != Strategy::Pod {
        return 0;
    }
    let bound = value.pointer("/spec/nodeName").and_then(Value::as_str).is_some_and(|node| !node.is_empty());
    let ended = value.pointer("/status/phase").is_some_and(|phase| phase == "Succeeded" || phase == "Failed");
    if !bound || ended {
        return 0;
    }
    let own = value.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    options.grace.or(own).unwrap_or(30).max(0)
}

fn mark(now: jiff::Timestamp, grace: i64, value: &mut Value) {
    let metadata = metadata(value);
    let current = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64);
    let marked = metadata.contains_key("deletionTimestamp");
    // A second delete can only shorten the time.
    if marked && current.is_none_or(|current| grace >= current) {
        return;
    }
    let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    metadata.insert("deletionTimestamp".to_owned(), seconds(end).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
}
