//! The resource grammar: what a message is about, as an enum instead of a path.

use std::{fmt, sync::Arc};

pub use crate::words::ResourceType;
use crate::{
    names::{DeviceId, InvalidName, Namespace, NodeName, ObjectName},
    words::Group,
};

/// Word for "no namespace" on the wire.
const CLUSTER: &str = "null";

/// Path of an object of Kubernetes on the wire: `<namespace or null>/<type>[/<name>]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath {
    /// The namespace; `None` for cluster-scoped objects.
    pub namespace: Option<Namespace>,
    /// The type.
    pub kind: ResourceType,
    /// The name; `None` when all of the type are meant.
    pub name: Option<ObjectName>,
}

impl ObjectPath {
    /// The path of `name` in `namespace`.
    ///
    /// # Errors
    /// [`InvalidName`] if either is not a path segment.
    pub fn namespaced(namespace: &str, kind: ResourceType, name: &str) -> Result<Self, InvalidName> {
        Ok(Self { namespace: Some(Namespace::new(namespace)?), kind, name: Some(ObjectName::new(name)?) })
    }

    /// The path of the cluster-scoped object `name`.
    ///
    /// # Errors
    /// [`InvalidName`] if it is not a path segment.
    pub fn cluster(kind: ResourceType, name: &str) -> Result<Self, InvalidName> {
        Ok(Self { namespace: None, kind, name: Some(ObjectName::new(name)?) })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut segments = text.split('/');
        let namespace = segments.next()?;
        let kind = segments.next()?;
        let name = segments.next();
        if segments.next().is_some() || kind.is_empty() {
            return None;
        }
        let namespace = if namespace == CLUSTER { None } else { Some(Namespace::new(namespace).ok()?) };
        let name = name.map(ObjectName::new).transpose().ok()?;
        Some(Self { namespace, kind: ResourceType::from_word(kind), name })
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.as_ref().map_or(CLUSTER, Namespace::as_str);
        write!(f, "{namespace}/{}", self.kind)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}

/// What a message is about.
///
/// Every text parses, and shows as the text that it was parsed from.
///
/// Upstream: `cloud/pkg/common/messagelayer/util.go`; on the wire without the prefix `node/<node>/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Not given.
    #[default]
    Absent,
    /// An object of Kubernetes.
    Object(ObjectPath),
    /// The edge as such: the resource of keepalives.
    Keepalive,
    /// The devices of the node, as a change.
    Membership,
    /// The devices of the node, as a whole.
    MembershipDetail,
    /// The twin, in confirmations of the cloud.
    TwinConfirmation,
    /// Twin values of a device, on their way to the cloud.
    DeviceTwin(DeviceId),
    /// State of a device, on its way to the cloud.
    DeviceState(DeviceId),
    /// A command to a device; see [`command`](crate::device::command). Only between two of ours.
    DeviceCommand(DeviceId),
    /// CA of the Kubernetes API.
    KubernetesCa,
    /// An answer to a request of the metaserver.
    Application,
    /// The watches of the metaserver.
    WatchSync,
    /// What the edge has; see [`inventory`](crate::inventory). Only between two of ours.
    Inventory,
    /// A node task of the first generation, on its way to the cloud: `task/<task>/node/<node>`.
    NodeTask {
        /// The task.
        task: ObjectName,
        /// The node that carries it out.
        node: NodeName,
    },
    /// Anything else, such as a topic or a URL; carried unchanged.
    Opaque(Arc<str>),
}

impl Resource {
    /// Parses the resource of a message of `group`. Messages of users carry topics and URLs, which are left alone.
    pub fn parse(text: &str, group: &Group) -> Self {
        if text.is_empty() {
            return Self::Absent;
        }
        if *group == Group::User {
            return Self::Opaque(text.into());
        }
        match text {
            "node" => Self::Keepalive,
            "membership" => Self::Membership,
            "membership/detail" => Self::MembershipDetail,
            "twin" => Self::TwinConfirmation,
            "k8s/ca.crt" => Self::KubernetesCa,
            "ignore/Application/ignore" => Self::Application,
            "watchapp/sync" => Self::WatchSync,
            "inventory" => Self::Inventory,
            _ => Self::device(text)
                .or_else(|| Self::node_task(text))
                .or_else(|| ObjectPath::parse(text).map(Self::Object))
                .unwrap_or_else(|| Self::Opaque(text.into())),
        }
    }

