//! Deletion of one object or of a selection.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, body, list};
use crate::apiserver::{
    lifecycle::{self, DeleteOptions, Propagation},
    registry::Strategy,
    reply::Reply,
    status::{ApiError, success},
};

fn options(call: &Call) -> Result<(DeleteOptions, bool), ApiError> {
    let query = &call.request.query;
    let body = if call.request.body.is_empty() {
        Value::Null
    } else {
        body::object(&call.request, Some(&call.types.schema("DeleteOptions")))?
    };
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    let grace = match body["gracePeriodSeconds"].as_i64() {
        Some(seconds) => Some(seconds),
        None => query.number("gracePeriodSeconds")?,
    };
    let propagation = match text("/propagationPolicy").or_else(|| query.text("propagationPolicy")) {
        _ if body["orphanDependents"] == true => Propagation::Orphan,
        None | Some("Background") => Propagation::Background,
        Some("Foreground") => Propagation::Foreground,
        Some("Orphan") => Propagation::Orphan,
        Some(other) => {
            return Err(ApiError::unprocessable(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \
                 \"Orphan\""
            )));
        }
    };
    let dry = query.dry_run()? || body["dryRun"].as_array().is_some_and(|list| list.iter().any(|v| v == "All"));
    let options = DeleteOptions {
        grace,
        propagation,
        uid: text("/preconditions/uid").map(str::to_owned),
        version: text("/preconditions/resourceVersion").map(str::to_owned),
    };
    Ok((options, dry))
}

pub(super) async fn one(call: Call) -> Result<Reply, ApiError> {
    let (options, dry) = options(&call)?;
    let (resource, key) = (call.resource().clone(), call.key());
    let deleted = call
        .store
        .write(dry, move |transaction| {
            let object = transaction.get(&resource, &key);
            let object = object.ok_or_else(|| ApiError::not_found(resource.subject(&key.name)))?;
            lifecycle::delete(transaction, &resource, &object, &options)
        })
        .await?;
    // Pods are answered with themselves, all else that is gone with its name.
    if deleted.gone && call.resource().strategy != Strategy::Pod {
        let subject = call.resource().subject(call.name.as_deref().unwrap_or_default());
        let uid = deleted.object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        return Ok(Reply::json(StatusCode::OK, &success(&subject, uid)));
    }
    Ok(call.written(StatusCode::OK, deleted.object, Vec::new()))
}

pub(super) async fn collection(call: Call) -> Result<Reply, ApiError> {
    let (options, dry) = options(&call)?;
    let (labels, fields) = list::selectors(&call)?;
    let (resource, namespace) = (call.resource().clone(), call.namespace.clone());
    let deleted = call
        .store
        .write(dry, move |transaction| {
            let mut deleted = Vec::new();
            for object in transaction.list(&resource, namespace.as_deref()) {
                if list::selects(&labels, &fields, &object) {
                    deleted.push(lifecycle::delete(transaction, &resource, &object, &options)?.object);
                }
            }
            Ok(deleted)
        })
        .await?;
    let items: Vec<_> = deleted.into_iter().map(|value| call.view.present(value)).collect();
    let list = json!({"kind": call.resource().list_kind, "apiVersion": call.target().api_version(),
        "metadata": {"resourceVersion": call.store.state().version().to_string()}, "items": items});
    Ok(Reply::json(StatusCode::OK, &list))
}
