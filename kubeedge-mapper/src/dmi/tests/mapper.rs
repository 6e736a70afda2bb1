//! A mapper of ours beside an EdgeCore of ours, and beside one that behaves as Go's does.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    device::DeviceState,
    mapper::{Driver, DriverError, DriverHandle, Sample, Value, Visitor, driver_maker},
    names::{SystemClock, UnixMillis},
    twin::{PropertyPatch, TwinError, TwinPatch},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status};

use super::fake::{Clock, Edge, device, device_with, within};
use crate::{
    MapperConfig, MapperHost,
    dmi::{
        Catalog, DmiMapperConfig, Mapper,
        rpc::{DeviceManager, ManagerService, MapperCalls},
        socket::{Dialed, Socket, dial},
        wire::{
            DeviceName, DeviceRequest, Empty, MapperRegisterRequest, MapperRegisterResponse, ModelName, ModelRequest,
            ReportDeviceStatesRequest, ReportDeviceStatusRequest,
        },
    },
};

/// A device of one register.
#[derive(Clone, Default)]
struct Register(Arc<Mutex<i64>>);

#[async_trait]
impl Driver for Register {
    async fn read(&self, _: Visitor) -> Result<Sample, DriverError> {
        Ok(Sample { value: Value::Int(*self.0.lock().unwrap()), at: UnixMillis(1) })
    }

    async fn write(&self, _: Visitor, value: Value) -> Result<(), DriverError> {
        let Value::Int(number) = value else { return Err(DriverError::Refused("not a number".into())) };
        *self.0.lock().unwrap() = number;
        Ok(())
    }
}

struct Running {
    register: Register,
    catalog: Catalog,
    socket: PathBuf,
    _tasks: (DropGuard, [JoinHandle<()>; 2]),
}

fn start(edgecore: PathBuf) -> Running {
    let socket = edgecore.parent().unwrap().join("modbus.sock");
    let mut config = DmiMapperConfig::new("modbus-mapper", "modbus", &socket, Arc::new(SystemClock));
    config.edgecore = edgecore;
    let mapper = Mapper::new(config);
    let (register, catalog, stop) = (Register::default(), mapper.catalog(), CancellationToken::new());
    let opened = register.clone();
    let maker = driver_maker(move |_| {
        let opened = DriverHandle::of(opened.clone());
        async move { Ok(opened) }
    });
    let (host, polling) = MapperHost::new(MapperConfig::new(mapper.twins()), [("modbus".to_owned(), maker)]);
    let tasks = [tokio::spawn(mapper.serve(host, stop.clone())), tokio::spawn(polling.run(stop.clone()))];
    Running { register, catalog, socket, _tasks: (stop.drop_guard(), tasks) }
}

fn reporting(desired: &str) -> serde_json::Value {
    json!({"properties": [{"name": "level", "reportToCloud": true,
        "desired": {"value": desired, "metadata": {"type": "int"}}}]})
}

