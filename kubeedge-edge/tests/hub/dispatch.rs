use std::sync::{Arc, Mutex};

use kubeedge_core::{
    message::{Content, Message},
    meta::{Collection, MetaHandle, MetaKey, Record, Selector},
    names::ResourceVersion,
    resource::{Resource, ResourceType},
    service::BoxError,
    testing::MemoryStore,
    uplink::Inbound,
    wire::json,
    words::{Group, Operation, Source},
};
use kubeedge_edge::dispatch::Dispatcher;
use serde_json::json;

use crate::cloud::{clock, downlink};

struct Rig {
    memory: MemoryStore,
    store: MetaHandle,
    dispatcher: Dispatcher,
}

impl Rig {
    fn new() -> Self {
        let memory = MemoryStore::new();
        let store = MetaHandle::of(memory.clone());
        let dispatcher = Dispatcher::new(store.clone(), clock());
        Self { memory, store, dispatcher }
    }

    async fn send(&self, message: &Message) -> Message {
        let answer = self.dispatcher.dispatch(message.clone()).await.unwrap().expect("objects are answered");
        assert_eq!(answer.parent.as_ref(), Some(&message.id), "an answer names its message");
        answer
    }

    async fn acked(&self, message: &Message) {
        let answer = self.send(message).await;
        assert!(answer.operation == Operation::Response && answer.content.is_ok(), "{answer:?}");
    }

    async fn refused(&self, message: &Message) -> String {
        let answer = self.send(message).await;
        assert_eq!(answer.operation, Operation::Error, "not an acknowledgement");
        answer.content.as_text().unwrap()
    }

    async fn stored(&self) -> Option<Record> {
        let key = MetaKey::new(Collection::from(&ResourceType::ConfigMap), "default", "web");
        self.store.get(key).await.unwrap()
    }

    async fn stored_data(&self) -> Option<String> {
        let record = self.stored().await?;
        let object: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        Some(object["data"]["key"].as_str().unwrap().to_owned())
    }
}

fn object(uid: &str, version: u64, data: &str) -> Content {
    let metadata = json!({"name": "web", "namespace": "default", "uid": uid, "resourceVersion": version.to_string()});
    Content::json(&json!({"kind": "ConfigMap", "metadata": metadata, "data": {"key": data}})).unwrap()
}

fn update(uid: &str, version: u64, data: &str) -> Message {
    downlink("web", Operation::Update).content(object(uid, version, data)).version(ResourceVersion::new(version))
}

#[tokio::test]
async fn an_object_is_acknowledged_after_it_is_stored_and_not_otherwise() {
    let rig = Rig::new();
    rig.memory.fail_commits(true);
    let message = update("u-1", 5, "a");
    let reason = rig.refused(&message).await;
    assert!(reason.contains("default/configmap/web"), "{reason}");
    assert_eq!(rig.stored().await, None);
    rig.memory.fail_commits(false);
    rig.acked(&message).await;
    let record = rig.stored().await.unwrap();
    assert_eq!(record.value, message.content.as_json().as_bytes(), "kept as it came");
    assert_eq!((record.uid.unwrap().as_str(), record.version.unwrap().number()), ("u-1", 5));
}

#[tokio::test]
async fn versions_of_an_object_never_go_backwards() {
    let rig = Rig::new();
    rig.acked(&update("u-1", 10, "new")).await;
    let revision = rig.stored().await.unwrap().revision;
    rig.acked(&update("u-1", 9, "old")).await;
    rig.acked(&update("u-1", 10, "new")).await;
    assert_eq!(rig.stored().await.unwrap().revision, revision, "what is known is not written again");
    rig.acked(&update("u-1", 11, "newer")).await;
    assert_eq!(rig.stored_data().await.as_deref(), Some("newer"));
    // A new cluster may count from the beginning.
    rig.acked(&update("u-2", 1, "recreated")).await;
    assert_eq!(rig.stored_data().await.as_deref(), Some("recreated"));
}

