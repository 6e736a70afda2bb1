//! Where messages of nodes go.

use std::{collections::HashMap, fmt, future::Future, pin::Pin, task::Poll};

use kubeedge_core::{
    message::Message,
    names::NodeName,
    resource::Resource,
    service::{BoxError, Shared},
    words::{Group, Operation, Source},
};
use tower::{Service, ServiceExt as _};

/// A message, and the node that sent it: the one that its certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromNode {
    /// The node.
    pub node: NodeName,
    /// What it sent.
    pub message: Message,
}

/// Serves messages of nodes: the answer, or nothing. It is called side by side for different objects, and one after
/// another for one object of one node.
pub type Uplinks = Shared<FromNode, Option<Message>>;

/// Serves messages with a function that cannot fail. It is always ready: the hub bounds what is in progress per node.
pub(crate) fn served_by<F, Fut>(handle: F) -> Uplinks
where
    F: Fn(FromNode) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Option<Message>> + Send + 'static,
{
    Shared::new(tower::service_fn(move |from| {
        let handled = handle(from);
        async move { Ok::<_, BoxError>(handled.await) }
    }))
}

/// Which part of the cloud a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// EdgeController: everything else.
    Edge,
    /// DeviceController: twins and states of devices.
    Device,
    /// DynamicController: requests of the metaserver.
    Dynamic,
    /// Router: application data.
    Router,
    /// Node tasks.
    Tasks,
    /// CloudHub itself: the CA of the Kubernetes API.
    Hub,
}

impl Destination {
    /// The destination of a message that is not the session's own; `None` for what goes nowhere.
    ///
    /// Upstream: `cloud/pkg/cloudhub/dispatcher/message_dispatcher.go`, in this order.
    pub fn of(message: &Message) -> Option<Self> {
        match &message.operation {
            Operation::Keepalive | Operation::Response | Operation::Error => return None,
            Operation::Upload if message.group == Group::User => return Some(Self::Router),
            Operation::Other(word) if matches!(&**word, "prepull" | "upgrade" | "UpdateNodeActionStatus") => {
                return Some(Self::Tasks);
            }
            _ => {}
        }
        if message.resource == Resource::KubernetesCa {
            return Some(Self::Hub);
        }
        match message.source {
            Source::MetaServer => Some(Self::Dynamic),
            Source::Twin => Some(Self::Device),
            // What claims to come from the cloud does not come from an edge. A stopping edgecore sends an empty message.
            Source::CloudHub
            | Source::CloudStream
            | Source::DeviceController
            | Source::EdgeController
            | Source::SyncController
            | Source::Absent => None,
            _ => Some(Self::Edge),
        }
    }
}

/// Sends each message to the part that it is for. Messages for parts that are not there are dropped, and logged.
#[derive(Clone, Default)]
pub struct UplinkRouter {
    parts: HashMap<Destination, Uplinks>,
}

impl UplinkRouter {
    /// A router without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends messages for `destination` to `part`.
    pub fn route<S>(mut self, destination: Destination, part: S) -> Self
    where
        S: Service<FromNode, Response = Option<Message>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
    {
        self.parts.insert(destination, Shared::new(part.map_err(Into::into)));
        self
    }

    /// The part for `destination`, for what does not come over the channel.
    pub fn part(&self, destination: Destination) -> Option<Uplinks> {
        self.parts.get(&destination).cloned()
    }

    /// Whether there is a part for `destination`.
    pub fn has(&self, destination: Destination) -> bool {
        self.parts.contains_key(&destination)
    }
}

impl Service<FromNode> for UplinkRouter {
    type Response = Option<Message>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Option<Message>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        // The parts are asked in the call, as they are many.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, from: FromNode) -> Self::Future {
        let Some(destination) = Destination::of(&from.message) else { return Box::pin(std::future::ready(Ok(None))) };
        if let Some(part) = self.parts.get(&destination) {
            return Box::pin(part.clone().oneshot(from));
        }
        let (source, resource) = (&from.message.source, &from.message.resource);
        tracing::debug!(node = %from.node, ?destination, %source, %resource, "no part of this cloud takes this message");
        Box::pin(std::future::ready(Ok(None)))
    }
}

impl fmt::Debug for UplinkRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UplinkRouter").field("parts", &self.parts.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::wire::json;

    use super::*;

    fn to(source: &str, group: &str, operation: &str, resource: &str) -> Option<Destination> {
        let frame = format!(
            r#"{{"header":{{"msg_id":"1","timestamp":0}},"route":{{"source":"{source}","group":"{group}","operation":"{operation}","resource":"{resource}"}}}}"#
        );
        Destination::of(&json::decode(&frame).unwrap())
    }

    #[test]
    fn messages_go_where_upstream_sends_them() {
        assert_eq!(to("websocket", "resource", "keepalive", "node"), None);
        assert_eq!(to("edgecontroller", "resource", "response", "default/pod/web"), None);
        assert_eq!(to("metamanager", "resource", "error", "default/pod/web"), None);
        assert_eq!(to("bus", "user", "upload", "a/b"), Some(Destination::Router));
        assert_eq!(to("websocket", "hub", "UpdateNodeActionStatus", "x/y/z"), Some(Destination::Tasks));
        assert_eq!(to("metamanager", "meta", "query", "k8s/ca.crt"), Some(Destination::Hub));
        assert_eq!(to("metaserver", "dynamiccontroller", "null", "null"), Some(Destination::Dynamic));
        assert_eq!(to("twin", "resource", "update", "device/default/d/twin/edge_updated"), Some(Destination::Device));
        assert_eq!(to("edged", "meta", "patch", "default/podpatch/web"), Some(Destination::Edge));
        assert_eq!(to("edgecontroller", "resource", "update", "default/pod/web"), None, "nobody forges the cloud");
        assert_eq!(to("", "", "", ""), None);
    }
}
