//! Creation and replacement.

use http::StatusCode;
use serde_json::Value;

use super::Call;
use crate::apiserver::{
    lifecycle::{self, Part, decode, metadata},
    patch::track,
    reply::Reply,
    status::ApiError,
    store::Transaction,
};

pub(super) async fn create(call: Call) -> Result<Reply, ApiError> {
    let mut object = call.body()?;
    let warnings = call.decode(&mut object)?;
    let namespace = call.body_namespace(&mut object)?;
    let dry = call.request.query.dry_run()?;
    metadata(&mut object).remove("managedFields");
    metadata(&mut object).remove("resourceVersion");
    let target = call.target().clone();
    let made = call.store.write(dry, move |transaction| lifecycle::create(transaction, &target, &namespace, object));
    Ok(call.written(StatusCode::CREATED, made.await?, warnings))
}

pub(super) async fn update(call: Call, part: Part) -> Result<Reply, ApiError> {
    let mut object = call.body()?;
    let warnings = call.decode(&mut object)?;
    let namespace = call.body_namespace(&mut object)?;
    let dry = call.request.query.dry_run()?;
    let (target, key, manager) = (call.target().clone(), call.key(), call.request.field_manager());
    let change = move |transaction: &mut Transaction<'_>| match transaction.get(&target.resource, &key) {
        Some(old) => {
            track(&target, &old, &mut object, &manager, part, transaction.now());
            Ok((lifecycle::update(transaction, &target, &old, object, part)?, false))
        }
        None if part == Part::Main && target.resource.create_on_update() && has_no_version(&object) => {
            metadata(&mut object).insert("name".to_owned(), (&*key.name).into());
            Ok((lifecycle::create(transaction, &target, &namespace, object)?, true))
        }
        None => Err(ApiError::not_found(target.resource.subject(&key.name))),
    };
    let (stored, created) = call.store.write(dry, change).await?;
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(call.written(code, stored, warnings))
}

fn has_no_version(object: &Value) -> bool {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default().is_empty()
}

impl Call {
    pub(super) fn decode(&self, object: &mut Value) -> Result<Vec<String>, ApiError> {
        decode(self.target(), &self.types.schema("ObjectMeta"), object, self.request.query.field_validation()?)
    }

    /// The namespace of the path, with which that of the body must agree.
    pub(super) fn body_namespace(&self, object: &mut Value) -> Result<String, ApiError> {
        let metadata = metadata(object);
        let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
        if !self.resource().namespaced {
            metadata.remove("namespace");
            return Ok(String::new());
        }
        match self.namespace.as_deref() {
            Some(namespace) if given.is_empty() || given == namespace => {
                metadata.insert("namespace".to_owned(), namespace.into());
                Ok(namespace.to_owned())
            }
            Some(_) => Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
            None => Err(ApiError::bad_request("an empty namespace may not be set during creation")),
        }
    }
}
