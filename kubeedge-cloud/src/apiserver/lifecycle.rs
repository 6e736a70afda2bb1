//! What happens to an object when it is created, changed and deleted, whoever asks.

use serde_json::{Value, json};

use super::{
    registry::{Resource, Strategy},
    schema::{Schema, apply_defaults, coerce, prune, validate},
    service::BODY_LIMIT,
    status::{ApiError, FieldError},
    validate::{check_kind, check_metadata},
};

mod create;
mod defaults;
mod definition;
mod delete;
mod pod;
mod update;

pub(crate) use create::create;
pub(crate) use delete::{
    DEFINITION_FINALIZER, DeleteOptions, FOREGROUND_FINALIZER, Propagation, delete, drop_finalizer, is_done,
};
pub(crate) use update::{Part, update};

/// What a client wants to know about fields that are not in the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Which version of which resource a request is about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) resource: std::sync::Arc<Resource>,
    pub(crate) version: String,
}

impl Target {
    pub(crate) fn api_version(&self) -> String {
        self.resource.api_version(&self.version)
    }

    pub(crate) fn schema(&self) -> std::sync::Arc<Schema> {
        self.resource.version(&self.version).map(|v| v.schema.clone()).unwrap_or_default()
    }

    pub(crate) fn has_status(&self) -> bool {
        self.resource.version(&self.version).is_some_and(|v| v.status)
    }
}

/// Brings a body into the shape of its kind: types are checked, unknown fields go.
///
/// Returns the warnings that the client asked for.
pub(crate) fn decode(
    target: &Target,
    metadata: &Schema,
    value: &mut Value,
    validation: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    let kind = &target.resource.kind;
    let cannot = |why: &str| {
        ApiError::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {why}", target.version))
    };
    let Some(object) = value.as_object_mut() else {
        return Err(cannot("the object must be a JSON object"));
    };
    check_identity(target, object)?;
    let schema = target.schema();
    let unknown = if target.resource.is_custom() {
        let own = object.entry("metadata").or_insert_with(|| json!({}));
        if own.is_null() {
            *own = json!({});
        }
        let found = coerce(metadata, own);
        if let Some(why) = found.error {
            return Err(cannot(&format!("metadata.{why}")));
        }
        let mut unknown: Vec<_> = found.unknown.into_iter().map(|path| format!("metadata.{path}")).collect();
        unknown.extend(prune(&schema, value));
        unknown
    } else {
        let found = coerce(&schema, value);
        if let Some(why) = found.error {
            return Err(cannot(&why));
        }
        found.unknown
    };
    let notes: Vec<_> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(notes),
        FieldValidation::Strict if notes.is_empty() => Ok(notes),
        FieldValidation::Strict => {
            let list = notes.join(", ");
            Err(cannot(&format!("strict decoding error: {list}")))
        }
    }
}

fn check_identity(target: &Target, object: &mut serde_json::Map<String, Value>) -> Result<(), ApiError> {
    for (key, wanted, what) in
        [("apiVersion", target.api_version(), "API version"), ("kind", target.resource.kind.clone(), "kind")]
    {
        match object.get(key).and_then(Value::as_str).unwrap_or_default() {
            "" => {
                object.insert(key.to_owned(), wanted.into());
            }
            found if found == wanted => {}
            found => {
                return Err(ApiError::bad_request(format!(
                    "the {what} in the data ({found}) does not match the expected {what} ({wanted})"
                )));
            }
        }
    }
    Ok(())
}

/// Fills in what the object leaves open.
fn fill(target: &Target, object: &mut Value) {
    if target.resource.is_custom() {
        apply_defaults(&target.schema(), object);
    } else {
        defaults::fill(target.resource.strategy, object);
    }
}

/// Checks an object as a whole.
fn check(target: &Target, object: &Value) -> Vec<FieldError> {
    let mut errors = check_metadata(&target.resource, object);
    if target.resource.is_custom() {
        errors.extend(validate(&target.schema(), object));
    } else {
        errors.extend(check_kind(target.resource.strategy, object));
    }
    errors
}

/// What controllers of a real cluster would write into a new or changed object.
fn control(resource: &Resource, object: &mut Value, now: jiff::Timestamp) {
    if resource.strategy == Strategy::Definition {
        definition::settle(object, now);
    }
}

/// Objects that are nested deeper are refused: readers of JSON, ours included, give up at 128.
const DEPTH_LIMIT: usize = 100;

/// Refuses an object that many small patches have made too large or too deep. An error drops the whole change.
fn limit(object: &super::store::Object) -> Result<(), ApiError> {
    if object.json.len() > BODY_LIMIT {
        return Err(ApiError::too_large(BODY_LIMIT));
    }
    if depth(&object.json) > DEPTH_LIMIT {
        return Err(ApiError::bad_request(format!("the object is nested deeper than {DEPTH_LIMIT} levels")));
    }
    Ok(())
}

/// How deep a JSON text is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// An instant as Kubernetes writes it: to the second.
pub(crate) fn seconds(now: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// An object's metadata, made a map if it is not one.
pub(crate) fn metadata(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let slot = &mut object["metadata"];
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(map) => map,
        // It was just made one.
        _ => unreachable!(),
    }
}