    fn device(text: &str) -> Option<Self> {
        let (namespace, rest) = text.strip_prefix("device/")?.split_once('/')?;
        let (name, what) = rest.split_once('/')?;
        match what {
            "twin/edge_updated" => DeviceId::parse(namespace, name).ok().map(Self::DeviceTwin),
            "state/update" => DeviceId::parse(namespace, name).ok().map(Self::DeviceState),
            "command" => DeviceId::parse(namespace, name).ok().map(Self::DeviceCommand),
            _ => None,
        }
    }

    fn node_task(text: &str) -> Option<Self> {
        let (task, node) = text.strip_prefix("task/")?.split_once("/node/")?;
        Some(Self::NodeTask { task: ObjectName::new(task).ok()?, node: NodeName::new(node).ok()? })
    }

    /// The object that it is about, if it is one.
    pub fn object(&self) -> Option<&ObjectPath> {
        match self {
            Self::Object(path) => Some(path),
            _ => None,
        }
    }
}

impl From<ObjectPath> for Resource {
    fn from(path: ObjectPath) -> Self {
        Self::Object(path)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => Ok(()),
            Self::Object(path) => path.fmt(f),
            Self::Keepalive => f.write_str("node"),
            Self::Membership => f.write_str("membership"),
            Self::MembershipDetail => f.write_str("membership/detail"),
            Self::TwinConfirmation => f.write_str("twin"),
            Self::DeviceTwin(id) => write!(f, "device/{id}/twin/edge_updated"),
            Self::DeviceState(id) => write!(f, "device/{id}/state/update"),
            Self::DeviceCommand(id) => write!(f, "device/{id}/command"),
            Self::KubernetesCa => f.write_str("k8s/ca.crt"),
            Self::Application => f.write_str("ignore/Application/ignore"),
            Self::WatchSync => f.write_str("watchapp/sync"),
            Self::Inventory => f.write_str("inventory"),
            Self::NodeTask { task, node } => write!(f, "task/{task}/node/{node}"),
            Self::Opaque(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_forms_become_variants() {
        let parse = |text| Resource::parse(text, &Group::Resource);
        assert!(matches!(parse("node"), Resource::Keepalive));
        let Resource::Object(path) = parse("null/node/edge-1") else { panic!("not an object") };
        assert_eq!((path.namespace, path.kind), (None, ResourceType::Node));
        assert!(matches!(parse("device/default/boiler/twin/edge_updated"), Resource::DeviceTwin(_)));
        assert_eq!(
            parse("task/t1/node/edge-1"),
            Resource::NodeTask { task: ObjectName::new("t1").unwrap(), node: NodeName::new("edge-1").unwrap() }
        );
        assert!(matches!(parse("task//node/"), Resource::Opaque(_)));
        // An object whose names read like words of the grammar is still that object.
        assert!(matches!(parse("default/pod/team-membership"), Resource::Object(_)));
        assert!(matches!(parse("kube-node-lease/lease/"), Resource::Opaque(_)));
        assert!(matches!(Resource::parse("a/b/c", &Group::User), Resource::Opaque(_)));
    }

    /// Peers that look for words within the whole path lose these, or take them for something else.
    #[test]
    fn objects_whose_names_or_namespaces_are_words_of_the_grammar_are_objects() {
        for text in [
            "node/pod/web",
            "device/pod/web",
            "twin/configmap/membership",
            "membership/secret/podlist",
            "default/configmap/k8s-ca.crt",
            "default/pod/serviceaccounttoken",
            "user/device/twin",
            "null/node/node",
        ] {
            let Resource::Object(path) = Resource::parse(text, &Group::Resource) else { panic!("{text}") };
            assert!(!matches!(path.kind, ResourceType::Other(_)), "{text}");
        }
    }

    /// Forms of the channel that are neither objects nor words: they go through untouched.
    #[test]
    fn what_is_not_of_the_grammar_is_carried() {
        for text in [
            "operations.kubeedge.io/v1alpha2/nodeupgradejob/j1/node/edge-1",
            "task//node/",
            "device/default/boiler/twin/get",
            "device//boiler/state/update",
            "header",
            "/",
            "//",
        ] {
            let resource = Resource::parse(text, &Group::Resource);
            assert_eq!(resource, Resource::Opaque(text.into()));
            assert_eq!(resource.to_string(), text);
        }
        for text in ["membership", "node", "default/pod/web", "http://127.0.0.1:9060/path"] {
            assert!(matches!(Resource::parse(text, &Group::User), Resource::Opaque(_)), "a topic or a URL: {text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_parsed_shows_as_it_came(text in "[ -~]{0,40}", segments in prop::collection::vec("task|node|[a-z.]{0,6}", 0..6)) {
            for text in [text, segments.join("/")] {
                prop_assert_eq!(Resource::parse(&text, &Group::Resource).to_string(), text);
            }
        }
    }
}