async fn until<T>(mut probe: impl FnMut() -> Option<T>) -> T {
    within(async {
        loop {
            if let Some(found) = probe() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn desired_values_reach_the_device_and_its_values_the_edge_through_restarts_of_it() {
    let mut edge = Edge::start().await;
    edge.host.set_device(device_with("boiler", &reporting("42"), &json!({})));
    edge.host.all_set();
    let mapper = start(edge.socket());
    let told = |edge: &Edge, value: &str| {
        let told = edge.desk.take();
        told.iter().any(|told| told.1 == "reported" && told.3 == value).then_some(told)
    };
    let all = until(|| told(&edge, "42")).await;
    assert_eq!(*mapper.register.0.lock().unwrap(), 42, "what is desired was written");
    let of = ("default/boiler".to_owned(), "desired", "level".to_owned(), "42".to_owned(), Some("int".to_owned()));
    assert!(all.contains(&of), "the device has seen what is desired: {all:?}");

    edge.host.set_device(device_with("boiler", &reporting("43"), &json!({})));
    until(|| told(&edge, "43")).await;

    // The edge is away; what is read meanwhile is told when it is back, and what changed there is taken over.
    edge.stop().await;
    *mapper.register.0.lock().unwrap() = 17;
    tokio::time::sleep(Duration::from_secs(30)).await;
    edge.start_again().await;
    edge.host.set_device(device_with("boiler", &reporting("43"), &json!({})));
    edge.host.set_device(device("pump", "modbus", 1));
    edge.host.all_set();
    until(|| told(&edge, "17")).await;
    until(|| mapper.catalog.device(&"default/pump".parse().unwrap())).await;

    edge.host.remove_device(&"default/boiler".parse().unwrap());
    until(|| mapper.catalog.device(&"default/boiler".parse().unwrap()).is_none().then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_mapper_waits_for_an_edge_that_starts_later() {
    let folder = TempDir::new().unwrap();
    let mapper = start(folder.path().join("dmi.sock"));
    tokio::time::sleep(Duration::from_secs(120)).await;
    let edge = GoEdge::start(&folder.path().join("dmi.sock"));
    until(|| (!edge.registered.lock().unwrap().is_empty()).then_some(())).await;
    let request = edge.registered.lock().unwrap().pop().unwrap();
    let info = request.mapper.unwrap();
    assert!(request.with_data);
    assert_eq!((info.name.as_str(), info.protocol.as_str()), ("modbus-mapper", "modbus"));
    assert_eq!(info.address, mapper.socket.as_os_str().as_encoded_bytes(), "where it listens already");
    assert!(dial(&mapper.socket).await.is_ok());
}

/// As Go's EdgeCore is: one call per second, and one code for all errors.
#[derive(Default)]
struct GoEdge {
    registered: Mutex<Vec<MapperRegisterRequest>>,
    reported: Mutex<Vec<ReportDeviceStatusRequest>>,
    states: Mutex<Vec<ReportDeviceStatesRequest>>,
    answer: Mutex<MapperRegisterResponse>,
    refuse: Mutex<Option<Status>>,
}

impl GoEdge {
    fn start(socket: &Path) -> Arc<Self> {
        let edge = Arc::new(Self::default());
        let service = ManagerService::new(Arc::clone(&edge));
        tokio::spawn(Socket::bind(socket).unwrap().serve(service, CancellationToken::new()));
        edge
    }

    fn refusal(&self) -> Result<(), Status> {
        self.refuse.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl DeviceManager for GoEdge {
    async fn mapper_register(&self, request: MapperRegisterRequest) -> Result<MapperRegisterResponse, Status> {
        self.registered.lock().unwrap().push(request);
        Ok(self.answer.lock().unwrap().clone())
    }

    async fn report_device_status(&self, request: ReportDeviceStatusRequest) -> Result<Empty, Status> {
        self.refusal()?;
        self.reported.lock().unwrap().push(request);
        Ok(Empty {})
    }

    async fn report_device_states(&self, request: ReportDeviceStatesRequest) -> Result<Empty, Status> {
        self.refusal()?;
        self.states.lock().unwrap().push(request);
        Ok(Empty {})
    }
}

async fn call(mapper: &Running) -> Dialed {
    until(|| mapper.socket.exists().then_some(())).await;
    dial(&mapper.socket).await.unwrap()
}

fn model_of(device: &crate::dmi::DmiDevice) -> ModelRequest {
    ModelRequest { model: Some(device.model_id().unwrap().to_wire(&device.model)) }
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_go_edge_may_come_in_any_order_and_again() {
    let folder = TempDir::new().unwrap();
    let edge = GoEdge::start(&folder.path().join("dmi.sock"));
    let mapper = start(folder.path().join("dmi.sock"));
    let dialed = call(&mapper).await;
    let calls = MapperCalls(&dialed.calls);
    until(|| (!edge.registered.lock().unwrap().is_empty()).then_some(())).await;

    let boiler = device_with("boiler", &reporting("42"), &json!({}));
    let (id, request) = (boiler.id.clone(), DeviceRequest { device: Some(boiler.to_wire()) });
    let named = DeviceName { device_name: "boiler".into(), device_namespace: "default".into() };
    assert_eq!(calls.get_device(named.clone()).await.unwrap_err().code(), Code::NotFound);
    for _ in 0..2 {
        assert_eq!(calls.register_device(request.clone()).await.unwrap(), named, "Go leaves the namespace out");
        assert_eq!(mapper.catalog.device(&id), None, "it waits for its model");
    }
    calls.create_device_model(model_of(&boiler)).await.unwrap();
    assert_eq!(mapper.catalog.device(&id).unwrap().to_wire(), boiler.to_wire());
    until(|| (*mapper.register.0.lock().unwrap() == 42).then_some(())).await;

    // What a report carries, so that EdgeCore in Go does not end.
    let report = until(|| edge.reported.lock().unwrap().pop()).await;
    assert_eq!((report.device_name.as_str(), report.device_namespace.as_str()), ("boiler", "default"));
    let twin = &report.reported_device.unwrap().twins[0];
    assert_eq!(twin.observed_desired.as_ref().unwrap().value, "42");
    let reported = twin.reported.as_ref().unwrap();
    assert_eq!((reported.value.as_str(), reported.metadata["type"].as_str()), ("42", "int"));
    let state = until(|| edge.states.lock().unwrap().pop()).await;
    assert_eq!((state.device_name.as_str(), state.state.as_str()), ("boiler", "online"));

    // GetDevice ends mappers in Go; here it answers.
    let told = calls.get_device(named.clone()).await.unwrap().device.unwrap();
    assert_eq!(told.status.unwrap().twins[0].reported.as_ref().unwrap().value, "42");

    let again = device_with("boiler", &reporting("43"), &json!({}));
    calls.update_device(DeviceRequest { device: Some(again.to_wire()) }).await.unwrap();
    until(|| (*mapper.register.0.lock().unwrap() == 43).then_some(())).await;
    calls.update_device_model(model_of(&boiler)).await.unwrap();
    for _ in 0..2 {
        let model = ModelName { name: "meter".into(), namespace: "default".into() };
        calls.remove_device_model(model).await.unwrap();
        calls.remove_device(named.clone()).await.unwrap();
    }
    assert_eq!(mapper.catalog.devices(), []);
}

#[tokio::test(start_paused = true)]
async fn devices_that_cannot_be_used_are_refused_with_a_reason() {
    let folder = TempDir::new().unwrap();
    let _edge = GoEdge::start(&folder.path().join("dmi.sock"));
    let mapper = start(folder.path().join("dmi.sock"));
    let dialed = call(&mapper).await;
    let calls = MapperCalls(&dialed.calls);
    let boiler = device("boiler", "modbus", 1);
    calls.create_device_model(model_of(&boiler)).await.unwrap();
    let mut headless = boiler.to_wire();
    headless.spec = None;
    let unknown = device_with("boiler", &json!({"properties": [{"name": "other"}]}), &json!({})).to_wire();
    let mut foreign = boiler.to_wire();
    foreign.spec.as_mut().unwrap().protocol.as_mut().unwrap().protocol_name = "opcua".into();
    for (device, code, reason) in [
        (None, Code::InvalidArgument, "device is missing"),
        (Some(headless), Code::InvalidArgument, "device.spec is missing"),
        (Some(unknown), Code::InvalidArgument, "that its model does not have"),
        (Some(foreign), Code::FailedPrecondition, "this mapper has only modbus"),
    ] {
        let status = calls.register_device(DeviceRequest { device }).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert!(status.message().contains(reason), "{}", status.message());
    }
    let mut model = model_of(&boiler);
    model.model.as_mut().unwrap().spec.as_mut().unwrap().properties[0].value_type = "COLOUR".into();
    let status = calls.create_device_model(model).await.unwrap_err();
    assert_eq!(status.message(), "type is \"COLOUR\", which is none");
}

#[tokio::test(start_paused = true)]
async fn frames_of_a_camera_are_no_values() {
    let folder = TempDir::new().unwrap();
    let edge = GoEdge::start(&folder.path().join("dmi.sock"));
    let mapper = start(folder.path().join("dmi.sock"));
    let dialed = call(&mapper).await;
    let spec = json!({"properties": [{"name": "level", "reportToCloud": true}, {"name": "saveFrame"}]});
    let model = json!({"properties": [{"name": "level", "type": "INT"}, {"name": "saveFrame", "type": "STREAM"}]});
    let camera = device_with("camera", &spec, &model);
    MapperCalls(&dialed.calls).create_device_model(model_of(&camera)).await.unwrap();
    let request = DeviceRequest { device: Some(camera.to_wire()) };
    MapperCalls(&dialed.calls).register_device(request).await.unwrap();
    let report = until(|| edge.reported.lock().unwrap().pop()).await;
    assert_eq!(report.reported_device.unwrap().twins.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_edge_refuses_is_told_in_the_words_of_twins() {
    let folder = TempDir::new().unwrap();
    let edge = GoEdge::start(&folder.path().join("dmi.sock"));
    let boiler = device("boiler", "modbus", 1);
    *edge.answer.lock().unwrap() = MapperRegisterResponse {
        model_list: vec![model_of(&boiler).model.unwrap()],
        device_list: vec![boiler.to_wire()],
    };
    let socket = folder.path().join("modbus.sock");
    let mut config = DmiMapperConfig::new("m", "modbus", &socket, Arc::new(Clock));
    config.edgecore = folder.path().join("dmi.sock");
    let mapper = Mapper::new(config);
    let twins = mapper.twins();
    let id = boiler.id;
    assert!(
        matches!(twins.report_state(id.clone(), DeviceState::Online).await, Err(TwinError::Failed(_))),
        "not there"
    );
    let (host, _polling) = MapperHost::new(MapperConfig::new(mapper.twins()), []);
    let stop = CancellationToken::new();
    tokio::spawn(mapper.serve(host, stop.clone()));
    until(|| (!edge.registered.lock().unwrap().is_empty()).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let patch: TwinPatch = ["level", "other"]
        .map(|name| (name.parse().unwrap(), Some(PropertyPatch { value: "1".into(), value_type: None })))
        .into();
    for (status, expected) in [
        (Status::unknown("fail to report device status because of too many request: boiler"), "twins are busy"),
        (Status::resource_exhausted("full"), "twins are busy"),
        (Status::not_found("gone"), "device default/boiler is not on this node"),
        (Status::deadline_exceeded("late"), "no answer from the twins in time"),
        (Status::unknown("anything"), "twins failed"),
        (Status::invalid_argument("no good"), "property level is refused: no good"),
    ] {
        *edge.refuse.lock().unwrap() = Some(status);
        assert_eq!(twins.report(id.clone(), patch.clone()).await.unwrap_err().to_string(), expected);
    }
    *edge.refuse.lock().unwrap() = None;
    twins.report(id.clone(), patch).await.unwrap();
    let reported = twins.get(id).await.unwrap().properties[&"other".parse().unwrap()].reported.clone().unwrap();
    assert_eq!((reported.value.as_str(), reported.at), ("1", UnixMillis(1_700_000_000_000)));
    stop.cancel();
}
