//! Devices of the node: from the objects in the metadata store to twins and drivers.
//!
//! [`DeviceBinder`] follows the records of Devices and DeviceModels, merges each device with its model, and tells
//! [`DeviceTwins`] and whoever talks to the device: the [`MapperHost`] if a driver of it speaks the protocol, else the
//! mapper that registered for the protocol over DMI. Devices and models may come in any order; a device whose model is
//! missing, or that is wrong as it is written, is left as it was and tried again when either changes.
//!
//! Upstream: `edge/pkg/devicetwin/dmiserver`, `edge/pkg/devicetwin/dtmanager/dmiworker.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kubeedge_core::{
    device::{DeviceInstance, DeviceModelSpec, DeviceSpec, InvalidDevice, StateReport},
    meta::{Collection, MetaHandle, MetaKey, Record, Selector},
    names::{DeviceId, NodeName},
    resource::ResourceType,
    service::Subscription,
    twin::{TwinError, TwinEvent},
};
#[cfg(feature = "dmi")]
use kubeedge_core::{
    names::PropertyName,
    twin::{DeviceSelector, Twin},
};
use kubeedge_mapper::MapperHost;
#[cfg(feature = "dmi")]
use kubeedge_mapper::dmi::{DmiDevice, DmiHost};
use kubeedge_twin::DeviceTwins;
use serde::Deserialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::meta::{Change, Follower};

/// First pause before devices that could not be applied are tried again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Keeps twins and drivers in step with the Devices and DeviceModels of the store.
#[must_use = "devices are not followed unless it runs"]
#[derive(Debug)]
pub struct DeviceBinder {
    node: NodeName,
    store: MetaHandle,
    twins: DeviceTwins,
    mapper: Option<MapperHost>,
    #[cfg(feature = "dmi")]
    dmi: Option<DmiHost>,
    devices: BTreeMap<DeviceId, Device>,
    /// By namespace and name.
    models: BTreeMap<(Arc<str>, Arc<str>), Arc<DeviceModelSpec>>,
    /// What twins and mapper were last told.
    bound: BTreeMap<DeviceId, Arc<DeviceInstance>>,
    /// The desired values that mappers of their own process were told.
    #[cfg(feature = "dmi")]
    told: BTreeMap<DeviceId, Desired>,
    /// To be looked at.
    dirty: BTreeSet<DeviceId>,
}

#[derive(Debug)]
struct Device {
    spec: Arc<DeviceSpec>,
    description: String,
}

#[cfg(feature = "dmi")]
type Desired = BTreeMap<PropertyName, String>;

/// A device with its model.
struct Merged {
    instance: Arc<DeviceInstance>,
    /// As it is told to a mapper of its own process, if it is for one.
    #[cfg(feature = "dmi")]
    dmi: Option<DmiDevice>,
}

#[derive(Deserialize)]
struct DeviceObject {
    metadata: Metadata,
    #[serde(default)]
    spec: DeviceSpec,
    /// Where older Devices say how their state is reported; anything else may be in it.
    #[serde(default)]
    status: serde_json::Value,
}

