//! Messages of the channel, typed.

use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    names::{MessageId, ResourceVersion, UnixMillis},
    resource::Resource,
    words::{Group, Operation, Source},
};

/// A message between edge and cloud.
///
/// Upstream: `staging/src/github.com/kubeedge/beehive/pkg/core/model/message.go`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The message that it answers.
    pub parent: Option<MessageId>,
    /// When it was made.
    pub timestamp: UnixMillis,
    /// Version of the object in `content`.
    pub resource_version: Option<ResourceVersion>,
    /// Who sends it.
    pub source: Source,
    /// Whom it is for.
    pub group: Group,
    /// What is to be done.
    pub operation: Operation,
    /// With what.
    pub resource: Resource,
    /// The data.
    pub content: Content,
}

impl Message {
    /// A message with a fresh id and no content.
    pub fn new(
        now: UnixMillis,
        source: Source,
        group: Group,
        operation: Operation,
        resource: impl Into<Resource>,
    ) -> Self {
        Self {
            id: MessageId::random(),
            parent: None,
            timestamp: now,
            resource_version: None,
            source,
            group,
            operation,
            resource: resource.into(),
            content: Content::null(),
        }
    }

    /// With that content.
    pub fn content(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    /// With the version of the object in its content.
    pub fn version(mut self, version: Option<ResourceVersion>) -> Self {
        self.resource_version = version;
        self
    }

    /// As an answer to `parent`.
    pub fn answering(mut self, parent: &MessageId) -> Self {
        self.parent = Some(parent.clone());
        self
    }

    /// The acknowledgement of this message: `response` with content `"OK"`, route copied, not swapped.
    ///
    /// Upstream: `Message.NewRespByMessage`.
    pub fn acknowledgement(&self, now: UnixMillis) -> Self {
        Self::new(now, self.source.clone(), self.group.clone(), Operation::Response, self.resource.clone())
            .answering(&self.id)
            .content(Content::ok())
    }

    /// The answer that this message could not be carried out. It is not an acknowledgement: the peer tries again.
    pub fn refusal(&self, now: UnixMillis, source: Source, reason: &dyn fmt::Display) -> Self {
        Self::new(now, source, self.group.clone(), Operation::Error, self.resource.clone())
            .answering(&self.id)
            .content(Content::text(&reason.to_string()))
    }
}

/// Content of a message: one JSON value, kept as it came and cheap to clone.
#[derive(Clone)]
pub struct Content(Arc<RawValue>);

/// Content that is not what was expected there.
#[derive(Debug, thiserror::Error)]
#[error("content is not {expected}")]
pub struct ContentError {
    expected: &'static str,
    #[source]
    source: serde_json::Error,
}

impl Content {
    /// No content.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned().into())
    }

    /// The word of success, `"OK"`.
    pub fn ok() -> Self {
        Self::text("OK")
    }

    /// A JSON string.
    pub fn text(text: &str) -> Self {
        // A string always has a JSON form.
        serde_json::value::to_raw_value(text).map_or_else(|_| Self::null(), |raw| Self(raw.into()))
    }

    /// The JSON of `value`.
    ///
    /// # Errors
    /// When the value has no JSON form, such as a map with keys that are not text.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, ContentError> {
        serde_json::value::to_raw_value(value)
            .map(|raw| Self(raw.into()))
            .map_err(|source| ContentError { expected: "expressible as JSON", source })
    }

    /// JSON that is already text.
    pub fn raw(raw: Box<RawValue>) -> Self {
        Self(raw.into())
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }

    pub(crate) fn as_raw(&self) -> &RawValue {
        &self.0
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.as_json() == "null"
    }

    /// Whether it is the word of success.
    pub fn is_ok(&self) -> bool {
        self.as_json() == r#""OK""#
    }

    /// The text, if it is a JSON string.
    pub fn as_text(&self) -> Option<String> {
        self.as_json().starts_with('"').then(|| serde_json::from_str(self.as_json()).ok()).flatten()
    }

    /// Parses it. A string that holds JSON counts as that JSON, as every KubeEdge peer reads it.
    ///
    /// # Errors
    /// [`ContentError`] with the place of the fault.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ContentError> {
        let parsed = match self.as_text() {
            Some(text) => serde_json::from_str(&text),
            None => serde_json::from_str(self.as_json()),
        };
        parsed.map_err(|source| ContentError { expected: std::any::type_name::<T>(), source })
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Content {}

impl Default for Content {
    fn default() -> Self {
        Self::null()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        match self.as_json() {
            json if json.len() <= SHOWN => f.write_str(json),
            json => {
                write!(f, "{}... ({} bytes)", json.get(..json.floor_char_boundary(SHOWN)).unwrap_or(""), json.len())
            }
        }
    }
}
