//! Records of twins, and the messages to the cloud that are left beside them.

use kubeedge_core::{
    message::{Content, Message},
    meta::{Collection, MetaError, MetaKey, MetaWrite, Precondition, Record},
    names::{DeviceId, MessageId, UnixMillis},
    outbox::{self, Subject},
    resource::Resource,
    words::{Group, Operation, Source},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{payload, state::TwinState};

/// A device as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Device {
    /// What it is, for people.
    pub(crate) description: String,
    /// Its Device object is on the node: membership alone can no longer remove it.
    pub(crate) has_object: bool,
    pub(crate) twin: TwinState,
}

/// The JSON of a record.
#[derive(Serialize)]
struct Stored<'a> {
    /// Form of the record, for those who come later.
    schema: u32,
    description: &'a str,
    has_object: bool,
    twin: &'a TwinState,
}

const SCHEMA: u32 = 1;

/// Key of the record of a device.
pub(crate) fn key(id: &DeviceId) -> MetaKey {
    MetaKey::new(Collection::twins(), id.namespace().as_str(), id.name().as_str())
}

/// The device in a record.
pub(crate) fn load(record: &Record) -> Result<Device, serde_json::Error> {
    serde_json::from_slice(&record.value)
}

/// The device that a record is about.
pub(crate) fn device_id(record: &Record) -> Option<DeviceId> {
    DeviceId::parse(&record.key.namespace, &record.key.name).ok()
}

/// The write that stores a device.
pub(crate) fn store(id: &DeviceId, device: &Device) -> Result<MetaWrite, MetaError> {
    let Device { description, has_object, twin } = device;
    let stored = Stored { schema: SCHEMA, description, has_object: *has_object, twin };
    let value = serde_json::to_vec(&stored).map_err(|error| MetaError::Failed(error.into()))?;
    Ok(MetaWrite::Put(Record::new(key(id), value), Precondition::Always))
}

/// The write that leaves the whole twin for the cloud.
///
/// Upstream: `edge/pkg/devicetwin/dtmanager/twin.go` (`dealSyncResult`), which sends only what changed.
pub(crate) fn tell_twin(id: &DeviceId, twin: &TwinState, now: UnixMillis) -> Result<MetaWrite, MetaError> {
    let failed = |error: serde_json::Error| MetaError::Failed(error.into());
    let body = payload::twin_full(MessageId::random().as_str(), now, twin);
    let content: Box<RawValue> = serde_json::from_slice(&body).map_err(failed)?;
    let message = message(Resource::DeviceTwin(id.clone()), Content::raw(content), now);
    Ok(outbox::leave(&Subject::twin(id), &message))
}

/// The write that leaves the state for the cloud, as the text that is published on the bus too.
pub(crate) fn tell_state(id: &DeviceId, body: &[u8], now: UnixMillis) -> MetaWrite {
    let content = Content::text(&String::from_utf8_lossy(body));
    let message = message(Resource::DeviceState(id.clone()), content, now);
    outbox::leave(&Subject::device_state(id), &message)
}

fn message(resource: Resource, content: Content, now: UnixMillis) -> Message {
    Message::new(now, Source::Twin, Group::Resource, Operation::Update, resource).content(content)
}

/// The writes that forget a device and what the cloud has not heard of it.
pub(crate) fn remove(id: &DeviceId) -> Vec<MetaWrite> {
    let forget = MetaWrite::Delete(key(id), Precondition::Always);
    vec![forget, outbox::withdraw(&Subject::twin(id)), outbox::withdraw(&Subject::device_state(id))]
}
