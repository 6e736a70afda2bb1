//! What stands for the rest of the edge: pods have a status that changes, and end when they are told to.

use std::{sync::atomic::Ordering, time::Duration};

use kubeedge_core::{
    message::{Content, Message},
    meta::{Collection, MetaHandle, MetaKey, MetaWrite, Precondition, Record, Selector},
    names::{Namespace, ObjectName, WallClock as _},
    outbox::{self, Subject},
    resource::{ObjectPath, ResourceType},
    words::{Group, Operation, Source},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::edge::Site;

/// Reports for ever. A report and the number that it has are written in one commit, as the agent does.
pub(crate) async fn run(site: Site, store: MetaHandle) {
    loop {
        sleep(Duration::from_millis(fastrand::u64(200..1500))).await;
        let Ok(pods) = store.list(Selector::all(Collection::from(&ResourceType::Pod))).await else { continue };
        forget(&store, &pods).await;
        for pod in &pods {
            let Ok(object) = serde_json::from_slice::<Value>(&pod.value) else { continue };
            let ending = object["metadata"]["deletionTimestamp"].is_string();
            let writes = if ending {
                release(&site, &store, pod).await
            } else if site.reporting.load(Ordering::Relaxed) && fastrand::bool() {
                report(&site, &store, pod).await
            } else {
                None
            };
            // A full disk, for instance: the next round is soon.
            let _failed = store.commit(writes.unwrap_or_default()).await;
        }
    }
}

fn told(pod: &MetaKey) -> MetaKey {
    MetaKey::new(Collection::from(&ResourceType::PodStatus), pod.namespace.clone(), pod.name.clone())
}

/// What is said of a pod: its status, and that it has ended.
fn subjects(pod: &MetaKey) -> Option<[Subject; 2]> {
    let (namespace, name) = (Namespace::new(&pod.namespace).ok()?, ObjectName::new(&pod.name).ok()?);
    Some([Subject::pod_status(&namespace, &name), Subject::pod_deletion(&namespace, &name)])
}

/// The next status of a pod.
async fn report(site: &Site, store: &MetaHandle, pod: &Record) -> Option<Vec<MetaWrite>> {
    let uid = pod.uid.as_ref()?.as_str();
    let last = store.get(told(&pod.key)).await.ok()?;
    let last: Option<Value> = last.and_then(|last| serde_json::from_slice(&last.value).ok());
    let last = last.filter(|last| last["uid"] == uid).and_then(|last| last["number"].as_u64());
    let number = last.unwrap_or(0) + 1;
    let remembered = Record::new(told(&pod.key), json!({ "uid": uid, "number": number }).to_string());
    let patch = json!({ "metadata": { "uid": uid }, "status": { "phase": "Running", "message": number.to_string() } });
    let message =
        message(site, ResourceType::PodPatch, Operation::Patch, pod)?.content(Content::text(&patch.to_string()));
    Some(vec![MetaWrite::Put(remembered, Precondition::Always), outbox::leave(&subjects(&pod.key)?[0], &message)])
}

/// Tells that a pod has ended, once.
async fn release(site: &Site, store: &MetaHandle, pod: &Record) -> Option<Vec<MetaWrite>> {
    let [_, subject] = subjects(&pod.key)?;
    let waits = store.get(outbox::key(&subject)).await.ok()?.is_some();
    if waits {
        return None;
    }
    let options = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": pod.uid.as_ref()?.as_str() } });
    let message = message(site, ResourceType::Pod, Operation::Delete, pod)?.content(Content::json(&options).ok()?);
    Some(vec![outbox::leave(&subject, &message)])
}

/// Takes back what is said of pods that are gone, or have been replaced.
async fn forget(store: &MetaHandle, pods: &[Record]) {
    let Ok(all) = store.list(Selector::all(Collection::from(&ResourceType::PodStatus))).await else { return };
    let mut writes = Vec::new();
    for last in all {
        let uid =
            serde_json::from_slice::<Value>(&last.value).ok().and_then(|last| last["uid"].as_str().map(str::to_owned));
        let there = pods.iter().any(|pod| {
            told(&pod.key) == last.key && pod.uid.as_ref().map(kubeedge_core::names::Uid::as_str) == uid.as_deref()
        });
        if !there {
            writes.extend(subjects(&last.key).iter().flatten().map(outbox::withdraw));
            writes.push(MetaWrite::Delete(last.key, Precondition::Always));
        }
    }
    let _failed = store.commit(writes).await;
}

fn message(site: &Site, kind: ResourceType, operation: Operation, pod: &Record) -> Option<Message> {
    let path = ObjectPath::namespaced(&pod.key.namespace, kind, &pod.key.name).ok()?;
    Some(Message::new(site.clock.now(), Source::Edged, Group::Meta, operation, path))
}
