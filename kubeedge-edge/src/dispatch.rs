//! What becomes of the cloud's messages: objects are stored, and acknowledged once they are.
//!
//! [`Dispatcher`] is the [`Inbound`] service of the hub. Nobody else reads messages of objects: all other parts watch the
//! metadata store, so what they do after a restart without cloud is what they always do.
//!
//! Upstream: `edge/pkg/edgehub/messagehandler`, `edge/pkg/metamanager/process.go`.

mod object;

use std::{fmt, sync::Arc};

use kubeedge_core::{
    inventory::{Holding, InventoryAnswer, InventoryQuestion},
    message::Message,
    meta::{Collection, MetaError, MetaHandle, MetaKey, MetaWrite, Precondition, Record, Selector},
    names::{Namespace, ObjectName, SharedClock},
    resource::{ObjectPath, ResourceType},
    service::BoxError,
    uplink::Inbound,
    words::{Group, Operation, Source},
};
use tower::ServiceExt as _;

use self::object::Object;

/// How often a record that somebody else changes at the same time is looked at again.
const ATTEMPTS: usize = 5;

/// Stores objects that the cloud sends, and hands other messages to whom they are for.
///
/// * `insert`, `update` and `patch` of an object put it into the store; `delete` removes it, but not if the store has an
///   object of the same name and another UID.
/// * An older version of an object that is stored is acknowledged and not stored. So is the same again.
/// * A cloud of ours that asks what is here is told; see [`inventory`](kubeedge_core::inventory).
/// * The acknowledgement is made after the commit. What could not be stored, or understood, is answered with `error`:
///   the cloud then sends it again.
#[derive(Clone)]
pub struct Dispatcher {
    store: MetaHandle,
    clock: SharedClock,
    groups: Vec<(Group, Inbound)>,
}

/// Why a message was not carried out.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{operation} of {resource} is not something that this node does")]
    Unknown { operation: String, resource: String },
    #[error("content of {resource} is not an object of Kubernetes: {source}")]
    Content { resource: String, source: object::NotAnObject },
    #[error("{resource} is not stored: {source}")]
    Store { resource: String, source: MetaError },
}

impl Dispatcher {
    /// Keeps objects in `store`.
    pub fn new(store: MetaHandle, clock: SharedClock) -> Self {
        Self { store, clock, groups: Vec::new() }
    }

    /// Hands messages of `group` to `service`. Without it they are dropped, as a node without that part does; groups
    /// `resource` and `func` cannot be handed on.
    pub fn group(mut self, group: Group, service: Inbound) -> Self {
        self.groups.retain(|(known, _)| *known != group);
        self.groups.push((group, service));
        self
    }

    /// As the service that the hub asks for.
    pub fn into_inbound(self) -> Inbound {
        let dispatcher = Arc::new(self);
        Inbound::new(tower::service_fn(move |message| {
            let dispatcher = Arc::clone(&dispatcher);
            async move { dispatcher.dispatch(message).await }
        }))
    }

    /// Carries out a message and gives its answer, if it gets one.
    ///
    /// # Errors
    /// Those of the service of its group.
    ///
    /// # Cancel safety
    /// If the future is dropped the message may or may not have been carried out; it was not answered, so it comes again.
    pub async fn dispatch(&self, message: Message) -> Result<Option<Message>, BoxError> {
        if InventoryQuestion::is_asked_by(&message) {
            return self.tell_inventory(&message).await.map(Some);
        }
        if matches!(message.group, Group::Resource | Group::Func) {
            let answer = match self.store_object(&message).await {
                Ok(()) => message.acknowledgement(self.clock.now()),
                Err(refusal) => {
                    tracing::warn!(id = %message.id, %refusal, "message of the cloud refused");
                    message.refusal(self.clock.now(), Source::MetaStore, &refusal)
                }
            };
            return Ok(Some(answer));
        }
        if let Some((_, service)) = self.groups.iter().find(|(group, _)| *group == message.group) {
            return service.clone().oneshot(message).await;
        }
        tracing::debug!(group = %message.group, resource = %message.resource, "message for a part that is not here");
        Ok(None)
    }

