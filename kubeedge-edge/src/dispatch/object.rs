//! The little that must be known of an object to store it.

use bytes::Bytes;
use kubeedge_core::{
    message::Message,
    meta::{MetaKey, Record},
    names::{ResourceVersion, Uid},
};
use serde::Deserialize;

/// An object of Kubernetes as it came, and who it is.
pub(super) struct Object {
    json: Bytes,
    uid: Option<Uid>,
    version: Option<ResourceVersion>,
}

/// Content without the shape of an object.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAnObject {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("it is empty")]
    Empty,
}

#[derive(Deserialize)]
struct Identity {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl Object {
    /// Reads the content of `message`; a string that holds JSON counts as that JSON.
    pub(super) fn read(message: &Message) -> Result<Self, NotAnObject> {
        if message.content.is_null() {
            return Err(NotAnObject::Empty);
        }
        let json = match message.content.as_text() {
            Some(text) => Bytes::from(text),
            None => Bytes::copy_from_slice(message.content.as_json().as_bytes()),
        };
        let Identity { metadata } = serde_json::from_slice(&json)?;
        let of_object = metadata.resource_version.and_then(|version| version.parse().ok());
        let uid = metadata.uid.and_then(|uid| Uid::new(uid).ok());
        Ok(Self { json, uid, version: of_object.or(message.resource_version) })
    }

    /// Whether there is nothing in it that `stored` does not have.
    pub(super) fn is_known_by(&self, stored: &Record) -> bool {
        if self.uid.is_none() || self.uid != stored.uid {
            return false;
        }
        match (self.version, stored.version) {
            (Some(new), Some(old)) if new < old => true,
            // Objects that the cloud makes up have a version that stays; then the content counts.
            (new, old) => new == old && self.json == stored.value,
        }
    }

    pub(super) fn record(&self, key: MetaKey) -> Record {
        let mut record = Record::new(key, self.json.clone());
        (record.uid, record.version) = (self.uid.clone(), self.version);
        record
    }
}

/// UID of the object that is to be deleted, if the message tells.
pub(super) fn uid(message: &Message) -> Option<Uid> {
    let Identity { metadata } = message.content.parse().ok()?;
    metadata.uid.and_then(|uid| Uid::new(uid).ok())
}
