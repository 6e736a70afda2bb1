//! The twins of EdgeCore as a mapper sees them: desired values come with the devices, reports are calls.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use kubeedge_core::{
    device::{DeviceInstance, DeviceSpec, DeviceState},
    names::{DeviceId, PropertyName, SharedClock},
    service::Subscription,
    twin::{
        self, Delta, DeviceSelector, PropertyPatch, Twin, TwinError, TwinEvent, TwinPatch, TwinProperty, TwinValue,
        TwinVersion, Twins,
    },
};
use tokio::sync::broadcast;

use super::Link;
use crate::dmi::wire;

/// Events that a watcher may fall behind.
const EVENTS: usize = 256;

#[derive(Clone)]
pub(super) struct DmiTwins {
    shared: Arc<Shared>,
}

struct Shared {
    link: Arc<Link>,
    clock: SharedClock,
    twins: Mutex<BTreeMap<DeviceId, Known>>,
    events: broadcast::Sender<TwinEvent>,
}

struct Known {
    twin: Twin,
    /// `metadata.type` of the desired values, in the words of whoever wrote the Device.
    types: BTreeMap<PropertyName, String>,
}

impl DmiTwins {
    pub(super) fn new(link: Arc<Link>, clock: SharedClock) -> Self {
        let events = broadcast::channel(EVENTS).0;
        Self { shared: Arc::new(Shared { link, clock, twins: Mutex::default(), events }) }
    }

    /// Takes over the properties of a device. A desired value that is said again keeps its time.
    pub(super) fn set(&self, id: &DeviceId, spec: &DeviceSpec, instance: &DeviceInstance) {
        let at = self.shared.clock.now();
        let types = spec.properties.iter().filter_map(|property| {
            let word = property.desired.as_ref()?.metadata.get("type")?.clone();
            Some((PropertyName::new(&property.name).ok()?, word))
        });
        let types = types.collect();
        let mut twins = self.lock();
        let mut before = twins.remove(id);
        let mut twin = Twin {
            device: id.clone(),
            state: before.as_ref().and_then(|before| before.twin.state.clone()),
            properties: BTreeMap::new(),
        };
        let mut changed = Vec::new();
        for property in &instance.properties {
            let name = &property.visitor.property;
            let known = before.as_mut().and_then(|before| before.twin.properties.remove(name));
            let (was, reported) = known.map_or((None, None), |known| (known.desired, known.reported));
            let desired = property.desired.clone().map(|value| match &was {
                Some(was) if was.value == value => was.clone(),
                _ => TwinValue { value, at },
            });
            if desired != was {
                changed.push(name.clone());
            }
            let value_type = property.visitor.value_type.twin_type();
            twin.properties.insert(name.clone(), TwinProperty { desired, reported, ..new_property(value_type) });
        }
        twins.insert(id.clone(), Known { twin: twin.clone(), types });
        drop(twins);
        self.tell(TwinEvent::Changed { twin, changed });
    }

    pub(super) fn remove(&self, id: &DeviceId) {
        if self.lock().remove(id).is_some() {
            self.tell(TwinEvent::Removed(id.clone()));
        }
    }

    /// Values of a device for whoever asks for it.
    pub(super) fn to_wire(&self, id: &DeviceId) -> Vec<wire::Twin> {
        let twins = self.lock();
        let Some(known) = twins.get(id) else { return Vec::new() };
        let twin = |(name, property): (&PropertyName, &TwinProperty)| wire::Twin {
            property_name: name.to_string(),
            observed_desired: Some(value_to_wire(property.desired.as_ref(), &property.value_type)),
            reported: Some(value_to_wire(property.reported.as_ref(), &property.value_type)),
        };
        known.twin.properties.iter().map(twin).collect()
    }

    async fn tell_edge(&self, device: &DeviceId, twins: Vec<wire::Twin>) -> Result<(), TwinError> {
        if twins.is_empty() {
            return Ok(());
        }
        let request = wire::ReportDeviceStatusRequest {
            device_name: device.name().to_string(),
            reported_device: Some(wire::DeviceStatus { twins, ..wire::DeviceStatus::default() }),
            device_namespace: device.namespace().to_string(),
        };
        self.shared.link.call(device, async |edge| edge.report_device_status(request).await).await.map(drop)
    }

    /// Changes a twin and tells of it.
    fn change(&self, id: &DeviceId, change: impl FnOnce(&mut Twin) -> Vec<PropertyName>) -> Result<Delta, TwinError> {
        let mut twins = self.lock();
        let known = twins.get_mut(id).ok_or_else(|| TwinError::UnknownDevice(id.clone()))?;
        let changed = change(&mut known.twin);
        let twin = known.twin.clone();
        drop(twins);
        let delta = delta(&twin);
        self.tell(TwinEvent::Changed { twin, changed });
        Ok(delta)
    }

