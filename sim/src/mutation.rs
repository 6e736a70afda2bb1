//! Faults of ours that the checker has to find.

use std::sync::Arc;

use kubeedge_core::{
    message::Message,
    meta::{Collection, MetaHandle, MetaKey, MetaWrite, Precondition, Record},
    names::{SharedClock, Uid},
    service::BoxError,
    uplink::Inbound,
    words::{Group, Operation},
};
use serde_json::Value;
use tower::ServiceExt as _;

/// A part that does what it must not do. For tests of the checker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutation {
    /// All parts are as they are.
    #[default]
    None,
    /// The edge acknowledges before the commit.
    AcknowledgesEarly,
    /// The edge stores whatever comes, older or not, known or not.
    StoresAnything,
    /// The disk says that a commit is durable before it is.
    DiskLies,
    /// The disk loses a record in each crash.
    DiskForgets,
    /// The disk has an older version of a record after each crash.
    DiskReverts,
    /// Reports of the edge get an answer that nobody gave.
    ForgesAnswers,
}

impl Mutation {
    /// The inbound service of an edge with this fault.
    pub(crate) fn inbound(self, dispatcher: Inbound, store: MetaHandle, clock: SharedClock) -> Inbound {
        match self {
            Self::AcknowledgesEarly => Inbound::new(tower::service_fn(move |message: Message| {
                let (dispatcher, answer) = (dispatcher.clone(), message.acknowledgement(clock.now()));
                async move {
                    if message.group != Group::Resource {
                        return dispatcher.oneshot(message).await;
                    }
                    tokio::spawn(dispatcher.oneshot(message));
                    Ok::<_, BoxError>(Some(answer))
                }
            })),
            Self::StoresAnything => Inbound::new(tower::service_fn(move |message: Message| {
                let (store, clock, dispatcher) = (store.clone(), Arc::clone(&clock), dispatcher.clone());
                async move {
                    let Some(record) = record(&message) else { return dispatcher.oneshot(message).await };
                    store.commit(vec![MetaWrite::Put(record, Precondition::Always)]).await?;
                    Ok(Some(message.acknowledgement(clock.now())))
                }
            })),
            _ => dispatcher,
        }
    }
}

fn record(message: &Message) -> Option<Record> {
    if !matches!(message.operation, Operation::Insert | Operation::Update) {
        return None;
    }
    let path = message.resource.object()?;
    let namespace = path.namespace.as_ref().map_or("", |namespace| namespace.as_str());
    let key = MetaKey::new(Collection::from(&path.kind), namespace, path.name.as_ref()?.as_str());
    let object: Value = message.content.parse().ok()?;
    let mut record = Record::new(key, message.content.as_json().to_owned());
    record.uid = object["metadata"]["uid"].as_str().and_then(|uid| Uid::new(uid).ok());
    record.version = object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok());
    Some(record)
}
