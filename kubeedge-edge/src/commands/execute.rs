//! One command.

use std::collections::{BTreeMap, BTreeSet};

use kubeedge_core::{
    device::{
        DeviceMethod, DeviceSpec,
        command::{CommandValue, DeviceCommand, MAX_PROPERTIES},
    },
    mapper::DriverError,
    meta::{Collection, MetaKey},
    names::{DeviceId, PropertyName},
    resource::ResourceType,
    service::Causes,
    twin::{DeviceSelector, PropertyPatch, Twin, TwinError, TwinEvent},
};
use kubeedge_mapper::{DemandError, MapperHost};
use serde::Deserialize;

use super::Commands;

/// Why a command was not carried out in full.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u16,
    pub(super) reason: String,
}

type Values = BTreeMap<PropertyName, CommandValue>;

impl Failure {
    fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    pub(super) fn late() -> Self {
        Self::new(504, "no answer in time")
    }

    fn of(property: &PropertyName, error: &DemandError) -> Self {
        let code = match error {
            DemandError::UnknownDevice(_) | DemandError::UnknownProperty(_) => 404,
            DemandError::ReadOnly(_) | DemandError::Value(_) | DemandError::Driver(DriverError::Config { .. }) => 400,
            DemandError::Driver(DriverError::Refused(_)) => 422,
            DemandError::Busy => 429,
            DemandError::TimedOut => 504,
            _ => 503,
        };
        Self::new(code, format!("property {property}: {}", Causes(error)))
    }

    fn of_twin(error: &TwinError) -> Self {
        let code = match error {
            TwinError::UnknownDevice(_) => 404,
            TwinError::Invalid { .. } => 400,
            TwinError::Busy => 429,
            TwinError::TimedOut => 504,
            _ => 503,
        };
        Self::new(code, Causes(error).to_string())
    }
}

#[derive(Deserialize)]
struct DeviceObject {
    #[serde(default)]
    spec: DeviceSpec,
}

impl Commands {
    pub(super) async fn carry_out(
        &self,
        device: &DeviceId,
        command: DeviceCommand,
        origin: &str,
        values: &mut Values,
    ) -> Result<(), Failure> {
        let DeviceCommand { method, write, read, .. } = command;
        match write.len() + read.len() {
            0 => return Err(Failure::new(400, "neither write nor read names a property")),
            count if count > MAX_PROPERTIES => {
                return Err(Failure::new(400, format!("{count} properties are more than {MAX_PROPERTIES}")));
            }
            _ => {}
        }
        if let Some(method) = &method {
            fits(method, &self.methods(device).await?, &write)?;
        }
        let read: BTreeSet<_> = read.into_iter().filter(|name| !write.contains_key(name)).collect();
        match self.mapper.as_ref().filter(|mapper| mapper.device(device).is_some()) {
            Some(mapper) => at_once(mapper, device, write, read, origin, values).await,
            None => self.through_twin(device, write, read, origin, values).await,
        }
    }

    async fn methods(&self, device: &DeviceId) -> Result<Vec<DeviceMethod>, Failure> {
        let kind = Collection::from(&ResourceType::Device);
        let key = MetaKey::new(kind, device.namespace().as_str(), device.name().as_str());
        let record = self.store.get(key).await.map_err(|error| Failure::new(503, Causes(&error).to_string()))?;
        let record = record.ok_or_else(|| Failure::new(404, format!("device {device} is not on this node")))?;
        let object: DeviceObject =
            serde_json::from_slice(&record.value).map_err(|error| Failure::new(503, error.to_string()))?;
        Ok(object.spec.methods)
    }

