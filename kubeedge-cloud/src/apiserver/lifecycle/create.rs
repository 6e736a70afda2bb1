//! Creation.

use serde_json::{Value, json};

use super::{Target, check, control, fill, limit, metadata, seconds};
use crate::apiserver::{
    registry::Strategy,
    status::ApiError,
    store::{Key, Transaction},
};

/// Attempts at a generated name.
const NAME_ATTEMPTS: usize = 8;

/// Stores a new, decoded object and returns it as it was stored, in the version of the request.
pub(crate) fn create(
    transaction: &mut Transaction<'_>,
    target: &Target,
    namespace: &str,
    mut object: Value,
) -> Result<Value, ApiError> {
    let resource = &target.resource;
    let name = name(transaction, target, namespace, &mut object)?;
    if resource.namespaced {
        check_namespace(transaction, target, namespace, &name)?;
    }
    if resource.is_custom() {
        check_definition(transaction, target)?;
    }
    if transaction.get(resource, &Key::new(namespace, &name)).is_some() {
        return Err(ApiError::already_exists(resource.subject(&name)));
    }
    stamp(transaction, target, namespace, &name, &mut object);
    if target.has_status() && !matches!(resource.strategy, Strategy::Node | Strategy::Plain) {
        // The status belongs to the status subresource.
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
    }
    fill(target, &mut object);
    control(resource, &mut object, transaction.now());
    let errors = check(target, &object);
    if !errors.is_empty() {
        return Err(ApiError::invalid(resource.kind_subject(&name), &errors));
    }
    let wanted = object["apiVersion"].take();
    object["apiVersion"] = resource.api_version(resource.storage_version()).into();
    let (kept, mut stored) = transaction.put(resource, object);
    limit(&kept)?;
    stored["apiVersion"] = wanted;
    if resource.strategy == Strategy::Namespace {
        default_account(transaction, &name)?;
    }
    Ok(stored)
}

fn name(
    transaction: &Transaction<'_>,
    target: &Target,
    namespace: &str,
    object: &mut Value,
) -> Result<String, ApiError> {
    let metadata = metadata(object);
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    if !text("name").is_empty() {
        return Ok(text("name").to_owned());
    }
    let prefix = text("generateName").to_owned();
    if prefix.is_empty() {
        let errors = [crate::apiserver::status::FieldError::required("metadata.name")];
        return Err(ApiError::invalid(target.resource.kind_subject(""), &errors));
    }
    for _ in 0..NAME_ATTEMPTS {
        let name = format!("{}{}", prefix.chars().take(58).collect::<String>(), suffix());
        if transaction.get(&target.resource, &Key::new(namespace, &name)).is_none() {
            metadata.insert("name".to_owned(), name.as_str().into());
            return Ok(name);
        }
    }
    Err(ApiError::already_exists(target.resource.subject(&prefix)))
}

/// Five letters and digits that do not make words.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())])).collect()
}

fn check_namespace(
    transaction: &Transaction<'_>,
    target: &Target,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    let registry = transaction.registry();
    let Some(namespaces) = registry.find("", "namespaces") else { return Ok(()) };
    match transaction.get(namespaces, &Key::new("", namespace)) {
        None => Err(ApiError::not_found(namespaces.subject(namespace))),
        Some(found) if found.deleting => Err(ApiError::namespace_terminating(target.resource.subject(name), namespace)),
        Some(_) => Ok(()),
    }
}

fn check_definition(transaction: &Transaction<'_>, target: &Target) -> Result<(), ApiError> {
    let registry = transaction.registry();
    let Some(definitions) = registry.find("apiextensions.k8s.io", "customresourcedefinitions") else { return Ok(()) };
    match transaction.get(definitions, &Key::new("", &target.resource.id)) {
        None => Err(ApiError::no_such_path()),
        Some(found) if found.deleting => {
            Err(ApiError::method_not_allowed("create not allowed while custom resource definition is terminating"))
        }
        Some(_) => Ok(()),
    }
}

fn stamp(transaction: &Transaction<'_>, target: &Target, namespace: &str, name: &str, object: &mut Value) {
    let metadata = metadata(object);
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        metadata.remove(key);
    }
    metadata.insert("name".to_owned(), name.into());
    if target.resource.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    } else {
        metadata.remove("namespace");
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), seconds(transaction.now()).into());
    if target.resource.counts_generations() {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// Every namespace has a service account of the name default.
fn default_account(transaction: &mut Transaction<'_>, namespace: &str) -> Result<(), ApiError> {
    let Some(resource) = transaction.registry().find("", "serviceaccounts").cloned() else { return Ok(()) };
    let target = Target { resource, version: "v1".to_owned() };
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    match create(transaction, &target, namespace, account) {
        Err(error) if error.code() != http::StatusCode::CONFLICT => Err(error),
        _ => Ok(()),
    }
}
