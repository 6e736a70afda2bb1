//! What is told to the cloud about pods: left in the outbox, in the commit that also remembers it.

use k8s_openapi::api::core::v1::PodStatus;
use kubeedge_core::{
    message::{Content, ContentError, Message},
    meta::{Collection, MetaKey, MetaWrite, Precondition, Record},
    names::{Namespace, ObjectName, Uid, UnixMillis},
    outbox::{self, Subject},
    resource::{ObjectPath, ResourceType},
    words::{Group, Operation, Source},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A pod by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodKey {
    pub(crate) namespace: Namespace,
    pub(crate) name: ObjectName,
}

impl std::fmt::Display for PodKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The status that was told last, as it is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) uid: Uid,
    pub(crate) status: PodStatus,
}

impl PodKey {
    fn path(&self, kind: ResourceType) -> ObjectPath {
        ObjectPath { namespace: Some(self.namespace.clone()), kind, name: Some(self.name.clone()) }
    }

    /// Where the status that was told last is remembered.
    pub(crate) fn told(&self) -> MetaKey {
        MetaKey::new(Collection::from(&ResourceType::PodStatus), self.namespace.as_str(), self.name.as_str())
    }

    fn status_subject(&self) -> Subject {
        Subject::pod_status(&self.namespace, &self.name)
    }

    fn delete_subject(&self) -> Subject {
        Subject::pod_deletion(&self.namespace, &self.name)
    }

    /// The writes that remember a status and tell it.
    pub(crate) fn tell(&self, told: &Told, now: UnixMillis) -> Result<Vec<MetaWrite>, ContentError> {
        let remembered = Record::new(self.told(), Content::json(told)?.as_json().to_owned());
        Ok(vec![
            MetaWrite::Put(remembered, Precondition::Always),
            outbox::leave(&self.status_subject(), &status_patch(self, told, now)?),
        ])
    }

    /// The write that tells that nothing of the pod runs any more, so that it can be deleted for good.
    pub(crate) fn release(&self, uid: &Uid, now: UnixMillis) -> Result<MetaWrite, ContentError> {
        let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        let message = Message::new(now, Source::Edged, Group::Meta, Operation::Delete, self.path(ResourceType::Pod))
            .content(Content::json(&options)?);
        Ok(outbox::leave(&self.delete_subject(), &message))
    }

    /// The writes that forget a pod that is gone.
    pub(crate) fn forget(&self) -> Vec<MetaWrite> {
        let told = MetaWrite::Delete(self.told(), Precondition::Always);
        vec![told, outbox::withdraw(&self.status_subject()), outbox::withdraw(&self.delete_subject())]
    }
}

/// The patch of a pod's status: always the whole status, since a later one replaces it while it waits for the cloud.
///
/// Upstream: `edge/pkg/metamanager/client/pod.go`; the content is text.
fn status_patch(key: &PodKey, told: &Told, now: UnixMillis) -> Result<Message, ContentError> {
    let mut status: Value = Content::json(&told.status)?.parse()?;
    // Conditions are merged by type: what is no longer said has to be taken back.
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        for field in ["lastProbeTime", "message", "reason"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
    let patch = json!({"metadata": {"uid": told.uid}, "status": status});
    Ok(Message::new(now, Source::Edged, Group::Meta, Operation::Patch, key.path(ResourceType::PodPatch))
        .content(Content::text(&patch.to_string())))
}
