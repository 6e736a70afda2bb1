//! Answers other than objects: `metav1.Status` with its reasons, details and causes.

use std::fmt;

use http::StatusCode;
use serde_json::{Value, json};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    reason: &'static str,
    field: String,
    message: String,
}

impl FieldError {
    fn new(reason: &'static str, field: &str, message: String) -> Self {
        let field = if field.is_empty() { "<nil>" } else { field }.to_owned();
        Self { reason, field, message }
    }

    pub(crate) fn invalid(field: &str, value: &Value, why: &str) -> Self {
        Self::new("FieldValueInvalid", field, format!("Invalid value: {}: {why}", shown(value)))
    }

    pub(crate) fn type_invalid(field: &str, value: &Value, why: &str) -> Self {
        Self::new("FieldValueTypeInvalid", field, format!("Invalid value: {}: {why}", shown(value)))
    }

    pub(crate) fn required(field: &str) -> Self {
        Self::new("FieldValueRequired", field, "Required value".to_owned())
    }

    pub(crate) fn duplicate(field: &str, value: &Value) -> Self {
        Self::new("FieldValueDuplicate", field, format!("Duplicate value: {}", shown(value)))
    }

    pub(crate) fn forbidden(field: &str, why: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
    }

    pub(crate) fn not_supported(field: &str, value: &Value, allowed: &[Value]) -> Self {
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), allowed.join(", "));
        Self::new("FieldValueNotSupported", field, message)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A value as shown in a message: short.
fn shown(value: &Value) -> String {
    const MOST: usize = 200;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Which object or resource an error is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) group: String,
    /// The plural name, or the kind for invalid objects.
    pub(crate) resource: String,
    pub(crate) name: String,
}

impl Subject {
    /// `devices.devices.kubeedge.io "boiler"`.
    fn qualified(&self) -> String {
        match (self.group.is_empty(), self.name.is_empty()) {
            (true, true) => self.resource.clone(),
            (false, true) => format!("{}.{}", self.resource, self.group),
            (true, false) => format!("{} {:?}", self.resource, self.name),
            (false, false) => format!("{}.{} {:?}", self.resource, self.group, self.name),
        }
    }
}

#[derive(Debug)]
struct Cause {
    reason: String,
    message: String,
    field: String,
}

/// An error answer.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Failure>);

#[derive(Debug)]
struct Failure {
    code: StatusCode,
    reason: &'static str,
    message: String,
    subject: Subject,
    causes: Vec<Cause>,
    retry_after: Option<u32>,
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let (subject, causes) = (Subject::default(), Vec::new());
        Self(Box::new(Failure { code, reason, message, subject, causes, retry_after: None }))
    }

    fn about(mut self, subject: Subject) -> Self {
        self.0.subject = subject;
        self
    }

    fn because(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        self.0.causes.push(Cause { reason: reason.to_owned(), message: message.into(), field: field.to_owned() });
        self
    }

    pub(crate) fn code(&self) -> StatusCode {
        self.0.code
    }

    pub(crate) fn retry_after(&self) -> Option<u32> {
        self.0.retry_after
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn forbidden(subject: Subject, why: &str) -> Self {
        let message = format!("{} is forbidden: {why}", subject.qualified());
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(subject)
    }

    pub(crate) fn namespace_terminating(subject: Subject, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        Self::forbidden(subject, &why).because(
            "NamespaceTerminating",
            format!("namespace {namespace} is being terminated"),
            "metadata.namespace",
        )
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn not_found(subject: Subject) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} not found", subject.qualified())).about(subject)
    }

    pub(crate) fn already_exists(subject: Subject) -> Self {
        Self::new(StatusCode::CONFLICT, "AlreadyExists", format!("{} already exists", subject.qualified()))
            .about(subject)
    }

    pub(crate) fn conflict(subject: Subject, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {}: {why}", subject.qualified());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(subject)
    }

    pub(crate) fn modified(subject: Subject) -> Self {
        const WHY: &str = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(subject, WHY)
    }

    /// Fields owned by other managers: `(manager, field)` pairs.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let plural = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
        let list: Vec<_> = conflicts.iter().map(|(m, f)| format!("conflict with {m:?}: {f}")).collect();
        let message = format!("Apply failed with {} {plural}: {}", conflicts.len(), list.join("; "));
        let mut error = Self::new(StatusCode::CONFLICT, "Conflict", message);
        for (manager, field) in conflicts {
            error = error.because("FieldManagerConflict", format!("conflict with {manager:?}"), field);
        }
        error
    }

    pub(crate) fn invalid(subject: Subject, errors: &[FieldError]) -> Self {
        let list: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let list = if list.len() == 1 { list.join("") } else { format!("[{}]", list.join(", ")) };
        let message = format!("{} is invalid: {list}", subject.qualified());
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(subject);
        for e in errors {
            error = error.because(e.reason, &e.message, &e.field);
        }
        error
    }

    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    pub(crate) fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(crate) fn not_acceptable(offered: &str) -> Self {
        let message = format!("only the following media types are accepted: {offered}");
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub(crate) fn unsupported_media_type(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// The version asked for is no longer in the history.
    pub(crate) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(StatusCode::GONE, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    pub(crate) fn continue_expired() -> Self {
        const WHY: &str = "the provided continue parameter is too old to display a consistent list result; \
            start a new list without the continue parameter";
        Self::new(StatusCode::GONE, "Expired", WHY)
    }

    /// The version asked for lies in the future.
    pub(crate) fn version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut error = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).because(
            "ResourceVersionTooLarge",
            "Too large resource version",
            "",
        );
        error.0.retry_after = Some(1);
        error
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        error.0.retry_after = Some(1);
        error
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let message = format!("Internal error occurred: {}", message.into());
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// The error as a `metav1.Status`.
    pub(crate) fn status(&self) -> Value {
        let Failure { code, reason, message, subject, causes, retry_after } = &*self.0;
        let mut details = details(subject);
        if !causes.is_empty() {
            details["causes"] = causes
                .iter()
                .map(|c| {
                    let mut cause = json!({"reason": c.reason, "message": c.message});
                    if !c.field.is_empty() {
                        cause["field"] = c.field.as_str().into();
                    }
                    cause
                })
                .collect();
        }
        if let Some(seconds) = retry_after {
            details["retryAfterSeconds"] = (*seconds).into();
        }
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason, "details": details, "code": code.as_u16()})
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

fn details(subject: &Subject) -> Value {
    let mut details = json!({});
    for (key, value) in [("name", &subject.name), ("group", &subject.group), ("kind", &subject.resource)] {
        if !value.is_empty() {
            details[key] = value.as_str().into();
        }
    }
    details
}

/// The answer to a delete that is done.
pub(crate) fn success(subject: &Subject, uid: &str) -> Value {
    let mut details = details(subject);
    if !uid.is_empty() {
        details["uid"] = uid.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
