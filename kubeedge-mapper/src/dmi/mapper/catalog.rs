use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kubeedge_core::{
    device::{DeviceModelSpec, DeviceSpec},
    names::{DeviceId, Namespace, ObjectName},
};

use crate::dmi::device::{DmiDevice, ModelId};

/// The devices and models that EdgeCore told of. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    devices: BTreeMap<DeviceId, Arc<DeviceSpec>>,
    models: BTreeMap<ModelId, Arc<DeviceModelSpec>>,
}

impl State {
    fn whole(&self, id: &DeviceId) -> Option<DmiDevice> {
        let spec = self.devices.get(id)?;
        let name = ObjectName::new(&spec.device_model_ref.as_ref()?.name).ok()?;
        let model = self.models.get(&ModelId { namespace: id.namespace().clone(), name })?;
        Some(DmiDevice { id: id.clone(), spec: Arc::clone(spec), model: Arc::clone(model) })
    }
}

impl Catalog {
    /// A device with its model; `None` also while the model is not there.
    pub fn device(&self, id: &DeviceId) -> Option<DmiDevice> {
        self.lock().whole(id)
    }

    /// All devices whose models are there, by id.
    pub fn devices(&self) -> Vec<DmiDevice> {
        let state = self.lock();
        state.devices.keys().filter_map(|id| state.whole(id)).collect()
    }

    /// A model.
    pub fn model(&self, namespace: &Namespace, name: &ObjectName) -> Option<Arc<DeviceModelSpec>> {
        let id = ModelId { namespace: namespace.clone(), name: name.clone() };
        self.lock().models.get(&id).cloned()
    }

    /// Whether the device is known, with or without its model.
    pub(super) fn knows(&self, id: &DeviceId) -> bool {
        self.lock().devices.contains_key(id)
    }

    pub(super) fn ids(&self) -> Vec<DeviceId> {
        self.lock().devices.keys().cloned().collect()
    }

    pub(super) fn set_device(&self, id: DeviceId, spec: DeviceSpec) {
        self.lock().devices.insert(id, spec.into());
    }

    /// Tells whether it was there.
    pub(super) fn remove_device(&self, id: &DeviceId) -> bool {
        self.lock().devices.remove(id).is_some()
    }

    /// Gives the devices that use it.
    pub(super) fn set_model(&self, id: &ModelId, spec: DeviceModelSpec) -> Vec<DmiDevice> {
        let mut state = self.lock();
        state.models.insert(id.clone(), spec.into());
        let devices = state.devices.keys().filter_map(|device| state.whole(device));
        devices.filter(|device| device.model_id().as_ref() == Some(id)).collect()
    }

    pub(super) fn remove_model(&self, id: &ModelId) {
        self.lock().models.remove(id);
    }

    pub(super) fn retain_models(&self, keep: impl Fn(&ModelId) -> bool) {
        self.lock().models.retain(|id, _| keep(id));
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