#[derive(Deserialize)]
struct ModelObject {
    #[serde(default)]
    spec: DeviceModelSpec,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl DeviceBinder {
    /// Follows the devices of `node` in `store`. Without a mapper they have only twins.
    pub fn new(node: NodeName, store: MetaHandle, twins: DeviceTwins, mapper: Option<MapperHost>) -> Self {
        Self {
            node,
            store,
            twins,
            mapper,
            #[cfg(feature = "dmi")]
            dmi: None,
            devices: BTreeMap::new(),
            models: BTreeMap::new(),
            bound: BTreeMap::new(),
            #[cfg(feature = "dmi")]
            told: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    /// Devices whose protocol no driver of the mapper speaks go to mappers of their own process.
    #[cfg(feature = "dmi")]
    pub fn dmi(mut self, dmi: DmiHost) -> Self {
        self.dmi = Some(dmi);
        self
    }

    /// Runs until `shutdown`, or until the store is closed.
    ///
    /// # Cancel safety
    /// May be dropped at any point; the next start begins with all devices.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let _stopped: Option<()> = shutdown.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let follow = |kind| Follower::new(self.store.clone(), Selector::all(Collection::from(&kind)));
        let (mut models, mut devices) = (follow(ResourceType::DeviceModel), follow(ResourceType::Device));
        // Both lists first: a device is not wrong because its model was not looked at yet.
        let (mut models_listed, mut devices_listed) = (false, false);
        let mut pause = FIRST_PAUSE;
        let mut twins = self.watch_twins().await;
        loop {
            tokio::select! {
                Some(event) = next_of(&mut twins) => {
                    self.twin_changed(event).await;
                    if self.dirty.is_empty() {
                        continue;
                    }
                }
                change = models.next_patiently() => {
                    let Some(change) = change else { return };
                    models_listed |= matches!(change, Change::Listed(_));
                    self.model_changed(change);
                }
                change = devices.next_patiently() => {
                    let Some(change) = change else { return };
                    let first = matches!(change, Change::Listed(_)) && !devices_listed;
                    devices_listed |= first;
                    self.device_changed(change);
                    if first && let Err(error) = self.forget_others().await {
                        tracing::warn!(%error, "devices that are gone could not be forgotten");
                    }
                }
                () = sleep(pause), if !self.dirty.is_empty() && models_listed && devices_listed => {}
            }
            if models_listed && devices_listed {
                self.apply().await;
                #[cfg(feature = "dmi")]
                if let Some(dmi) = &self.dmi {
                    dmi.all_set();
                }
                // A full disk stays full for long, and each attempt is told.
                pause = if self.dirty.is_empty() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            }
        }
    }

    /// Twins, for the sake of mappers of their own process: what an application desires is theirs to carry out.
    #[cfg(feature = "dmi")]
    async fn watch_twins(&self) -> Option<Subscription<TwinEvent>> {
        self.dmi.as_ref()?;
        match self.twins.handle().watch(DeviceSelector::All).await {
            Ok(twins) => Some(twins),
            Err(error) => {
                tracing::warn!(%error, "mappers are not told of what is desired at the edge");
                None
            }
        }
    }

    #[cfg(not(feature = "dmi"))]
    #[expect(clippy::unused_async, reason = "with DMI it waits for the twins")]
    async fn watch_twins(&self) -> Option<Subscription<TwinEvent>> {
        None
    }

    #[cfg(feature = "dmi")]
    async fn twin_changed(&mut self, event: TwinEvent) {
        match event {
            TwinEvent::Changed { twin, .. } => self.look_at(&twin),
            TwinEvent::Lagged(_) => {
                let handle = self.twins.handle();
                for id in self.told.keys().cloned().collect::<Vec<_>>() {
                    if let Ok(twin) = handle.get(id).await {
                        self.look_at(&twin);
                    }
                }
            }
            _ => {}
        }
    }

    #[cfg(not(feature = "dmi"))]
    #[expect(clippy::unused_async, reason = "with DMI it asks for twins")]
    async fn twin_changed(&mut self, _: TwinEvent) {}

    #[cfg(feature = "dmi")]
    fn look_at(&mut self, twin: &Twin) {
        let id = &twin.device;
        if let (Some(told), Some(instance)) = (self.told.get(id), self.bound.get(id))
            && *told != desired(twin, instance)
        {
            self.dirty.insert(id.clone());
        }
    }

    fn model_changed(&mut self, change: Change) {
        match change {
            Change::Listed(records) => {
                self.models.clear();
                for record in &records {
                    self.put_model(record);
                }
                self.dirty.extend(self.devices.keys().cloned());
            }
            Change::Put(record) => {
                self.put_model(&record);
                self.touch_users_of(&record.key);
            }
            Change::Deleted(key) => {
                // Devices that use it go on as they are: the model may come back under the same name.
                self.models.remove(&(key.namespace, key.name));
            }
        }
    }

    fn put_model(&mut self, record: &Record) {
        match serde_json::from_slice::<ModelObject>(&record.value) {
            Ok(model) => {
                self.models.insert((record.key.namespace.clone(), record.key.name.clone()), model.spec.into());
            }
            Err(error) => tracing::warn!(key = %record.key, %error, "device model cannot be read"),
        }
    }

    fn touch_users_of(&mut self, model: &MetaKey) {
        let uses = |(id, device): &(&DeviceId, &Device)| {
            *id.namespace().as_str() == *model.namespace
                && device.spec.device_model_ref.as_ref().is_some_and(|used| *used.name == *model.name)
        };
        self.dirty.extend(self.devices.iter().filter(uses).map(|(id, _)| id.clone()));
    }

    fn device_changed(&mut self, change: Change) {
        match change {
            Change::Listed(records) => {
                self.dirty.extend(std::mem::take(&mut self.devices).into_keys());
                self.dirty.extend(self.bound.keys().cloned());
                for record in &records {
                    self.put_device(record);
                }
            }
            Change::Put(record) => self.put_device(&record),
            Change::Deleted(key) => {
                if let Some(id) = device_id(&key) {
                    self.devices.remove(&id);
                    self.dirty.insert(id);
                }
            }
        }
    }

    fn put_device(&mut self, record: &Record) {
        let Some(id) = device_id(&record.key) else { return };
        match serde_json::from_slice::<DeviceObject>(&record.value) {
            // Resyncs also bring devices of other nodes.
            Ok(device) if !device.spec.node_name.is_empty() && device.spec.node_name != self.node.as_str() => {
                self.devices.remove(&id);
            }
            Ok(DeviceObject { metadata, mut spec, status }) => {
                if spec.state_report.is_none() {
                    spec.state_report = serde_json::from_value::<Option<StateReport>>(status).ok().flatten();
                }
                let spec = Arc::new(spec);
                let description = metadata.labels.and_then(|mut labels| labels.remove("description"));
                self.devices.insert(id.clone(), Device { spec, description: description.unwrap_or_default() });
            }
            Err(error) => tracing::warn!(key = %record.key, %error, "device cannot be read"),
        }
        self.dirty.insert(id);
    }

    /// Removes twins whose Device is gone: the node may have ended between the two.
    async fn forget_others(&mut self) -> Result<(), TwinError> {
        for id in self.twins.devices().await? {
            if !self.devices.contains_key(&id) {
                self.dirty.insert(id);
            }
        }
        Ok(())
    }

    /// Brings twins and drivers to what the objects say. What fails stays to be looked at again.
    async fn apply(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            let outcome = match self.devices.get(&id) {
                Some(device) => match self.merge(&id, device) {
                    Ok(Some(merged)) => self.bind(merged).await,
                    Ok(None) => {
                        tracing::info!(device = %id, "device waits for its model");
                        Ok(())
                    }
                    Err(error) => {
                        tracing::warn!(%error, "device is not used");
                        Ok(())
                    }
                },
                None => self.release(&id).await,
            };
            if let Err(error) = outcome {
                tracing::warn!(device = %id, error = &error as &dyn std::error::Error, "device not applied, trying again");
                self.dirty.insert(id);
            }
        }
    }

    /// The device with its model; `None` while the model is not there.
    fn merge(&self, id: &DeviceId, device: &Device) -> Result<Option<Merged>, InvalidDevice> {
        let name = device.spec.device_model_ref.as_ref().map(|model| model.name.as_str()).unwrap_or_default();
        if name.is_empty() {
            return Err(InvalidDevice::NoModel(id.clone()));
        }
        let Some(model) = self.models.get(&(id.namespace().as_str().into(), name.into())) else { return Ok(None) };
        #[cfg(feature = "dmi")]
        if self.dmi.is_some() {
            let (spec, model) = (Arc::clone(&device.spec), Arc::clone(model));
            let written = DmiDevice { id: id.clone(), spec, model };
            let own_driver = self.mapper.as_ref().is_some_and(|mapper| mapper.speaks(written.protocol()));
            if !own_driver {
                return Ok(Some(Merged { instance: written.instance()?.into(), dmi: Some(written) }));
            }
        }
        let instance = DeviceInstance::merge(id.clone(), &device.spec, model)?.into();
        Ok(Some(Merged {
            instance,
            #[cfg(feature = "dmi")]
            dmi: None,
        }))
    }

    async fn bind(&mut self, merged: Merged) -> Result<(), TwinError> {
        let instance = merged.instance;
        let id = instance.id.clone();
        let description = self.devices.get(&id).map(|device| device.description.as_str()).unwrap_or_default();
        // The twin first: the mapper reports to it.
        self.twins.set_device(instance.clone(), description).await?;
        #[cfg(feature = "dmi")]
        if let Some(dmi) = &self.dmi {
            if let Some(written) = merged.dmi {
                if let Some(mapper) = &self.mapper {
                    mapper.remove_device(&id);
                }
                let twin = self.twins.handle().get(id.clone()).await?;
                let desired = desired(&twin, &instance);
                dmi.set_device(written.desiring(&desired));
                self.told.insert(id.clone(), desired);
                self.bound.insert(id, instance);
                return Ok(());
            }
            self.told.remove(&id);
            dmi.remove_device(&id);
        }
        if self.bound.get(&id) != Some(&instance) {
            if let Some(mapper) = &self.mapper
                && let Err(error) = mapper.set_device(instance.clone())
            {
                tracing::warn!(%error, "device has no driver");
            }
            self.bound.insert(id, instance);
        }
        Ok(())
    }

    async fn release(&mut self, id: &DeviceId) -> Result<(), TwinError> {
        if let Some(mapper) = &self.mapper {
            mapper.remove_device(id);
        }
        #[cfg(feature = "dmi")]
        if let Some(dmi) = &self.dmi {
            dmi.remove_device(id);
            self.told.remove(id);
        }
        self.twins.remove_device(id.clone()).await?;
        self.bound.remove(id);
        Ok(())
    }
}

/// The next event of a watch; never, if there is none.
async fn next_of(watch: &mut Option<Subscription<TwinEvent>>) -> Option<TwinEvent> {
    match watch {
        Some(open) => {
            let event = open.next().await;
            if event.is_none() {
                *watch = None;
            }
            event
        }
        None => std::future::pending().await,
    }
}

/// What is desired of the properties of a device.
#[cfg(feature = "dmi")]
fn desired(twin: &Twin, instance: &DeviceInstance) -> Desired {
    let names = instance.properties.iter().map(|property| &property.visitor.property);
    names.filter_map(|name| Some((name.clone(), twin.properties.get(name)?.desired.clone()?.value))).collect()
}

fn device_id(key: &MetaKey) -> Option<DeviceId> {
    match DeviceId::parse(&key.namespace, &key.name) {
        Ok(id) => Some(id),
        Err(error) => {
            tracing::warn!(%key, %error, "record is not that of a device");
            None
        }
    }
}
