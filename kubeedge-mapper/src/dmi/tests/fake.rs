//! Peers that keep a record of what they are asked, and can be told to fail.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream;
use kubeedge_core::{
    device::DeviceState,
    meta::MetaHandle,
    names::{DeviceId, UnixMillis, WallClock},
    service::Subscription,
    testing::MemoryStore,
    twin::{Delta, DeviceSelector, Twin, TwinError, TwinEvent, TwinHandle, TwinPatch, Twins},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::dmi::{
    DmiConfig, DmiDevice, DmiHost,
    rpc::{DeviceMapper, ManagerCalls, MapperService},
    socket::{Dialed, Socket, dial},
    wire::{
        DeviceName, DeviceRequest, Empty, MapperInfo, MapperRegisterRequest, MapperRegisterResponse, ModelName,
        ModelRequest,
    },
};

/// A device of protocol `protocol` with one writable property, whose address is `address`.
pub(in crate::dmi) fn device(name: &str, protocol: &str, address: u32) -> DmiDevice {
    device_with(name, &json!({"protocol": {"protocolName": protocol, "configData": {"address": address}}}), &json!({}))
}

/// The same, with what `spec` and `model` say in place of the defaults.
pub(super) fn device_with(name: &str, spec: &Value, model: &Value) -> DmiDevice {
    let mut whole = json!({
        "deviceModelRef": {"name": "meter"}, "protocol": {"protocolName": "modbus"},
        "properties": [{"name": "level", "visitors": {"protocolName": "modbus", "configData": {"offset": 1}}}],
    });
    let mut whole_model = json!({"properties": [{"name": "level", "type": "INT", "accessMode": "ReadWrite"}]});
    let overlay = |base: &mut Value, over: &Value| {
        base.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    };
    overlay(&mut whole, spec);
    overlay(&mut whole_model, model);
    let (spec, model) = (serde_json::from_value(whole).unwrap(), serde_json::from_value(whole_model).unwrap());
    let id = if name.contains('/') { name.parse() } else { DeviceId::parse("default", name) };
    DmiDevice { id: id.unwrap(), spec: Arc::new(spec), model: Arc::new(model) }
}

pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work).await.expect("it takes too long")
}

pub(super) struct Clock;

impl WallClock for Clock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000)
    }
}

