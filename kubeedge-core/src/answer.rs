//! Answers of the cloud to requests of the edge, in the shapes that Go programs understand.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::message::{Content, ContentError};

/// A failure as the Kubernetes API tells it (`metav1.Status`), cut to what callers use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(default)]
pub struct ApiStatus {
    metadata: Empty,
    /// Always `Failure` here.
    pub status: String,
    /// What went wrong, for people.
    pub message: String,
    /// What went wrong, for programs: `NotFound`, `AlreadyExists`, `Conflict`, ...
    pub reason: String,
    /// HTTP status code.
    pub code: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Empty {}

impl ApiStatus {
    /// A failure.
    pub fn failure(code: u16, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { metadata: Empty {}, status: "Failure".into(), message: message.into(), reason: reason.into(), code }
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason == "NotFound" || self.code == 404
    }

    /// Whether the object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }
}

#[derive(Serialize, Deserialize)]
struct ErrorBody {
    #[serde(rename = "ErrStatus", default)]
    status: Option<ApiStatus>,
}

/// Upstream: `common/types/types.go` (`ObjectResp`); both keys must exist.
#[derive(Serialize)]
struct ObjectRespOut<'a> {
    #[serde(rename = "Object")]
    object: Option<&'a RawValue>,
    #[serde(rename = "Err")]
    err: Option<ErrorBody>,
}

/// Raw values, so that a key with `null` can be told from one that is not there.
#[derive(Deserialize)]
struct ObjectRespIn {
    #[serde(rename = "Object")]
    object: Box<RawValue>,
    #[serde(rename = "Err")]
    err: Box<RawValue>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Done, with nothing to tell.
    Done,
    /// Done, and this is the object.
    Object(Content),
    /// Not done, and why.
    Refused(ApiStatus),
}

impl Answer {
    /// Reads any of the forms: `"OK"`, `{"Object":..,"Err":..}`, a bare `{"ErrStatus":..}`, `{}` (an error whose text
    /// Go lost), or the object itself.
    ///
    /// The text of a refusal is cut to 1 KiB: it goes into logs.
    pub fn read(content: &Content) -> Self {
        let mut answer = Self::read_form(content);
        if let Self::Refused(status) = &mut answer {
            status.message.truncate(status.message.floor_char_boundary(1024));
        }
        answer
    }

    fn read_form(content: &Content) -> Self {
        if content.is_ok() || content.is_null() {
            return Self::Done;
        }
        if let Ok(answer) = content.parse::<ObjectRespIn>() {
            return match (answer.err.get(), answer.object.get()) {
                ("null", "null") => Self::Done,
                ("null", _) => Self::Object(Content::raw(answer.object)),
                _ => Self::Refused(read_error(&answer.err)),
            };
        }
        match content.parse::<ErrorBody>() {
            Ok(ErrorBody { status: Some(status) }) => Self::Refused(status),
            _ if content.as_json().trim() == "{}" => Self::Refused(unknown_error()),
            _ => Self::Object(content.clone()),
        }
    }

    /// Writes the form with both keys, which answers to writes of nodes, pods and leases have.
    ///
    /// # Errors
    /// Never for content that was parsed; the conversion to JSON is checked all the same.
    pub fn to_object_resp(&self) -> Result<Content, ContentError> {
        let (object, err) = match self {
            Self::Done => (None, None),
            Self::Object(object) => (Some(object.as_raw()), None),
            Self::Refused(status) => (None, Some(ErrorBody { status: Some(status.clone()) })),
        };
        Content::json(&ObjectRespOut { object, err })
    }

    /// Writes the bare form, which answers to queries have.
    ///
    /// # Errors
    /// As for [`Answer::to_object_resp`].
    pub fn to_bare(&self) -> Result<Content, ContentError> {
        match self {
            Self::Done => Ok(Content::ok()),
            Self::Object(object) => Ok(object.clone()),
            Self::Refused(status) => Content::json(&ErrorBody { status: Some(status.clone()) }),
        }
    }
}

fn unknown_error() -> ApiStatus {
    ApiStatus::failure(500, "Unknown", "the cloud failed without saying why")
}

fn read_error(raw: &RawValue) -> ApiStatus {
    match serde_json::from_str::<ErrorBody>(raw.get()) {
        Ok(ErrorBody { status: Some(status) }) => status,
        // A transport error of the Go program (`{"Op":..,"URL":..,"Err":..}`) or an empty object.
        _ if raw.get().trim() == "{}" => unknown_error(),
        _ => ApiStatus::failure(503, "ServiceUnavailable", raw.get().chars().take(256).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(json: &str) -> Answer {
        Answer::read(&Content::raw(RawValue::from_string(json.into()).unwrap()))
    }

    #[test]
    fn every_recorded_form_is_understood() {
        assert_eq!(read(r#""OK""#), Answer::Done);
        assert!(matches!(read(r#"{"Object":{"kind":"Pod"},"Err":null}"#), Answer::Object(_)));
        assert!(matches!(read(r#"{"kind":"ConfigMap"}"#), Answer::Object(_)));
        let missing =
            r#"{"ErrStatus":{"metadata":{},"status":"Failure","message":"x","reason":"NotFound","code":404}}"#;
        let Answer::Refused(status) = read(missing) else { panic!("taken for success") };
        assert!(status.is_not_found());
        let wrapped = format!(r#"{{"Object":null,"Err":{missing}}}"#);
        assert!(matches!(read(&wrapped), Answer::Refused(status) if status.is_not_found()));
    }

    /// Go edges took these for success and went on with an empty lease for ever.
    #[test]
    fn errors_without_a_status_are_still_errors() {
        assert!(matches!(
            read(r#"{"Object":{"metadata":{}},"Err":{"Op":"Put","URL":"u","Err":{}}}"#),
            Answer::Refused(_)
        ));
        assert!(matches!(read(r#"{"Object":null,"Err":{}}"#), Answer::Refused(_)));
        assert!(matches!(read("{}"), Answer::Refused(_)));
    }

    #[test]
    fn the_text_of_a_refusal_has_an_end() {
        let endless = Answer::Refused(ApiStatus::failure(500, "InternalError", "\u{e9}".repeat(1 << 20)));
        let Answer::Refused(status) = Answer::read(&endless.to_bare().unwrap()) else { panic!("taken for success") };
        assert_eq!(status.message.len(), 1024);
    }

    #[test]
    fn answers_are_written_as_go_reads_them() {
        let refused = Answer::Refused(ApiStatus::failure(409, "AlreadyExists", "there"));
        let json = refused.to_object_resp().unwrap();
        assert!(json.as_json().starts_with(r#"{"Object":null,"Err":{"ErrStatus":{"metadata":{},"status":"Failure""#));
        assert_eq!(Answer::read(&json), refused);
        assert_eq!(Answer::read(&refused.to_bare().unwrap()), refused);
    }
}
