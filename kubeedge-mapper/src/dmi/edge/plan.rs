//! What a mapper was told, what there is, and the next call that brings the two together. Pure.

use std::collections::BTreeMap;

use kubeedge_core::names::DeviceId;
use prost::Message as _;
use siphasher::sip128::SipHasher13;

use crate::dmi::{
    device::{DmiDevice, ModelId},
    wire,
};

/// Tells two versions of an object from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(pub(super) u128);

/// A device as it is to be told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) protocol: String,
    pub(super) device: wire::Device,
    pub(super) model_id: ModelId,
    pub(super) model: wire::DeviceModel,
    /// Of device and model: mappers take the model over when they start a device.
    pub(super) digest: Digest,
    pub(super) model_digest: Digest,
}

impl Wanted {
    /// `None` for a device without a model.
    pub(super) fn new(device: &DmiDevice) -> Option<Self> {
        let model_id = device.model_id()?;
        let (wire, model) = (device.to_wire(), model_id.to_wire(&device.model));
        let model_bytes = model.encode_to_vec();
        let digest = |parts: [&[u8]; 2]| Digest(SipHasher13::new().hash(&parts.concat()).as_u128());
        let digests = (digest([&wire.encode_to_vec(), &model_bytes]), digest([&[], &model_bytes]));
        let protocol = device.protocol().to_owned();
        Some(Self { protocol, device: wire, model_id, model, digest: digests.0, model_digest: digests.1 })
    }
}

/// What is known of a device at the mapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    /// It was being registered in that version, if at all. A mapper that has it already keeps what it has.
    Perhaps(Option<Digest>),
    /// It is there, in that version if there is one.
    Surely(Option<Digest>),
}

/// A device that the mapper was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToldDevice {
    pub(super) has: Has,
    pub(super) model: ModelId,
}

/// All that a mapper was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) devices: BTreeMap<DeviceId, ToldDevice>,
    /// With the version, if it is known.
    pub(super) models: BTreeMap<ModelId, Option<Digest>>,
}

/// A call to a mapper.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Call {
    CreateModel(ModelId, Digest, wire::DeviceModel),
    UpdateModel(ModelId, Digest, wire::DeviceModel),
    RemoveModel(ModelId),
    Register(DeviceId, ToldDevice, wire::Device),
    Update(DeviceId, ToldDevice, wire::Device),
    Remove(DeviceId),
}

/// What a call is about; a newer one about the same takes its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Device(DeviceId),
    Model(ModelId),
}

impl Call {
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::CreateModel(model, ..) | Self::UpdateModel(model, ..) | Self::RemoveModel(model) => {
                Subject::Model(model.clone())
            }
            Self::Register(device, ..) | Self::Update(device, ..) | Self::Remove(device) => {
                Subject::Device(device.clone())
            }
        }
    }
}

/// All calls that can be made now, one per subject.
///
/// `removals` tells whether a device that is not among `wanted` is gone, or may only not have been looked at yet.
pub(super) fn calls<'a>(
    told: &'a Told,
    wanted: &'a BTreeMap<DeviceId, &'a Wanted>,
    removals: bool,
) -> impl Iterator<Item = Call> + 'a {
    let changes = wanted.iter().filter_map(|(id, wanted)| change(told, id, wanted));
    let gone = told.devices.keys().filter(move |id| removals && !wanted.contains_key(*id));
    let used = move |model: &ModelId| {
        told.devices.values().any(|device| device.model == *model)
            || wanted.values().any(|wanted| wanted.model_id == *model)
    };
    let unused = told.models.keys().filter(move |model| removals && !used(model));
    // What is gone first: it may hold the line that something new needs.
    gone.map(|id| Call::Remove(id.clone())).chain(changes).chain(unused.map(|model| Call::RemoveModel(model.clone())))
}

fn change(told: &Told, id: &DeviceId, wanted: &Wanted) -> Option<Call> {
    let next = ToldDevice { has: Has::Surely(Some(wanted.digest)), model: wanted.model_id.clone() };
    let has = told.devices.get(id).map(|device| device.has);
    if has == Some(next.has) {
        return None;
    }
    let (model, digest) = (wanted.model_id.clone(), wanted.model_digest);
    match told.models.get(&wanted.model_id) {
        Some(Some(known)) if *known == digest => {}
        Some(Some(_)) => return Some(Call::UpdateModel(model, digest, wanted.model.clone())),
        // Creating it anew is understood whether it is there or not.
        Some(None) | None => return Some(Call::CreateModel(model, digest, wanted.model.clone())),
    }
    let device = wanted.device.clone();
    match has {
        None | Some(Has::Perhaps(_)) => Some(Call::Register(id.clone(), next, device)),
        Some(Has::Surely(_)) => Some(Call::Update(id.clone(), next, device)),
    }
}

impl Told {
    /// Before a call: what holds if no answer comes. Gives what was known of the device.
    pub(super) fn begin(&mut self, call: &Call) -> Option<ToldDevice> {
        match call {
            Call::CreateModel(model, ..) | Call::UpdateModel(model, ..) | Call::RemoveModel(model) => {
                self.models.insert(model.clone(), None);
                None
            }
            Call::Register(id, next, _) => {
                let (Has::Surely(digest) | Has::Perhaps(digest)) = next.has;
                // Two versions that may both have been first are told apart by an update.
                let has = match self.devices.get(id).map(|device| device.has) {
                    Some(Has::Perhaps(before)) if before != digest => Has::Perhaps(None),
                    _ => Has::Perhaps(digest),
                };
                self.devices.insert(id.clone(), ToldDevice { has, ..next.clone() })
            }
            Call::Update(id, next, _) => {
                self.devices.insert(id.clone(), ToldDevice { has: Has::Surely(None), ..next.clone() })
            }
            Call::Remove(id) => {
                let device = self.devices.get_mut(id)?;
                let before = device.clone();
                device.has = Has::Perhaps(None);
                Some(before)
            }
        }
    }

    /// After a call that succeeded.
    pub(super) fn finish(&mut self, call: Call) {
        match call {
            Call::CreateModel(model, digest, _) | Call::UpdateModel(model, digest, _) => {
                self.models.insert(model, Some(digest));
            }
            Call::RemoveModel(model) => {
                self.models.remove(&model);
            }
            Call::Register(id, next, _) => {
                let has = match self.devices.get(&id).map(|device| device.has) {
                    Some(Has::Perhaps(first)) => Has::Surely(first),
                    _ => next.has,
                };
                self.devices.insert(id, ToldDevice { has, ..next });
            }
            Call::Update(id, next, _) => {
                self.devices.insert(id, next);
            }
            Call::Remove(id) => {
                self.devices.remove(&id);
            }
        }
    }

    /// After a call that the mapper answered with an error; `before` is what [`Told::begin`] gave. A device that it did
    /// not take is as it was.
    pub(super) fn refuse(&mut self, call: &Call, before: Option<ToldDevice>) {
        if let Call::Register(id, ..) = call {
            match before {
                Some(device) => self.devices.insert(id.clone(), device),
                None => self.devices.remove(id),
            };
        }
    }
}

#[cfg(test)]
mod tests;
