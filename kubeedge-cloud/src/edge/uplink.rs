//! Requests of nodes, and the shapes of their answers.

use std::{sync::Arc, time::Duration};

use kube::Client;
use kubeedge_core::{
    answer::{Answer, ApiStatus},
    message::{Content, Message},
    names::{Namespace, NodeName, ObjectName, ResourceVersion, SharedClock},
    resource::{ObjectPath, Resource, ResourceType},
    words::{Group, Operation, Source},
};
use serde_json::Value;

use crate::{
    hub::{Authorization, FromNode, HubHandle},
    object::{ApiCalls, Kind},
    sync::Truth,
};

/// For the objects to be listed after a start. The edge waits for a minute.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Handles requests of nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EdgeUplinks(pub(super) Arc<Parts>);

pub(super) struct Parts {
    /// In the name of the cloud.
    pub(super) calls: ApiCalls,
    pub(super) authorization: Authorization,
    pub(super) truth: Truth,
    pub(super) hub: HubHandle,
    pub(super) advertise: Option<String>,
    pub(super) clock: SharedClock,
}

/// A request about one object.
pub(super) struct Request<'a> {
    pub(super) node: &'a NodeName,
    pub(super) path: &'a ObjectPath,
    pub(super) name: &'a ObjectName,
    pub(super) content: &'a Content,
}

impl<'a> Request<'a> {
    pub(super) fn namespace(&self) -> Option<&'a str> {
        self.path.namespace.as_ref().map(Namespace::as_str)
    }

    pub(super) fn place<'k>(&self, kind: &'k Kind) -> (&'k Kind, Option<&'a str>, &'a str) {
        (kind, if kind.namespaced { self.namespace() } else { None }, self.name.as_str())
    }

    /// The object or patch in it: JSON, or a string that holds JSON.
    pub(super) fn body(&self) -> Result<Value, ApiStatus> {
        match self.content.parse::<Value>() {
            Ok(body) if body.is_object() => Ok(body),
            Ok(_) => Err(ApiStatus::failure(400, "BadRequest", format!("content of {} is not an object", self.path))),
            Err(err) => Err(ApiStatus::failure(400, "BadRequest", format!("content of {}: {err}", self.path))),
        }
    }

    /// The object in it, made to be this one, whatever else it says.
    pub(super) fn object(&self, kind: &Kind) -> Result<Value, ApiStatus> {
        let mut body = self.body()?;
        body["apiVersion"] = kind.api_version().into();
        body["kind"] = kind.kind.into();
        if !body["metadata"].is_object() {
            body["metadata"] = Value::Object(serde_json::Map::default());
        }
        body["metadata"]["name"] = self.name.as_str().into();
        if kind.namespaced {
            body["metadata"]["namespace"] = self.namespace().into();
        }
        Ok(body)
    }
}

/// What comes of a request.
pub(super) struct Done {
    pub(super) answer: Answer,
    version: Option<ResourceVersion>,
}

impl Done {
    pub(super) fn ok() -> Self {
        Self { answer: Answer::Done, version: None }
    }

    /// Done, and the object had this version then.
    pub(super) fn at(object: &Value) -> Self {
        Self { answer: Answer::Done, version: version(object) }
    }

    pub(super) fn object(object: &Value) -> Self {
        let content = Content::json(object).unwrap_or_default();
        Self { answer: Answer::Object(content), version: None }
    }

    pub(super) fn object_at(object: &Value) -> Self {
        Self { version: version(object), ..Self::object(object) }
    }

    pub(super) fn content_at(content: Content, version: Option<ResourceVersion>) -> Self {
        Self { answer: Answer::Object(content), version }
    }
}

fn version(object: &Value) -> Option<ResourceVersion> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// How an answer is written. Go edges know an envelope by both of its keys.
#[derive(Clone, Copy)]
enum Shape {
    Envelope,
    Bare,
}

pub(super) type Outcome = Result<Done, ApiStatus>;

impl EdgeUplinks {
    pub(super) fn new(
        client: Client,
        truth: Truth,
        hub: HubHandle,
        advertise: Option<String>,
        authorization: Authorization,
        clock: SharedClock,
    ) -> Self {
        let calls = ApiCalls::new(client);
        Self(Arc::new(Parts { calls, authorization, truth, hub, advertise, clock }))
    }

    pub(super) async fn handle(self, from: FromNode) -> Option<Message> {
        let FromNode { node, message } = from;
        let parts = &*self.0;
        let Some(path) = message.resource.object() else { return parts.unintelligible(&node, &message) };
        let Some(name) = &path.name else {
            // Only the status of several pods at once comes without a name.
            return match path.kind {
                ResourceType::PodStatus => parts.pod_statuses(&node, path, &message).await,
                _ => parts.unintelligible(&node, &message),
            };
        };
        let request = Request { node: &node, path, name, content: &message.content };
        let (shape, outcome) = parts.carry_out(&request, &message).await?;
        if let Err(status) = &outcome {
            let denied = status.code == 403;
            let (operation, message) = (&message.operation, &status.message);
            if denied {
                tracing::warn!(%node, %operation, resource = %path, message, "request of a node denied");
            } else {
                tracing::debug!(%node, %operation, resource = %path, code = status.code, message, "request of a node failed");
            }
        }
        Some(parts.answer(&message, shape, outcome))
    }
}

