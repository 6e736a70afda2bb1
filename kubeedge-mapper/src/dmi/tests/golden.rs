//! What Go programs said to each other, read and said by ours.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kubeedge_core::{
    device::{DeviceModelSpec, DeviceSpec},
    names::DeviceId,
};
use prost::Message;
use serde_json::Value;
use tonic::Code;

use super::fake::{Desk, Edge};
use crate::dmi::{
    DmiDevice,
    device::{ModelId, device_from_wire, model_from_wire},
    rpc::ManagerCalls,
    wire,
};

const RECORDED: &str = include_str!("../../../tests/golden/dmi.jsonl");

fn lines() -> impl Iterator<Item = Value> {
    RECORDED.lines().map(|line| serde_json::from_str(line).unwrap())
}

fn bytes(line: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(line["pb_b64"].as_str().unwrap()).unwrap()
}

/// Decodes and encodes again. Go writes the entries of a map in any order, so only their number of bytes is compared
/// where there are maps.
fn around<M: Message + Default + PartialEq + std::fmt::Debug>(line: &Value) -> M {
    let raw = bytes(line);
    let message = M::decode(&*raw).unwrap();
    let again = message.encode_to_vec();
    assert_eq!(again.len(), raw.len(), "{line}");
    assert_eq!(M::decode(&*again).unwrap(), message);
    message
}

/// The objects as the cloud sent them.
#[derive(Default)]
struct Objects {
    devices: BTreeMap<String, Arc<DeviceSpec>>,
    models: BTreeMap<String, Arc<DeviceModelSpec>>,
}

impl Objects {
    fn take(&mut self, line: &Value) {
        let name = line["name"].as_str().unwrap().to_owned();
        match line["object"].as_str().unwrap() {
            "device" if line["operation"] != "delete" => {
                self.devices.insert(name, serde_json::from_value(line["spec"].clone()).unwrap());
            }
            "devicemodel" if line["operation"] != "delete" => {
                self.models.insert(name, serde_json::from_value(line["spec"].clone()).unwrap());
            }
            _ => {}
        }
    }

    fn device(&self, name: &str) -> DmiDevice {
        let spec = Arc::clone(&self.devices[name]);
        let model = Arc::clone(&self.models[&spec.device_model_ref.as_ref().unwrap().name]);
        DmiDevice { id: DeviceId::parse("default", name).unwrap(), spec, model }
    }
}

#[test]
fn devices_and_models_are_said_byte_for_byte_as_go_says_them() {
    let (mut objects, mut compared) = (Objects::default(), 0);
    for line in lines() {
        if line.get("object").is_some() {
            objects.take(&line);
            continue;
        }
        match (line["call"].as_str().unwrap(), line["side"].as_str().unwrap()) {
            ("RegisterDevice" | "UpdateDevice", "request") => {
                let said: wire::DeviceRequest = around(&line);
                let said = said.device.unwrap();
                let ours = objects.device(&said.name).to_wire();
                assert_eq!(ours.encode_to_vec(), said.encode_to_vec(), "up to the order of maps");
                // And back: a mapper of ours sees what the cloud has written.
                let (id, spec) = device_from_wire(Some(said.clone())).unwrap();
                let model = Arc::clone(&objects.device(&said.name).model);
                assert_eq!(DmiDevice { id, spec: spec.into(), model }.to_wire(), said);
                compared += 1;
            }
            ("CreateDeviceModel", "request") => {
                let said: wire::ModelRequest = around(&line);
                assert_eq!(said.encode_to_vec(), bytes(&line));
                let said = said.model.unwrap();
                let id = ModelId::parse("default", &said.name).unwrap();
                assert_eq!(id.to_wire(&objects.models[&said.name]), said);
                let (back, spec) = model_from_wire(Some(said.clone())).unwrap();
                assert_eq!(back.to_wire(&spec), said);
                compared += 1;
            }
            ("RemoveDevice", "request") => assert_eq!(around::<wire::DeviceName>(&line).encode_to_vec(), bytes(&line)),
            ("RemoveDeviceModel", "request") => {
                assert_eq!(around::<wire::ModelName>(&line).encode_to_vec(), bytes(&line));
            }
            _ => {}
        }
    }
    assert_eq!(compared, 8);
}

#[tokio::test]
async fn calls_of_a_recorded_mapper_are_answered_and_none_of_gos_defects_is_ours() {
    let edge = Edge::start_with(Desk::of(&["default/thermo-1"]), |config| config).await;
    edge.host.all_set();
    let dialed = edge.dial().await;
    let manager = ManagerCalls(&dialed.calls);
    let (mut objects, mut replayed) = (Objects::default(), 0);
    for line in lines() {
        if line.get("object").is_some() {
            objects.take(&line);
            let name = line["name"].as_str().unwrap();
            match line["operation"].as_str().unwrap() {
                "delete" => drop(edge.host.remove_device(&DeviceId::parse("default", name).unwrap())),
                _ if line["object"] == "device" && name != "thermo-3" => edge.host.set_device(objects.device(name)),
                _ => {}
            }
            continue;
        }
        if line["way"] != "mapper>edgecore" && line["call"] != "MapperRegister" || line["side"] != "request" {
            continue;
        }
        replayed += 1;
        match line["call"].as_str().unwrap() {
            "MapperRegister" => {
                let request: wire::MapperRegisterRequest = around(&line);
                let protocol = request.mapper.as_ref().unwrap().protocol.clone();
                let answer = manager.mapper_register(request).await;
                if protocol.is_empty() {
                    assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
                } else {
                    let answer = answer.unwrap();
                    let (models, devices) = (&answer.model_list, &answer.device_list);
                    assert_eq!((models.len(), devices.len()), (1, 1));
                    assert_eq!(devices[0], objects.device("thermo-1").to_wire());
                }
            }
            "ReportDeviceStatus" => {
                let request: wire::ReportDeviceStatusRequest = around(&line);
                let answer = manager.report_device_status(request.clone()).await.map_err(|status| status.code());
                let Some(status) = request.reported_device else {
                    assert_eq!(answer, Err(Code::InvalidArgument), "Go says the same, if without a code");
                    continue;
                };
                if request.device_name == "ghost" {
                    assert_eq!(answer, Err(Code::NotFound), "Go says that all is well");
                    continue;
                }
                answer.unwrap();
                let (twin, told) = (&status.twins[0], edge.desk.take());
                let reported = twin.reported.as_ref().unwrap();
                let last = told.last().unwrap();
                assert_eq!((last.1, &last.2, &last.3), ("reported", &twin.property_name, &reported.value));
                assert_eq!(last.4.as_deref(), Some("float"), "Go makes a string of it");
                assert_eq!(told.len(), if twin.observed_desired.as_ref().unwrap().value.is_empty() { 1 } else { 2 });
            }
            "ReportDeviceStates" => {
                let request: wire::ReportDeviceStatesRequest = around(&line);
                let answer = manager.report_device_states(request.clone()).await.map_err(|status| status.code());
                match (request.device_name.as_str(), request.state.as_str()) {
                    ("ghost", _) => assert_eq!(answer, Err(Code::NotFound), "Go says that all is well"),
                    (_, "") => assert_eq!(answer, Err(Code::InvalidArgument)),
                    (_, state) => {
                        answer.unwrap();
                        assert_eq!(edge.desk.take().pop().unwrap().3, state);
                    }
                }
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(replayed, 16);
}
