//! Serves the calls of mappers.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    device::DeviceState,
    meta::{MetaError, MetaWrite},
    names::{DeviceId, PropertyName},
    service::Causes,
    twin::{PropertyPatch, TwinError, TwinPatch},
};
use tokio::time::timeout;
use tonic::Status;

use super::{
    persist::{self, MapperRecord},
    plan::Told,
    reports::status,
    state::{Mapper, Shared},
};
use crate::dmi::{
    device::device_id,
    rpc::DeviceManager,
    wire::{
        Empty, MapperRegisterRequest, MapperRegisterResponse, ReportDeviceStatesRequest, ReportDeviceStatusRequest,
        TwinProperty,
    },
};

/// How long a mapper that registers waits for the devices of the node after a start. Mappers in Go give up after 1 s.
const SETTLE: Duration = Duration::from_millis(500);

/// The service of [`DmiDriver`](super::DmiDriver).
pub(super) struct Manager(pub(super) Arc<Shared>);

#[async_trait]
impl DeviceManager for Manager {
    async fn mapper_register(&self, request: MapperRegisterRequest) -> Result<MapperRegisterResponse, Status> {
        let record = MapperRecord::new(request.mapper.ok_or_else(|| missing("mapper"))?);
        if record.protocol.is_empty() {
            return Err(missing("mapper.protocol"));
        }
        if record.name.is_empty() {
            return Err(missing("mapper.name"));
        }
        let Some(path) = record.path() else {
            return Err(Status::invalid_argument("mapper.address is not the path of a socket"));
        };
        self.settle().await;
        let (answer, writes) = {
            let mut state = self.0.lock();
            let known = state.mappers.contains_key(&record.protocol);
            if !known && state.mappers.len() >= self.0.config.mappers {
                return Err(Status::resource_exhausted("there are too many mappers"));
            }
            let (answer, told) = if request.with_data { state.answer(&record.protocol) } else { Default::default() };
            let before = state.mappers.remove(&record.protocol);
            let writes = writes(&record, before.as_ref(), &told);
            let epoch = before.map_or(0, |before| before.epoch) + 1;
            let mapper = Mapper { record: record.clone(), path, epoch, told };
            state.mappers.insert(record.protocol.clone(), mapper);
            (answer, writes)
        };
        self.0.changed();
        let stored = match writes {
            Ok(writes) => self.0.config.store.commit(writes).await,
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            return Err(Status::unavailable(format!("mapper cannot be remembered: {}", Causes(&error))));
        }
        let (devices, models) = (answer.device_list.len(), answer.model_list.len());
        tracing::info!(mapper = record.name, protocol = record.protocol, devices, models, "mapper registered");
        Ok(answer)
    }

    async fn report_device_status(&self, request: ReportDeviceStatusRequest) -> Result<Empty, Status> {
        let slot = self.0.reports.slot()?;
        let device = request.reported_device.ok_or_else(|| missing("reportedDevice"))?;
        let id = self.resolve(&request.device_namespace, &request.device_name)?;
        let (mut desired, mut reported) = (TwinPatch::new(), TwinPatch::new());
        for twin in device.twins {
            let name = PropertyName::new(&twin.property_name).map_err(|error| invalid(&error))?;
            let observed = twin.observed_desired.ok_or_else(|| missing("observedDesired"))?;
            let has = twin.reported.ok_or_else(|| missing("reported"))?;
            // Empty means that nothing was desired.
            if !observed.value.is_empty() {
                desired.insert(name.clone(), Some(patch(observed)));
            }
            reported.insert(name, Some(patch(has)));
        }
        self.0.reports.tell(slot, id, desired, reported).await?;
        Ok(Empty {})
    }

    async fn report_device_states(&self, request: ReportDeviceStatesRequest) -> Result<Empty, Status> {
        let _slot = self.0.reports.slot()?;
        if request.state.is_empty() {
            return Err(missing("state"));
        }
        let id = self.resolve(&request.device_namespace, &request.device_name)?;
        let told = self.0.config.twins.report_state(id, DeviceState::from(request.state));
        let outcome = timeout(self.0.config.call_timeout, told).await.unwrap_or(Err(TwinError::TimedOut));
        outcome.map_err(|error| status(&error))?;
        Ok(Empty {})
    }
}

impl Manager {
    /// Waits until the devices of the node are known, but not for long: what comes later is told by calls.
    async fn settle(&self) {
        let mut changes = self.0.changes();
        let all_set = async { while !self.0.lock().all_set && changes.changed().await.is_ok() {} };
        let _ = timeout(SETTLE, all_set).await;
    }

    /// The device that is meant. Mappers of KubeEdge 1.15 say no namespace.
    fn resolve(&self, namespace: &str, name: &str) -> Result<DeviceId, Status> {
        if name.is_empty() {
            return Err(missing("deviceName"));
        }
        if !namespace.is_empty() {
            return device_id(namespace, name).map_err(|error| invalid(&error));
        }
        self.0.lock().unique(name).map_err(|count| match count {
            0 => Status::not_found(format!("no device is called {name:?}")),
            _ => {
                Status::invalid_argument(format!("deviceNamespace is missing, and {count} devices are called {name:?}"))
            }
        })
    }
}

/// The mapper in place of the one before, and exactly what it was told.
fn writes(record: &MapperRecord, before: Option<&Mapper>, told: &Told) -> Result<Vec<MetaWrite>, MetaError> {
    let mut writes = vec![persist::put_mapper(record)?];
    if let Some(other) = before.filter(|before| before.record.name != record.name) {
        writes.push(persist::delete_mapper(&other.record.name)?);
    }
    let known = before.map(|before| &before.told.devices);
    for id in known.into_iter().flatten().map(|(id, _)| id).filter(|id| !told.devices.contains_key(*id)) {
        writes.push(persist::set_told(&record.protocol, id, None)?);
    }
    for (id, device) in &told.devices {
        writes.push(persist::set_told(&record.protocol, id, Some(device))?);
    }
    Ok(writes)
}

fn patch(property: TwinProperty) -> PropertyPatch {
    // Words that are no type of a twin are of the mapper's own; the type that the property has is kept then.
    let word = property.metadata.get("type").map(|word| word.to_ascii_lowercase());
    let known = |word: &String| {
        matches!(word.as_str(), "string" | "int" | "integer" | "float" | "double" | "boolean" | "bytes")
    };
    PropertyPatch { value: property.value, value_type: word.filter(known) }
}

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is missing"))
}

fn invalid(error: &dyn std::error::Error) -> Status {
    Status::invalid_argument(error.to_string())
}