impl Parts {
    /// Upstream: `cloud/pkg/edgecontroller/controller/upstream.go`. What it does not know gets no answer there either.
    async fn carry_out(&self, request: &Request<'_>, message: &Message) -> Option<(Shape, Outcome)> {
        use Operation::{Delete, Insert, Patch, Query, Update};
        use ResourceType as Type;
        use Shape::{Bare, Envelope};
        Some(match (&request.path.kind, &message.operation) {
            (Type::Node, Insert) => (Envelope, self.create_node(request).await),
            (Type::Node, Query) => (Bare, self.query_node(request).await),
            (Type::Node, Update) => (Bare, self.update_node(request).await),
            (Type::NodePatch, Patch | Update | Insert) => (Envelope, self.patch_node(request).await),
            (Type::NodeStatus, Insert) => (Bare, self.insert_node_status(request).await),
            (Type::NodeStatus, Update) => (Bare, self.update_node_status(request).await),
            (Type::Pod, Insert) => (Envelope, self.create_pod(request).await),
            (Type::Pod, Delete) => (Bare, self.delete_pod(request).await),
            (Type::PodPatch, Patch | Update | Insert) => (Envelope, self.patch_pod(request).await),
            (Type::PodStatus, Update) => (Bare, self.update_pod_status(request).await),
            (Type::Lease, Insert) => (Envelope, self.create_lease(request).await),
            (Type::Lease, Update) => (Envelope, self.update_lease(request).await),
            (Type::Lease, Query) => (Envelope, self.query_lease(request).await),
            (Type::ConfigMap, Query) => (Bare, self.query_configuration(request, &Kind::CONFIG_MAP).await),
            (Type::Secret, Query) => (Bare, self.query_configuration(request, &Kind::SECRET).await),
            (Type::PersistentVolume, Query) => (Bare, self.query_volume(request).await),
            (Type::PersistentVolumeClaim, Query) => (Bare, self.query_claim(request).await),
            (Type::VolumeAttachment, Query) => (Bare, self.query_attachment(request).await),
            (Type::ServiceAccountToken, Query) => (Bare, self.request_token(request).await),
            (Type::CertificateSigningRequest, Insert) => (Envelope, self.create_signing_request(request).await),
            (Type::CertificateSigningRequest, Query) => (Bare, self.query_signing_request(request).await),
            (Type::Event, operation @ (Insert | Update | Patch)) => {
                // Events are never answered.
                if let Err(status) = self.write_event(request, operation).await {
                    let (node, message) = (request.node, &status.message);
                    tracing::debug!(%node, event = %request.path, message, "event of a node not written");
                }
                return None;
            }
            (kind, operation) => {
                tracing::debug!(node = %request.node, %kind, %operation, "nothing is known of this request");
                return None;
            }
        })
    }

    /// Whether nodes' requests are carried out in their name.
    pub(super) fn impersonates(&self) -> bool {
        self.authorization == Authorization::Enforce
    }

    /// Calls that carry out what `node` asks for. What is only looked up to judge the request is the cloud's own business.
    pub(super) fn calls_of(&self, node: &NodeName) -> ApiCalls {
        if self.impersonates() { self.calls.as_node(node) } else { self.calls.clone() }
    }

    /// A lease without a name, for instance, which a Go edge once updated for ever while upstream kept silent.
    fn unintelligible(&self, node: &NodeName, message: &Message) -> Option<Message> {
        let (operation, resource) = (&message.operation, &message.resource);
        tracing::debug!(%node, %operation, %resource, "request of a node names no object");
        let asks = matches!(
            operation,
            Operation::Insert | Operation::Update | Operation::Query | Operation::Patch | Operation::Delete
        );
        let status = ApiStatus::failure(400, "BadRequest", format!("{resource} names no object"));
        asks.then(|| self.answer(message, Shape::Envelope, Err(status)))
    }

    fn answer(&self, message: &Message, shape: Shape, outcome: Outcome) -> Message {
        let (answer, version) = match outcome {
            Ok(done) => (done.answer, done.version),
            Err(status) => (Answer::Refused(status), None),
        };
        let content = match shape {
            Shape::Envelope => answer.to_object_resp(),
            Shape::Bare => answer.to_bare(),
        };
        // Answers are made of JSON that was parsed before.
        let content = content.unwrap_or_default();
        self.reply(message, answered_resource(&message.resource)).version(version).content(content)
    }

    pub(super) fn reply(&self, to: &Message, resource: Resource) -> Message {
        let now = self.clock.now();
        Message::new(now, Source::EdgeController, Group::Resource, Operation::Response, resource).answering(&to.id)
    }
}

/// The answer is about the same resource, but for the old status of a node.
fn answered_resource(resource: &Resource) -> Resource {
    match resource {
        Resource::Object(path) if path.kind == ResourceType::NodeStatus => {
            Resource::Object(ObjectPath { kind: ResourceType::Node, ..path.clone() })
        }
        other => other.clone(),
    }
}