/// What twins were told: (device, what, property, value, type).
pub(super) type Told = (String, &'static str, String, String, Option<String>);

/// Twins of the devices in `known`; all of them if there are none.
#[derive(Clone, Default)]
pub(super) struct Desk {
    told: Arc<Mutex<Vec<Told>>>,
    known: Arc<Vec<String>>,
    /// Calls wait as long as this is true.
    pub(super) hold: Arc<watch::Sender<bool>>,
}

impl Desk {
    pub(super) fn of(known: &[&str]) -> Self {
        Self { known: Arc::new(known.iter().map(ToString::to_string).collect()), ..Self::default() }
    }

    pub(super) fn handle(&self) -> TwinHandle {
        TwinHandle::of(self.clone())
    }

    pub(super) fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    async fn write(&self, device: DeviceId, what: &'static str, patch: TwinPatch) -> Result<Delta, TwinError> {
        self.hold.subscribe().wait_for(|hold| !hold).await.unwrap();
        if !self.known.is_empty() && !self.known.contains(&device.to_string()) {
            return Err(TwinError::UnknownDevice(device));
        }
        if let Some(property) = patch.keys().find(|name| name.as_str() == "bad") {
            return Err(TwinError::Invalid { property: property.to_string(), reason: "it is bad".into() });
        }
        for (name, patch) in patch {
            let patch = patch.unwrap();
            self.told.lock().unwrap().push((device.to_string(), what, name.to_string(), patch.value, patch.value_type));
        }
        Ok(Delta::new())
    }
}

#[async_trait]
impl Twins for Desk {
    async fn get(&self, device: DeviceId) -> Result<Twin, TwinError> {
        Ok(Twin { device, state: None, properties: BTreeMap::new() })
    }

    async fn desire(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError> {
        self.write(device, "desired", patch).await
    }

    async fn report(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError> {
        self.write(device, "reported", patch).await
    }

    async fn report_state(&self, device: DeviceId, state: DeviceState) -> Result<(), TwinError> {
        self.write(device.clone(), "state", TwinPatch::new()).await?;
        self.told.lock().unwrap().push((device.to_string(), "state", String::new(), state.as_str().to_owned(), None));
        Ok(())
    }

    async fn watch(&self, _: DeviceSelector) -> Result<Subscription<TwinEvent>, TwinError> {
        Ok(Subscription::new(stream::pending(), CancellationToken::new()))
    }
}

/// A folder with an EdgeCore in it, which can be stopped and started again on the same store.
pub(super) struct Edge {
    pub(super) folder: TempDir,
    pub(super) store: MetaHandle,
    pub(super) desk: Desk,
    pub(super) host: DmiHost,
    running: Option<(DropGuard, JoinHandle<()>)>,
}

impl Edge {
    pub(super) async fn start() -> Self {
        Self::start_with(Desk::default(), |config| config).await
    }

    pub(super) async fn start_with(desk: Desk, adjust: impl FnOnce(DmiConfig) -> DmiConfig) -> Self {
        let (folder, store) = (TempDir::new().unwrap(), MetaHandle::of(MemoryStore::new()));
        let config = adjust(DmiConfig::new(folder.path().join("dmi.sock"), store.clone(), desk.handle()));
        let (host, driver) = DmiHost::new(config);
        let stop = CancellationToken::new();
        let running = (stop.clone().drop_guard(), tokio::spawn(driver.run(stop)));
        let edge = Self { folder, store, desk, host, running: Some(running) };
        edge.wait().await;
        edge
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("dmi.sock")
    }

    async fn wait(&self) {
        while !self.socket().exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            drop(stop);
            within(task).await.unwrap();
        }
        assert!(!self.socket().exists(), "the socket is taken away");
    }

    /// Starts it on what the last one has left; the devices are the caller's to set.
    pub(super) async fn start_again(&mut self) {
        let (host, driver) = DmiHost::new(DmiConfig::new(self.socket(), self.store.clone(), self.desk.handle()));
        let stop = CancellationToken::new();
        self.host = host;
        self.running = Some((stop.clone().drop_guard(), tokio::spawn(driver.run(stop))));
        self.wait().await;
    }

    pub(super) async fn dial(&self) -> Dialed {
        dial(&self.socket()).await.unwrap()
    }

    pub(super) async fn register(&self, mapper: &FakeMapper) -> MapperRegisterResponse {
        let request = MapperRegisterRequest { with_data: true, mapper: Some(mapper.info()) };
        ManagerCalls(&self.dial().await.calls).mapper_register(request).await.unwrap()
    }
}

/// A mapper that only takes notes.
pub(super) struct FakeMapper {
    protocol: String,
    path: PathBuf,
    notes: Arc<Notes>,
    running: Option<(DropGuard, JoinHandle<()>)>,
}

#[derive(Default)]
pub(super) struct Notes {
    calls: watch::Sender<Vec<String>>,
    devices: Mutex<Vec<crate::dmi::wire::Device>>,
    /// Calls for this device or model are never answered.
    hang: Mutex<Option<String>>,
    /// Calls for this one are refused.
    refuse: Mutex<Option<String>>,
}

impl FakeMapper {
    pub(super) fn new(folder: &Path, protocol: &str) -> Self {
        let path = folder.join(format!("{protocol}.sock"));
        Self { protocol: protocol.to_owned(), path, notes: Arc::default(), running: None }
    }

    pub(super) fn started(folder: &Path, protocol: &str) -> Self {
        let mut mapper = Self::new(folder, protocol);
        mapper.start();
        mapper
    }

    pub(super) fn start(&mut self) {
        let (socket, stop) = (Socket::bind(&self.path).unwrap(), CancellationToken::new());
        let service = MapperService::new(Arc::clone(&self.notes));
        self.running = Some((stop.clone().drop_guard(), tokio::spawn(socket.serve(service, stop))));
    }

    pub(super) async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        drop(stop);
        within(task).await.unwrap();
    }

    pub(super) fn info(&self) -> MapperInfo {
        MapperInfo {
            name: format!("{}-mapper", self.protocol),
            protocol: self.protocol.clone(),
            address: self.path.as_os_str().as_encoded_bytes().to_vec(),
            state: "ok".into(),
            ..MapperInfo::default()
        }
    }

    pub(super) fn hang(&self, subject: Option<&str>) {
        *self.notes.hang.lock().unwrap() = subject.map(str::to_owned);
    }

    pub(super) fn refuse(&self, subject: Option<&str>) {
        *self.notes.refuse.lock().unwrap() = subject.map(str::to_owned);
    }

    /// All calls so far, once there are `count`; they are not told again.
    pub(super) async fn calls(&self, count: usize) -> Vec<String> {
        within(self.notes.calls.subscribe().wait_for(|calls| calls.len() >= count)).await.unwrap();
        self.notes.calls.send_replace(Vec::new())
    }

    /// Asserts that there is no call for a long time, of a paused clock.
    pub(super) async fn assert_quiet(&self) {
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(*self.notes.calls.borrow(), Vec::<String>::new());
    }

    /// The last device that it was told.
    pub(super) fn last_device(&self) -> crate::dmi::wire::Device {
        self.notes.devices.lock().unwrap().last().unwrap().clone()
    }
}

impl Notes {
    async fn note(&self, call: &str, subject: &str) -> Result<(), Status> {
        self.calls.send_modify(|calls| calls.push(format!("{call} {subject}")));
        let is = |of: &Mutex<Option<String>>| of.lock().unwrap().as_deref() == Some(subject);
        if is(&self.hang) {
            std::future::pending::<()>().await;
        }
        if is(&self.refuse) { Err(Status::unknown("no")) } else { Ok(()) }
    }

    async fn note_device(&self, call: &str, request: DeviceRequest) -> Result<(), Status> {
        let device = request.device.unwrap();
        self.devices.lock().unwrap().push(device.clone());
        self.note(call, &device.name).await
    }
}

#[async_trait]
impl DeviceMapper for Notes {
    async fn register_device(&self, request: DeviceRequest) -> Result<DeviceName, Status> {
        self.note_device("register", request).await.map(|()| DeviceName::default())
    }
    async fn remove_device(&self, request: DeviceName) -> Result<Empty, Status> {
        self.note("remove", &request.device_name).await.map(|()| Empty {})
    }
    async fn update_device(&self, request: DeviceRequest) -> Result<Empty, Status> {
        self.note_device("update", request).await.map(|()| Empty {})
    }
    async fn get_device(&self, _: DeviceName) -> Result<DeviceRequest, Status> {
        panic!("mappers in Go would end")
    }
    async fn create_device_model(&self, request: ModelRequest) -> Result<ModelName, Status> {
        self.note("create", &request.model.unwrap().name).await.map(|()| ModelName::default())
    }
    async fn remove_device_model(&self, request: ModelName) -> Result<Empty, Status> {
        self.note("unmodel", &request.name).await.map(|()| Empty {})
    }
    async fn update_device_model(&self, request: ModelRequest) -> Result<Empty, Status> {
        self.note("remodel", &request.model.unwrap().name).await.map(|()| Empty {})
    }
}