    /// Tells a cloud of ours what of its objects is here.
    async fn tell_inventory(&self, asked: &Message) -> Result<Message, BoxError> {
        let question = InventoryQuestion::read(asked)?;
        let mut holdings = Vec::new();
        for kind in &question.kinds {
            let records = self.store.list(Selector::all(Collection::from(kind))).await?;
            holdings.extend(records.into_iter().filter_map(|record| holding(kind, record)));
        }
        Ok(InventoryAnswer::of(&question, holdings).message(asked, self.clock.now()))
    }

    async fn store_object(&self, message: &Message) -> Result<(), Refusal> {
        let resource = message.resource.to_string();
        let unknown = || Refusal::Unknown { operation: message.operation.to_string(), resource: resource.clone() };
        let key = message.resource.object().and_then(key).ok_or_else(unknown)?;
        let object = match message.operation {
            Operation::Insert | Operation::Update | Operation::Patch => Some(Object::read(message)),
            Operation::Delete => None,
            _ => return Err(unknown()),
        };
        let stored = match object {
            Some(Ok(object)) => self.put(&key, &object).await,
            Some(Err(source)) => return Err(Refusal::Content { resource, source }),
            None => self.delete(&key, message).await,
        };
        stored.map_err(|source| Refusal::Store { resource, source })
    }

    async fn put(&self, key: &MetaKey, object: &Object) -> Result<(), MetaError> {
        self.change(key, |stored| {
            if stored.is_some_and(|stored| object.is_known_by(stored)) {
                return None;
            }
            let only_if = stored.map_or(Precondition::Absent, |stored| Precondition::Unchanged(stored.revision));
            Some(MetaWrite::Put(object.record(key.clone()), only_if))
        })
        .await
    }

    async fn delete(&self, key: &MetaKey, message: &Message) -> Result<(), MetaError> {
        let uid = object::uid(message);
        self.change(key, |stored| {
            let stored = stored?;
            if uid.is_some() && stored.uid.is_some() && uid != stored.uid {
                tracing::debug!(%key, "the deleted object has been replaced, the new one stays");
                return None;
            }
            Some(MetaWrite::Delete(key.clone(), Precondition::Unchanged(stored.revision)))
        })
        .await
    }

    /// Does what `decide` makes of the stored record, looking again when somebody else was faster.
    async fn change(
        &self,
        key: &MetaKey,
        decide: impl Fn(Option<&Record>) -> Option<MetaWrite>,
    ) -> Result<(), MetaError> {
        for _ in 0..ATTEMPTS {
            let stored = self.store.get(key.clone()).await?;
            let Some(write) = decide(stored.as_ref()) else { return Ok(()) };
            match self.store.commit(vec![write]).await {
                Err(MetaError::Conflict { .. }) => {}
                outcome => return outcome.map(drop),
            }
        }
        Err(MetaError::Conflict { key: key.clone() })
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<_> = self.groups.iter().map(|(group, _)| group).collect();
        f.debug_struct("Dispatcher").field("groups", &groups).finish_non_exhaustive()
    }
}

/// What a record says of the object that it holds; nothing if it did not come from the cloud.
fn holding(kind: &ResourceType, record: Record) -> Option<Holding> {
    let MetaKey { namespace, name, .. } = record.key;
    let namespace = if namespace.is_empty() { None } else { Some(Namespace::new(&namespace).ok()?) };
    let path = ObjectPath { namespace, kind: kind.clone(), name: Some(ObjectName::new(&name).ok()?) };
    Some(Holding { path, uid: record.uid?, version: record.version })
}

/// Key of the record of an object; none for records of the node's own, which are not the cloud's to write.
fn key(path: &ObjectPath) -> Option<MetaKey> {
    let collection = Collection::from(&path.kind);
    let own = [Collection::twins(), Collection::outbox(), Collection::from(&ResourceType::PodStatus)];
    if own.contains(&collection) {
        return None;
    }
    let namespace = path.namespace.as_ref().map_or("", Namespace::as_str);
    Some(MetaKey::new(collection, namespace, path.name.as_ref()?.as_str()))
}
