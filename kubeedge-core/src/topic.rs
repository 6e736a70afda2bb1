//! MQTT topics and filters, and the device topics of KubeEdge as an enum.

use std::{fmt, str::FromStr, sync::Arc};

use crate::names::{DeviceId, InvalidName, NodeName};

/// Longest topic or filter, by the MQTT standard.
const MAX_LEN: usize = 65_535;

fn checked(what: &'static str, text: &str) -> Result<Arc<str>, InvalidName> {
    if text.is_empty() || text.len() > MAX_LEN {
        return Err(InvalidName::new(what, text, "must have 1 to 65535 bytes"));
    }
    if text.contains('\0') {
        return Err(InvalidName::new(what, text, "must not contain a null character"));
    }
    Ok(text.into())
}

/// A topic that can be published to: not empty and without wildcards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Parses a topic.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty, too long, or has a wildcard or a null character.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
        let text = text.as_ref();
        if text.contains(['+', '#']) {
            return Err(InvalidName::new("topic", text, "must not contain a wildcard"));
        }
        checked("topic", text).map(Self)
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Topic {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

/// A filter of topics, with `+` for one level and a last `#` for the rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// Parses a filter.
    ///
    /// # Errors
    /// [`InvalidName`] when a wildcard does not stand alone in its level, or `#` is not last.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
        let text = text.as_ref();
        let filter = checked("topic filter", text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains(['+', '#']) && level.len() != 1 {
                return Err(InvalidName::new("topic filter", text, "has a wildcard beside other characters"));
            }
            if level == "#" && levels.peek().is_some() {
                return Err(InvalidName::new("topic filter", text, "has '#' before its end"));
            }
        }
        Ok(Self(filter))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `topic` passes. A leading wildcard never matches a topic that starts with `$` (MQTT 3.1.1, 4.7.2).
    pub fn matches(&self, topic: &Topic) -> bool {
        if topic.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.0.split('/');
        let mut wanted = self.0.split('/');
        loop {
            match (wanted.next(), levels.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(want), Some(level)) if want == level => {}
                _ => return false,
            }
        }
    }
}

impl TopicFilter {
    /// Whether every topic that passes `other` passes this one, too.
    pub fn covers(&self, other: &Self) -> bool {
        if other.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut wanted = other.0.split('/');
        let mut allowed = self.0.split('/');
        loop {
            match (allowed.next(), wanted.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(level)) if level != "#" => {}
                (Some(allowed), Some(level)) if allowed == level => {}
                _ => return false,
            }
        }
    }
}

