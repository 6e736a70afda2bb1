//! Identifiers of the field as types: parsed once at the border, trusted afterwards.

use std::{fmt, num::NonZeroU64, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A text that is not the identifier that it was taken for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} {why}")]
pub struct InvalidName {
    what: &'static str,
    value: String,
    why: &'static str,
}

impl InvalidName {
    pub(crate) fn new(what: &'static str, value: &str, why: &'static str) -> Self {
        // Hostile input may be long: the message carries no more than a line of it.
        let value = value.chars().take(128).collect();
        Self { what, value, why }
    }
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Parses ", $what, ".")]
            ///
            /// # Errors
            /// [`InvalidName`] names the value and the rule that it breaks.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
                let text = text.as_ref();
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(why) => Err(InvalidName::new($what, text, why)),
                }
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

fn dns_subdomain(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 253 {
        return Err("must have 1 to 253 characters");
    }
    let label_ok = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if text.split('.').all(label_ok) { Ok(()) } else { Err("must be a lower-case DNS subdomain") }
}

fn path_segment(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 253 {
        return Err("must have 1 to 253 characters");
    }
    if text.bytes().any(|b| b == b'/' || b.is_ascii_control()) {
        return Err("must not contain a slash or a control character");
    }
    Ok(())
}

fn short_text(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 253 { Err("must have 1 to 253 characters") } else { Ok(()) }
}

text_newtype!(
    /// Name of a Kubernetes node, a lower-case DNS subdomain.
    NodeName, "node name", dns_subdomain
);
text_newtype!(
    /// Kubernetes namespace of an object.
    Namespace, "namespace", path_segment
);
text_newtype!(
    /// Name of a Kubernetes object within its namespace: a path segment, as the API server demands of every name.
    ObjectName, "object name", path_segment
);
text_newtype!(
    /// UID that Kubernetes gave an object: the identity that outlives a name.
    Uid, "uid", short_text
);
text_newtype!(
    /// Name of a property of a device, as the device model spells it.
    PropertyName, "property name", short_text
);
text_newtype!(
    /// Id of a message on the channel, normally a UUID v4 in lower-case hyphenated text.
    MessageId, "message id", short_text
);

impl MessageId {
    /// A fresh random id.
    pub fn random() -> Self {
        let mut text = uuid::Uuid::encode_buffer();
        Self(Arc::from(&*uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text)))
    }
}

/// Version of an object in the Kubernetes API. KubeEdge compares versions as unsigned decimal numbers, so this is one.
///
/// Upstream: `cloud/pkg/cloudhub/common` (comparison of `resourceVersion`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(NonZeroU64);

impl ResourceVersion {
    /// A version from its number; `None` for zero, which Kubernetes never gives to an object.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0.into()
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ResourceVersion {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| InvalidName::new("resource version", text, "must be a positive decimal number"))
    }
}

/// `<namespace>/<name>` of a device, the id that MQTT topics and the channel carry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId {
    namespace: Namespace,
    name: ObjectName,
}

impl DeviceId {
    /// The id of the device `name` in `namespace`.
    pub fn new(namespace: Namespace, name: ObjectName) -> Self {
        Self { namespace, name }
    }

    /// Parses the two segments.
    ///
    /// # Errors
    /// [`InvalidName`] if either is not a path segment.
    pub fn parse(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self { namespace: Namespace::new(namespace)?, name: ObjectName::new(name)? })
    }

    /// Namespace of the Device object.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Name of the Device object.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for DeviceId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::parse(namespace, name),
            None => Err(InvalidName::new("device id", text, "must be <namespace>/<name>")),
        }
    }
}

impl TryFrom<String> for DeviceId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.to_string()
    }
}

/// A point in time as the wire has it: milliseconds since the Unix epoch, may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The time of `clock`, cut to milliseconds.
    pub fn from_system(clock: std::time::SystemTime) -> Self {
        let millis = match clock.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
        };
        Self(millis)
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells the wall-clock time. The embedder chooses it; the reference binaries pass [`SystemClock`].
pub trait WallClock: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> UnixMillis;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis::from_system(std::time::SystemTime::now())
    }
}

/// A clock shared by the parts of a node.
pub type SharedClock = Arc<dyn WallClock>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_say_what_is_wrong_with_them() {
        let err = NodeName::new("Edge_1").unwrap_err();
        assert_eq!(err.to_string(), "node name \"Edge_1\" must be a lower-case DNS subdomain");
        assert!(NodeName::new("edge-1.site.example").is_ok());
        assert!(ObjectName::new("a/b").is_err());
        assert!("default".parse::<DeviceId>().is_err());
        assert!("a/b/c".parse::<DeviceId>().is_err());
        assert_eq!("device/events".parse::<DeviceId>().unwrap().to_string(), "device/events");
    }

    #[test]
    fn resource_versions_compare_as_numbers() {
        let nine: ResourceVersion = "9".parse().unwrap();
        let ten: ResourceVersion = "10".parse().unwrap();
        assert!(nine < ten);
        assert!("0".parse::<ResourceVersion>().is_err());
        assert!("ten".parse::<ResourceVersion>().is_err());
        assert!("-1".parse::<ResourceVersion>().is_err());
    }
}
