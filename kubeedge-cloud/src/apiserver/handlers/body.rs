//! Bodies: JSON or YAML.

use serde_json::Value;

use crate::apiserver::{protobuf, schema::Schema, service::ApiRequest, status::ApiError};

const ACCEPTED: &str = "application/json, application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Reads the object in a body. Built-in kinds, whose schema is given, may come as protobuf too.
pub(super) fn object(request: &ApiRequest, builtin: Option<&Schema>) -> Result<Value, ApiError> {
    match (request.content_type(), builtin) {
        // Without a type, JSON is meant.
        ("" | "application/json" | "*/*", _) => json(&request.body),
        ("application/yaml" | "text/yaml" | "application/x-yaml", _) => yaml(&request.body),
        (PROTOBUF, Some(schema)) if !schema.wire.is_empty() => {
            let bad = |why| ApiError::bad_request(format!("couldn't parse the body as protobuf: {why}"));
            protobuf::decode(schema, &request.body).map_err(bad)
        }
        _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
    }
}

pub(super) fn json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("couldn't parse the body as JSON: {error}")))
}

pub(super) fn yaml(body: &[u8]) -> Result<Value, ApiError> {
    let bad = |why: String| ApiError::bad_request(format!("couldn't parse the body as YAML: {why}"));
    let text = std::str::from_utf8(body).map_err(|error| bad(error.to_string()))?;
    // It refuses what is nested deeper than 64 levels, and documents that grow by their aliases.
    serde_saphyr::from_str(text)
        .map_err(|error| bad(error.without_snippet().to_string().lines().next().unwrap_or_default().to_owned()))
}
