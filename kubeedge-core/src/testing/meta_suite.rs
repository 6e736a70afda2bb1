use std::time::Duration;

use crate::{
    meta::{
        Collection, MetaError, MetaEvent, MetaHandle, MetaKey, MetaWrite, Precondition, Record, Revision, Selector,
    },
    names::{ResourceVersion, Uid},
    resource::ResourceType,
    service::Subscription,
};

fn key(namespace: &str, name: &str) -> MetaKey {
    MetaKey::new(Collection::from(&ResourceType::Pod), namespace, name)
}

fn record(namespace: &str, name: &str, value: &str) -> Record {
    Record::new(key(namespace, name), value.to_owned())
}

fn put(record: Record) -> MetaWrite {
    MetaWrite::Put(record, Precondition::Always)
}

async fn next(watch: &mut Subscription<MetaEvent>) -> MetaEvent {
    let item = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
    item.expect("a watch delivers what is committed").expect("a watch does not end by itself")
}

/// What every [`MetaStore`](crate::meta::MetaStore) has to do. `store` must be empty.
///
/// # Panics
/// With the rule that is broken.
pub async fn meta_suite(store: MetaHandle) {
    reads_and_writes(&store).await;
    preconditions(&store).await;
    batches(&store).await;
    watches(&store).await;
}

async fn reads_and_writes(store: &MetaHandle) {
    assert_eq!(store.get(key("a", "none")).await.expect("get"), None, "what was not stored is not there");
    let mut written = record("a", "web", r#"{"unknown":{"kept":1}}"#);
    written.uid = Uid::new("u-1").ok();
    written.version = ResourceVersion::new(u64::MAX);
    written.revision = store.put(written.clone()).await.expect("put");
    let read = store.get(key("a", "web")).await.expect("get").expect("what was stored is there");
    assert_eq!(read, written, "a record comes back as it was written, with its revision");
    let newer = store.put(record("a", "web", "2")).await.expect("put");
    assert!(newer > written.revision, "revisions grow");
    store.put(record("", "cluster", "3")).await.expect("put");
    store.put(record("b", "web", "4")).await.expect("put");
    let names = |records: Vec<Record>| records.iter().map(|record| record.key.to_string()).collect::<Vec<_>>();
    let pods = Collection::from(&ResourceType::Pod);
    let all = store.list(Selector::all(pods.clone())).await.expect("list");
    assert_eq!(names(all), ["null/pod/cluster", "a/pod/web", "b/pod/web"], "a list has all, ordered by key");
    let some = store.list(Selector { collection: pods, namespace: Some("b".into()) }).await.expect("list");
    assert_eq!(names(some), ["b/pod/web"], "a list can be cut to a namespace");
    let other = store.list(Selector::all(Collection::outbox())).await.expect("list");
    assert!(other.is_empty(), "collections do not mix");
    store.delete(key("b", "web")).await.expect("delete");
    store.delete(key("b", "web")).await.expect("deleting what is gone is fine");
    assert_eq!(store.get(key("b", "web")).await.expect("get"), None, "what was deleted is gone");
    let binary = Record::new(key("a", "binary"), vec![0, 159, 146, 150]);
    store.put(binary.clone()).await.expect("put");
    assert_eq!(store.get(binary.key).await.expect("get").expect("there").value, binary.value, "any bytes are kept");
}

async fn preconditions(store: &MetaHandle) {
    let at = store.put(record("p", "x", "1")).await.expect("put");
    let conflict = |result: Result<Revision, MetaError>, rule: &str| match result {
        Err(MetaError::Conflict { key: at_fault }) => assert_eq!(at_fault, key("p", "x"), "the conflict names the key"),
        other => panic!("{rule}: {other:?}"),
    };
    let absent = MetaWrite::Put(record("p", "x", "2"), Precondition::Absent);
    conflict(store.commit(vec![absent]).await, "a record that is there is not absent");
    let unchanged = |value, revision| MetaWrite::Put(record("p", "x", value), Precondition::Unchanged(revision));
    store.commit(vec![unchanged("2", at)]).await.expect("an unchanged record can be replaced");
    conflict(store.commit(vec![unchanged("3", at)]).await, "a changed record is not replaced");
    conflict(
        store.commit(vec![MetaWrite::Delete(key("p", "x"), Precondition::Unchanged(at))]).await,
        "a changed record is not deleted",
    );
    assert_eq!(store.get(key("p", "x")).await.expect("get").expect("there").value, "2", "a conflict changes nothing");
}

async fn batches(store: &MetaHandle) {
    let before = store.put(record("batch", "old", "1")).await.expect("put");
    let all_or_none = vec![
        put(record("batch", "new", "1")),
        MetaWrite::Delete(key("batch", "old"), Precondition::Always),
        MetaWrite::Put(record("batch", "third", "1"), Precondition::Unchanged(before)),
    ];
    assert!(matches!(store.commit(all_or_none).await, Err(MetaError::Conflict { .. })), "one failed write fails all");
    assert_eq!(store.get(key("batch", "new")).await.expect("get"), None, "a failed batch leaves nothing behind");
    assert!(store.get(key("batch", "old")).await.expect("get").is_some(), "a failed batch takes nothing away");
    let revision =
        store.commit(vec![put(record("batch", "a", "1")), put(record("batch", "b", "1"))]).await.expect("commit");
    for name in ["a", "b"] {
        let found = store.get(key("batch", name)).await.expect("get").expect("there");
        assert_eq!(found.revision, revision, "a batch is one commit");
    }
    store.commit(Vec::new()).await.expect("an empty batch is fine");
}

async fn watches(store: &MetaHandle) {
    let select = Selector { collection: Collection::from(&ResourceType::Pod), namespace: Some("w".into()) };
    let before = store.put(record("w", "early", "1")).await.expect("put");
    store.put(record("w", "missed", "1")).await.expect("put");
    let mut watch = store.watch(select.clone(), before).await.expect("watch");
    store.put(record("other", "x", "1")).await.expect("put");
    store.put(record("w", "live", "1")).await.expect("put");
    store.delete(key("w", "live")).await.expect("delete");
    let MetaEvent::Put(first) = next(&mut watch).await else { panic!("a watch starts after the given revision") };
    assert_eq!(&*first.key.name, "missed", "a watch delivers what was committed since");
    let MetaEvent::Put(second) = next(&mut watch).await else { panic!("a watch delivers puts") };
    assert_eq!(&*second.key.name, "live", "a watch delivers only what is selected");
    let MetaEvent::Deleted(gone, revision) = next(&mut watch).await else { panic!("a watch delivers deletions") };
    assert_eq!(&*gone.name, "live", "a watch keeps the order of commits");
    assert!(revision > second.revision, "a deletion has the revision of its commit");
    drop(watch);
    // A failed commit must not show.
    let mut watch = store.watch(select, revision).await.expect("watch");
    let conflict = MetaWrite::Put(record("w", "never", "1"), Precondition::Unchanged(Revision(u64::MAX >> 1)));
    assert!(store.commit(vec![put(record("w", "half", "1")), conflict]).await.is_err());
    store.put(record("w", "after", "1")).await.expect("put");
    let MetaEvent::Put(after) = next(&mut watch).await else { panic!("a watch delivers puts") };
    assert_eq!(&*after.key.name, "after", "a failed commit is not watched");
}
