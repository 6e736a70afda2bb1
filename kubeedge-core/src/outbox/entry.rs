use std::{fmt, sync::Arc};

use crate::{
    meta::{Collection, MetaKey},
    names::{DeviceId, InvalidName, Namespace, ObjectName},
};

/// What an entry of state is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// A subject of an embedder's own, such as `vendor/battery`.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(InvalidName::new("subject", text, "must not be empty"));
        }
        Ok(Self(text.into()))
    }

    /// The twin of a device.
    pub fn twin(device: &DeviceId) -> Self {
        Self(format!("twin/{device}").into())
    }

    /// The state of a device.
    pub fn device_state(device: &DeviceId) -> Self {
        Self(format!("state/{device}").into())
    }

    /// The status of a pod.
    pub fn pod_status(namespace: &Namespace, name: &ObjectName) -> Self {
        Self(format!("podstatus/{namespace}/{name}").into())
    }

    /// That nothing of a pod runs any more.
    pub fn pod_deletion(namespace: &Namespace, name: &ObjectName) -> Self {
        Self(format!("poddelete/{namespace}/{name}").into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stream of entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream(Arc<str>);

impl Stream {
    /// A stream of an embedder's own.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty or has a slash.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
        let name = name.as_ref();
        if name.is_empty() || name.contains('/') {
            return Err(InvalidName::new("stream", name, "must be one path segment"));
        }
        Ok(Self(name.into()))
    }

    /// Events of pods and of the node.
    pub fn events() -> Self {
        Self("event".into())
    }

    /// What rules and MQTT applications send to the cloud.
    pub fn uploads() -> Self {
        Self("upload".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Place of an entry in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Asks for the next place, whatever has to go for it. It sorts behind all others.
    pub(crate) const NEXT: Self = Self(u64::MAX);
    /// Asks for the next place if there is room.
    pub(crate) const NEXT_IF_ROOM: Self = Self(u64::MAX - 1);
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All digits, so that the order of keys is the order of numbers.
        write!(f, "{:020}", self.0)
    }
}

/// Which entry a key of the outbox names. State sorts before streams, and streams by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Entry {
    /// The one about a subject.
    State(Subject),
    /// One of a stream.
    Stream(Stream, Sequence),
}

impl Entry {
    /// The entry that `key` names; `None` if it is no key of the outbox.
    pub fn of(key: &MetaKey) -> Option<Self> {
        if !key.collection.is_outbox() {
            return None;
        }
        if key.namespace.is_empty() {
            return Some(Self::State(Subject(Arc::clone(&key.name))));
        }
        let digits = key.name.len() == 20 && key.name.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| key.name.parse().ok()).flatten()?;
        Some(Self::Stream(Stream(Arc::clone(&key.namespace)), Sequence(number)))
    }

    /// Its key.
    pub fn key(&self) -> MetaKey {
        match self {
            Self::State(subject) => MetaKey::new(Collection::outbox(), "", Arc::clone(&subject.0)),
            Self::Stream(stream, sequence) => {
                MetaKey::new(Collection::outbox(), Arc::clone(&stream.0), sequence.to_string())
            }
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(subject) => subject.fmt(f),
            Self::Stream(stream, sequence) => write!(f, "{stream}/{}", sequence.0),
        }
    }
}