    async fn through_twin(
        &self,
        device: &DeviceId,
        write: BTreeMap<PropertyName, String>,
        read: BTreeSet<PropertyName>,
        origin: &str,
        values: &mut Values,
    ) -> Result<(), Failure> {
        let failed = |error: TwinError| Failure::of_twin(&error);
        let mut changes = self.twins.watch(DeviceSelector::One(device.clone())).await.map_err(failed)?;
        if !write.is_empty() {
            let patch = |value: &String| Some(PropertyPatch { value: value.clone(), value_type: None });
            let patch = write.iter().map(|(name, value)| (name.clone(), patch(value))).collect();
            let desired = self.twins.desire(device.clone(), patch).await.map(drop).map_err(failed);
            for (property, value) in &write {
                let error = desired.as_ref().err().map(|failure| failure.reason.as_str());
                tracing::info!(target: "audit", origin, %device, %property, value, error, "value desired by a command");
            }
            desired?;
        }
        let mut twin = self.twins.get(device.clone()).await.map_err(failed)?;
        while let Some(missing) = write.iter().find(|(name, value)| !has(&twin, name, value)).map(|(name, _)| name) {
            match changes.next().await {
                Some(TwinEvent::Changed { twin: changed, .. }) => twin = changed,
                Some(TwinEvent::Lagged(_)) => twin = self.twins.get(device.clone()).await.map_err(failed)?,
                Some(TwinEvent::Removed(_)) => return Err(Failure::new(404, format!("device {device} was removed"))),
                Some(_) => {}
                None => return Err(Failure::new(503, format!("property {missing}: twins do not tell of it"))),
            }
            note(&twin, write.iter().filter(|(name, value)| has(&twin, name, value)).map(|(name, _)| name), values);
        }
        note(&twin, write.keys(), values);
        note(&twin, read.iter(), values);
        match read.iter().find(|name| !values.contains_key(*name)) {
            Some(name) => Err(Failure::new(404, format!("property {name}: nothing was reported of it yet"))),
            None => Ok(()),
        }
    }
}

/// Asks the driver.
async fn at_once(
    mapper: &MapperHost,
    device: &DeviceId,
    write: BTreeMap<PropertyName, String>,
    read: BTreeSet<PropertyName>,
    origin: &str,
    values: &mut Values,
) -> Result<(), Failure> {
    for (property, value) in write {
        let written = mapper.write(device, &property, value.clone(), origin).await;
        let error = written.as_ref().err().map(|error| Causes(error).to_string());
        tracing::info!(target: "audit", origin, %device, %property, value, error, "value written by a command");
        let reading = written.map_err(|error| Failure::of(&property, &error))?;
        values.insert(property, CommandValue { value: reading.text, timestamp: reading.at });
    }
    for property in read {
        let reading = mapper.read(device, &property).await.map_err(|error| Failure::of(&property, &error))?;
        values.insert(property, CommandValue { value: reading.text, timestamp: reading.at });
    }
    Ok(())
}

/// A method is a name for properties that are written together.
fn fits(method: &str, methods: &[DeviceMethod], write: &BTreeMap<PropertyName, String>) -> Result<(), Failure> {
    let known = methods.iter().find(|known| known.name == method);
    let known = known.ok_or_else(|| Failure::new(404, format!("the device has no method {method:?}")))?;
    let own = |name: &PropertyName| known.property_names.iter().any(|own| own == name.as_str());
    match write.keys().find(|name| !own(name)) {
        Some(other) => Err(Failure::new(400, format!("method {method:?} does not write property {other}"))),
        None if write.is_empty() => {
            let names = known.property_names.join(", ");
            Err(Failure::new(400, format!("method {method:?} needs values in write, for {names}")))
        }
        None => Ok(()),
    }
}

fn has(twin: &Twin, name: &PropertyName, value: &str) -> bool {
    let reported = twin.properties.get(name).and_then(|property| property.reported.as_ref());
    reported.is_some_and(|reported| {
        let (known, wanted) = (reported.value.as_str(), value);
        // 46 and 46.0 are one number.
        known == wanted || known.parse::<f64>().is_ok_and(|known| wanted.parse() == Ok(known))
    })
}

fn note<'a>(twin: &Twin, names: impl Iterator<Item = &'a PropertyName>, values: &mut Values) {
    for name in names {
        if let Some(reported) = twin.properties.get(name).and_then(|property| property.reported.as_ref()) {
            values.insert(name.clone(), CommandValue { value: reported.value.clone(), timestamp: reported.at });
        }
    }
}
