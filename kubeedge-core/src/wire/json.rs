//! One JSON object per text message: the form of the WebSocket.
//!
//! Upstream: `staging/src/github.com/kubeedge/beehive/pkg/core/model/message.go`.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;

use crate::{
    message::{Content, Message},
    names::{InvalidName, MessageId, UnixMillis},
    resource::Resource,
    words::{Group, Operation, Source},
};

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not JSON, or a member has the wrong type.
    #[error("message is not a KubeEdge message in JSON")]
    Json(#[from] serde_json::Error),
    /// A member has a value that it cannot have.
    #[error("message has a bad {member}")]
    Value {
        /// The member of the message.
        member: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidName,
    },
}

#[derive(Serialize, Deserialize, Default)]
struct Frame<'a> {
    #[serde(borrow, default, deserialize_with = "object")]
    header: Header<'a>,
    #[serde(borrow, default, deserialize_with = "object")]
    route: Route<'a>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Header<'a> {
    #[serde(borrow)]
    msg_id: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    parent_msg_id: Cow<'a, str>,
    timestamp: i64,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    resourceversion: Cow<'a, str>,
    /// Never true on the channel; a type check all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sync: bool,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Route<'a> {
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    source: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    group: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    operation: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    resource: Cow<'a, str>,
}

/// Reads an object, or nothing from `null`. Serde would take an array for an object whose members come in order.
fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    match <&RawValue>::deserialize(deserializer)?.get() {
        "null" => Ok(T::default()),
        object if object.starts_with('{') => serde_json::from_str(object).map_err(D::Error::custom),
        _ => Err(D::Error::custom("expected an object")),
    }
}

/// Decodes the first JSON value of `text`, as Go peers do; what follows it is ignored.
///
/// Unknown members are ignored and missing ones are empty; a message without id gets a fresh one, because nothing could
/// answer it otherwise.
///
/// # Errors
/// [`DecodeError`]; the connection that brought it should be closed.
pub fn decode(text: &str) -> Result<Message, DecodeError> {
    if !text.trim_ascii_start().starts_with('{') {
        // serde would take an array for an object whose members come in order.
        return Err(serde_json::Error::custom("expected an object").into());
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let frame = Frame::deserialize(&mut deserializer)?;
    let id = match &*frame.header.msg_id {
        "" => MessageId::random(),
        id => MessageId::new(id).map_err(|source| DecodeError::Value { member: "msg_id", source })?,
    };
    let parent = match &*frame.header.parent_msg_id {
        "" => None,
        id => Some(MessageId::new(id).map_err(|source| DecodeError::Value { member: "parent_msg_id", source })?),
    };
    let resource_version = match &*frame.header.resourceversion {
        "" | "0" => None,
        version => Some(version.parse().map_err(|source| DecodeError::Value { member: "resourceversion", source })?),
    };
    let group = Group::from_word(&frame.route.group);
    Ok(Message {
        id,
        parent,
        timestamp: UnixMillis(frame.header.timestamp),
        resource_version,
        source: Source::from_word(&frame.route.source),
        operation: Operation::from_word(&frame.route.operation),
        resource: Resource::parse(&frame.route.resource, &group),
        group,
        content: frame.content.map_or_else(Content::null, |raw| Content::raw(raw.to_owned())),
    })
}

/// Encodes `message` with the keys in Go's order and a final newline.
pub fn encode(message: &Message) -> String {
    let version = message.resource_version.map(|version| version.to_string()).unwrap_or_default();
    let resource = message.resource.to_string();
    let frame = Frame {
        header: Header {
            msg_id: message.id.as_str().into(),
            parent_msg_id: message.parent.as_ref().map_or("", MessageId::as_str).into(),
            timestamp: message.timestamp.0,
            resourceversion: version.into(),
            sync: false,
        },
        route: Route {
            source: message.source.as_str().into(),
            group: message.group.as_str().into(),
            operation: message.operation.as_str().into(),
            resource: resource.into(),
        },
        content: Some(message.content.as_raw()),
    };
    // Strings, numbers and JSON that was parsed before: this cannot fail.
    let mut text = serde_json::to_string(&frame).unwrap_or_default();
    text.push('\n');
    text
}