impl From<Topic> for TopicFilter {
    fn from(topic: Topic) -> Self {
        Self(topic.0)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TopicFilter {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

/// The device and membership topics of KubeEdge.
///
/// Parsed by segments, so that namespaces such as `device` or `events` work, unlike upstream.
///
/// Upstream: `edge/pkg/devicetwin/dtcommon`, `edge/pkg/eventbus/common`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceTopic {
    /// An application asks for the twin.
    TwinGet(DeviceId),
    /// The twin, or an error.
    TwinGetResult(DeviceId),
    /// An application changes the twin.
    TwinUpdate(DeviceId),
    /// What changed, or an error.
    TwinUpdateResult(DeviceId),
    /// Last and current values of what changed.
    TwinUpdateDocument(DeviceId),
    /// Desired values that the device has not reached.
    TwinUpdateDelta(DeviceId),
    /// The cloud changed the twin.
    TwinCloudUpdated(DeviceId),
    /// An application reports the state of the device.
    StateUpdate(DeviceId),
    /// The new state.
    StateUpdateResult(DeviceId),
    /// An application commands the device; see [`command`](crate::device::command). Ours.
    Command(DeviceId),
    /// What came of it.
    CommandResult(DeviceId),
    /// An application asks for the devices of the node.
    MembershipGet(NodeName),
    /// The devices of the node.
    MembershipGetResult(NodeName),
    /// Devices were added or removed.
    MembershipUpdated(NodeName),
}

impl DeviceTopic {
    /// The topic as published.
    pub fn topic(&self) -> Topic {
        Topic(self.to_string().into())
    }

    /// Recognises a topic; `None` for any other.
    pub fn parse(topic: &Topic) -> Option<Self> {
        let rest = topic.as_str().strip_prefix("$hw/events/")?;
        if let Some(device) = rest.strip_prefix("device/") {
            let (namespace, rest) = device.split_once('/')?;
            let (name, rest) = rest.split_once('/')?;
            let id = DeviceId::parse(namespace, name).ok()?;
            return Some(match rest {
                "twin/get" => Self::TwinGet(id),
                "twin/get/result" => Self::TwinGetResult(id),
                "twin/update" => Self::TwinUpdate(id),
                "twin/update/result" => Self::TwinUpdateResult(id),
                "twin/update/document" => Self::TwinUpdateDocument(id),
                "twin/update/delta" => Self::TwinUpdateDelta(id),
                "twin/cloud_updated" => Self::TwinCloudUpdated(id),
                "state/update" => Self::StateUpdate(id),
                "state/update/result" => Self::StateUpdateResult(id),
                "command" => Self::Command(id),
                "command/result" => Self::CommandResult(id),
                _ => return None,
            });
        }
        let (node, rest) = rest.strip_prefix("node/")?.split_once('/')?;
        let node = NodeName::new(node).ok()?;
        Some(match rest {
            "membership/get" => Self::MembershipGet(node),
            "membership/get/result" => Self::MembershipGetResult(node),
            "membership/updated" => Self::MembershipUpdated(node),
            _ => return None,
        })
    }
}

impl fmt::Display for DeviceTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scope, id, rest): (_, &dyn fmt::Display, _) = match self {
            Self::TwinGet(id) => ("device", id, "twin/get"),
            Self::TwinGetResult(id) => ("device", id, "twin/get/result"),
            Self::TwinUpdate(id) => ("device", id, "twin/update"),
            Self::TwinUpdateResult(id) => ("device", id, "twin/update/result"),
            Self::TwinUpdateDocument(id) => ("device", id, "twin/update/document"),
            Self::TwinUpdateDelta(id) => ("device", id, "twin/update/delta"),
            Self::TwinCloudUpdated(id) => ("device", id, "twin/cloud_updated"),
            Self::StateUpdate(id) => ("device", id, "state/update"),
            Self::StateUpdateResult(id) => ("device", id, "state/update/result"),
            Self::Command(id) => ("device", id, "command"),
            Self::CommandResult(id) => ("device", id, "command/result"),
            Self::MembershipGet(node) => ("node", node, "membership/get"),
            Self::MembershipGetResult(node) => ("node", node, "membership/get/result"),
            Self::MembershipUpdated(node) => ("node", node, "membership/updated"),
        };
        write!(f, "$hw/events/{scope}/{id}/{rest}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        TopicFilter::new(filter).unwrap().matches(&Topic::new(topic).unwrap())
    }

    #[test]
    fn filters_match_as_mqtt_says() {
        assert!(matches("a/+/c", "a/b/c"));
        assert!(matches("a/#", "a"));
        assert!(matches("a/#", "a/b/c"));
        assert!(matches("/+", "/a"));
        assert!(!matches("+", "/a"));
        assert!(!matches("a/+", "a"));
        assert!(!matches("a/b", "a/b/c"));
        assert!(!matches("#", "$hw/events/x"));
        assert!(!matches("+/events/x", "$hw/events/x"));
        assert!(matches("$hw/#", "$hw/events/x"));
    }

    #[test]
    fn malformed_topics_and_filters_are_refused() {
        for bad in ["", "a/+", "#", "a\0b"] {
            assert!(Topic::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a+/b", "a/#/b", "a#"] {
            assert!(TopicFilter::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn device_topics_survive_any_namespace() {
        for namespace in ["default", "device", "events", "hw", "e", "node", "twin"] {
            let id = DeviceId::parse(namespace, "boiler").unwrap();
            let topic = DeviceTopic::TwinUpdate(id.clone());
            assert_eq!(DeviceTopic::parse(&topic.topic()), Some(topic));
            let topic = DeviceTopic::StateUpdateResult(id);
            assert_eq!(DeviceTopic::parse(&topic.topic()), Some(topic));
        }
        let members = DeviceTopic::MembershipGet(NodeName::new("node").unwrap());
        assert_eq!(DeviceTopic::parse(&members.topic()), Some(members));
        assert_eq!(DeviceTopic::parse(&Topic::new("$hw/events/device/boiler/twin/update").unwrap()), None);
    }
}