/// Whoever else writes the record in between, the newest version is there in the end.
#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_stored_at_the_same_time_end_with_the_newest() {
    let rig = Arc::new(Rig::new());
    for round in 0..20_u64 {
        let tasks: Vec<_> = (1..=4)
            .map(|version| {
                let rig = Arc::clone(&rig);
                let message = update("u-1", round * 10 + version, &format!("{round}-{version}"));
                tokio::spawn(async move { rig.acked(&message).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(rig.stored_data().await, Some(format!("{round}-4")));
    }
}

#[tokio::test]
async fn a_deletion_is_for_the_object_that_it_names() {
    let rig = Rig::new();
    let delete = |uid: &str| {
        // What a resync sends: only the identity.
        let metadata = json!({"name": "web", "namespace": "default", "uid": uid});
        downlink("web", Operation::Delete).content(Content::json(&json!({"metadata": metadata})).unwrap())
    };
    rig.acked(&update("u-2", 10, "new")).await;
    rig.acked(&delete("u-1")).await;
    assert!(rig.stored().await.is_some(), "the deletion of a predecessor leaves the new object alone");
    rig.memory.fail_commits(true);
    rig.refused(&delete("u-2")).await;
    rig.memory.fail_commits(false);
    rig.acked(&delete("u-2")).await;
    assert_eq!(rig.stored().await, None);
    rig.acked(&delete("u-2")).await;
    rig.acked(&update("u-3", 11, "again")).await;
    rig.acked(&downlink("web", Operation::Delete)).await;
    assert_eq!(rig.stored().await, None, "without a UID the name decides");
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_says_why() {
    let rig = Rig::new();
    let mut list = downlink("web", Operation::Update).content(object("u", 1, "x"));
    let Resource::Object(path) = &mut list.resource else { panic!("an object") };
    path.name = None;
    assert_eq!(rig.refused(&list).await, "update of default/configmap is not something that this node does");
    rig.refused(&downlink("web", Operation::Query)).await;
    assert!(rig.refused(&downlink("web", Operation::Update)).await.ends_with("it is empty"));
    for content in ["7", "\"no json\"", "[]", "{}", r#"{"metadata":[]}"#, r#""{\"metadata\":7}""#] {
        let raw = serde_json::value::RawValue::from_string(content.into()).unwrap();
        let reason = rig.refused(&downlink("web", Operation::Insert).content(Content::raw(raw))).await;
        assert!(reason.contains("default/configmap/web"), "{content}: {reason}");
    }
    assert_eq!(rig.stored().await, None);
}

#[tokio::test]
async fn a_string_that_holds_an_object_is_that_object() {
    let rig = Rig::new();
    let text = object("u-1", 3, "text").as_json().to_owned();
    rig.acked(&downlink("web", Operation::Insert).content(Content::text(&text))).await;
    assert_eq!(rig.stored_data().await.as_deref(), Some("text"));
}

#[tokio::test]
async fn other_groups_go_to_their_services() {
    let rig = Rig::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = {
        let seen = Arc::clone(&seen);
        Inbound::new(tower::service_fn(move |message: Message| {
            seen.lock().unwrap().push(message.resource.to_string());
            async { Ok::<_, BoxError>(None) }
        }))
    };
    let dispatcher = rig.dispatcher.clone().group(Group::Twin, service);
    let message = |group| {
        Message::new(
            kubeedge_core::names::UnixMillis(1),
            Source::DeviceController,
            group,
            Operation::Update,
            Resource::Membership,
        )
    };
    assert!(dispatcher.dispatch(message(Group::Twin)).await.unwrap().is_none());
    assert!(dispatcher.dispatch(message(Group::User)).await.unwrap().is_none(), "a part that is not here");
    assert_eq!(*seen.lock().unwrap(), ["membership"]);
}

/// Every object that a Go cloud was seen to send can be stored, and in the end the store has what the cloud said last.
#[tokio::test]
async fn recorded_objects_are_stored() {
    let rig = Rig::new();
    let recorded = include_str!("../golden/downlink.jsonl");
    let mut expected = std::collections::BTreeMap::new();
    for line in recorded.lines() {
        let message = json::decode(line).unwrap();
        rig.acked(&message).await;
        if message.operation == Operation::Delete {
            expected.remove(&message.resource.to_string());
        } else {
            expected.insert(message.resource.to_string(), message.resource_version);
        }
    }
    assert!(expected.len() > 3, "{expected:?}");
    for kind in [
        ResourceType::Pod,
        ResourceType::ConfigMap,
        ResourceType::Secret,
        ResourceType::Node,
        ResourceType::Device,
        ResourceType::DeviceModel,
    ] {
        let of_kind = rig.store.list(kubeedge_core::meta::Selector::all(Collection::from(&kind))).await.unwrap();
        for record in of_kind {
            assert_eq!(expected.remove(&record.key.to_string()), Some(record.version), "{}", record.key);
        }
    }
    assert!(expected.is_empty(), "not stored: {expected:?}");
}

#[tokio::test]
async fn records_of_the_node_itself_are_not_the_clouds_to_write() {
    let rig = Rig::new();
    for kind in ["twin", "outbox", "podstatus"] {
        for operation in [Operation::Update, Operation::Delete] {
            let mut message = downlink("web", operation).content(object("u-1", 1, "x"));
            message.resource = Resource::parse(&format!("default/{kind}/web"), &Group::Resource);
            let reason = rig.refused(&message).await;
            assert!(reason.contains(kind), "{reason}");
        }
        let all = Selector::all(Collection::new(kind).unwrap());
        assert!(rig.store.list(all).await.unwrap().is_empty());
    }
}