    fn tell(&self, event: TwinEvent) {
        // Nobody watching is fine.
        let _ = self.shared.events.send(event);
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Known>> {
        self.shared.twins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Twins for DmiTwins {
    async fn get(&self, device: DeviceId) -> Result<Twin, TwinError> {
        self.lock().get(&device).map(|known| known.twin.clone()).ok_or(TwinError::UnknownDevice(device))
    }

    async fn desire(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError> {
        let at = self.shared.clock.now();
        self.change(&device, |twin| {
            let set = |(name, patch): (PropertyName, Option<PropertyPatch>)| {
                let property = twin.properties.entry(name.clone()).or_insert_with(|| new_property("string"));
                property.desired = patch.map(|patch| TwinValue { value: patch.value, at });
                name
            };
            patch.into_iter().map(set).collect()
        })
    }

    async fn report(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError> {
        let at = self.shared.clock.now();
        let twins = {
            let twins = self.lock();
            let known = twins.get(&device).ok_or_else(|| TwinError::UnknownDevice(device.clone()))?;
            // Removals cannot be told.
            let values = patch.iter().filter_map(|(name, patch)| Some((name, patch.as_ref()?)));
            let twin = |(name, patch): (&PropertyName, &PropertyPatch)| {
                let desired = known.twin.properties.get(name).and_then(|property| property.desired.as_ref());
                let word = patch.value_type.as_deref().or(known.types.get(name).map(String::as_str));
                let word = word.unwrap_or_default();
                let reported = TwinValue { value: patch.value.clone(), at };
                wire::Twin {
                    property_name: name.to_string(),
                    // Both are there even if they are empty: EdgeCore in Go ends without them.
                    observed_desired: Some(value_to_wire(desired, word)),
                    reported: Some(value_to_wire(Some(&reported), word)),
                }
            };
            values.map(twin).collect::<Vec<_>>()
        };
        match self.tell_edge(&device, twins.clone()).await {
            Err(TwinError::Invalid { .. }) => {
                // One is at fault, and the others are not to suffer: told one by one, it is found.
                for twin in twins {
                    let property = twin.property_name.clone();
                    self.tell_edge(&device, vec![twin]).await.map_err(|error| match error {
                        TwinError::Invalid { reason, .. } => TwinError::Invalid { property, reason },
                        other => other,
                    })?;
                }
            }
            other => other?,
        }
        self.change(&device, |twin| {
            let set = |(name, patch): (PropertyName, Option<PropertyPatch>)| {
                let property = twin.properties.entry(name.clone()).or_insert_with(|| new_property("string"));
                property.reported = patch.map(|patch| TwinValue { value: patch.value, at });
                name
            };
            patch.into_iter().map(set).collect()
        })
    }

    async fn report_state(&self, device: DeviceId, state: DeviceState) -> Result<(), TwinError> {
        let request = wire::ReportDeviceStatesRequest {
            device_name: device.name().to_string(),
            device_namespace: device.namespace().to_string(),
            state: state.as_str().to_owned(),
        };
        self.shared.link.call(&device, async |edge| edge.report_device_states(request).await).await?;
        self.change(&device, |twin| {
            twin.state = Some(state);
            Vec::new()
        })?;
        Ok(())
    }

    async fn watch(&self, select: DeviceSelector) -> Result<Subscription<TwinEvent>, TwinError> {
        Ok(twin::watch(&self.shared.events, select))
    }
}

impl fmt::Debug for DmiTwins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmiTwins").finish_non_exhaustive()
    }
}

fn new_property(value_type: &str) -> TwinProperty {
    TwinProperty {
        desired: None,
        reported: None,
        value_type: value_type.to_owned(),
        optional: true,
        desired_version: TwinVersion::default(),
        reported_version: TwinVersion::default(),
    }
}

fn value_to_wire(value: Option<&TwinValue>, word: &str) -> wire::TwinProperty {
    let Some(value) = value else { return wire::TwinProperty::default() };
    let mut metadata = BTreeMap::from([("timestamp".to_owned(), value.at.to_string())]);
    if !word.is_empty() {
        metadata.insert("type".to_owned(), word.to_owned());
    }
    wire::TwinProperty { value: value.value.clone(), metadata }
}

fn delta(twin: &Twin) -> Delta {
    let missing = |property: &TwinProperty| {
        let desired = property.desired.as_ref()?;
        let reached = property.reported.as_ref().is_some_and(|reported| reported.value == desired.value);
        (!reached).then(|| desired.value.clone())
    };
    twin.properties.iter().filter_map(|(name, property)| Some((name.clone(), missing(property)?))).collect()
}
