//! Serves the calls of EdgeCore.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use kubeedge_core::{names::DeviceId, service::Causes};
use tonic::Status;

use super::{Catalog, DmiTwins};
use crate::{
    MapperHost,
    dmi::{
        device::{BadMessage, DmiDevice, ModelId, device_from_wire, device_id, model_from_wire},
        rpc::DeviceMapper,
        wire::{DeviceName, DeviceRequest, Empty, MapperRegisterResponse, ModelName, ModelRequest},
    },
};

/// What EdgeCore tells, on its way to the host.
pub(super) struct Devices {
    catalog: Catalog,
    twins: DmiTwins,
    host: MapperHost,
}

impl Devices {
    pub(super) fn new(catalog: Catalog, twins: DmiTwins, host: MapperHost) -> Self {
        Self { catalog, twins, host }
    }

    /// Takes over what EdgeCore answered to a registration: all that there is. What is wrong is left as it was.
    pub(super) fn replace(&self, answer: MapperRegisterResponse) {
        let (mut models, mut devices) = (BTreeSet::new(), BTreeSet::new());
        for model in answer.model_list {
            match model_from_wire(Some(model)) {
                Ok((id, spec)) => {
                    self.catalog.set_model(&id, spec);
                    models.insert(id);
                }
                Err(error) => tracing::warn!(%error, "device model cannot be used"),
            }
        }
        for device in answer.device_list {
            let id = device_id(&device.namespace, &device.name);
            devices.extend(id.ok());
            if let Err(status) = self.take(Some(device)) {
                tracing::warn!(error = status.message(), "device cannot be used");
            }
        }
        for id in self.catalog.ids().into_iter().filter(|id| !devices.contains(id)) {
            self.forget(&id);
        }
        self.catalog.retain_models(|id| models.contains(id));
    }

    fn take(&self, device: Option<crate::dmi::wire::Device>) -> Result<DeviceId, Status> {
        let (id, spec) = device_from_wire(device).map_err(bad)?;
        let before = self.catalog.device(&id);
        self.catalog.set_device(id.clone(), spec);
        match self.catalog.device(&id) {
            Some(device) if before.as_ref() == Some(&device) => Ok(id),
            Some(device) => self.bind(&device).map(|()| id),
            None => {
                tracing::info!(device = %id, "device waits for its model");
                Ok(id)
            }
        }
    }

    fn bind(&self, device: &DmiDevice) -> Result<(), Status> {
        let instance = device.instance().map_err(|error| Status::invalid_argument(Causes(&error).to_string()))?;
        // The twin first: the host asks it for what is desired.
        self.twins.set(&device.id, &device.spec, &instance);
        self.host.set_device(Arc::new(instance)).map_err(|error| Status::failed_precondition(error.to_string()))
    }

    fn forget(&self, id: &DeviceId) -> bool {
        self.host.remove_device(id);
        self.twins.remove(id);
        self.catalog.remove_device(id)
    }

    fn take_model(&self, request: ModelRequest) -> Result<ModelName, Status> {
        let (id, spec) = model_from_wire(request.model).map_err(bad)?;
        let name = ModelName { name: id.name.to_string(), namespace: id.namespace.to_string() };
        for device in self.catalog.set_model(&id, spec) {
            // The model is good; what is wrong is told of the device.
            if let Err(status) = self.bind(&device) {
                tracing::warn!(device = %device.id, error = status.message(), "device cannot be used");
            }
        }
        Ok(name)
    }
}

#[async_trait]
impl DeviceMapper for Devices {
    async fn register_device(&self, request: DeviceRequest) -> Result<DeviceName, Status> {
        let id = self.take(request.device)?;
        Ok(DeviceName { device_name: id.name().to_string(), device_namespace: id.namespace().to_string() })
    }

    async fn remove_device(&self, request: DeviceName) -> Result<Empty, Status> {
        let id = device_id(&request.device_namespace, &request.device_name).map_err(bad)?;
        // Gone is gone, however often it is said.
        self.forget(&id);
        Ok(Empty {})
    }

    async fn update_device(&self, request: DeviceRequest) -> Result<Empty, Status> {
        self.take(request.device).map(|_| Empty {})
    }

    async fn get_device(&self, request: DeviceName) -> Result<DeviceRequest, Status> {
        let id = device_id(&request.device_namespace, &request.device_name).map_err(bad)?;
        if !self.catalog.knows(&id) {
            return Err(Status::not_found(format!("device {id} is not at this mapper")));
        }
        let Some(device) = self.catalog.device(&id) else {
            return Err(Status::failed_precondition(format!("device {id} waits for its model")));
        };
        let mut device = device.to_wire();
        if let Some(status) = &mut device.status {
            status.twins = self.twins.to_wire(&id);
        }
        Ok(DeviceRequest { device: Some(device) })
    }

    async fn create_device_model(&self, request: ModelRequest) -> Result<ModelName, Status> {
        self.take_model(request)
    }

    async fn remove_device_model(&self, request: ModelName) -> Result<Empty, Status> {
        let id = ModelId::parse(&request.namespace, &request.name).map_err(bad)?;
        // Devices that use it go on as they are: it may come back under the same name.
        self.catalog.remove_model(&id);
        Ok(Empty {})
    }

    async fn update_device_model(&self, request: ModelRequest) -> Result<Empty, Status> {
        self.take_model(request).map(|_| Empty {})
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn bad(error: BadMessage) -> Status {
    Status::invalid_argument(error.to_string())
}
