//! What mappers are told, and when.

use std::time::Duration;

use kubeedge_core::device::{DeviceModelSpec, DeviceSpec};
use serde_json::json;

use super::fake::{Edge, FakeMapper, device, device_with, within};
use crate::dmi::{DmiDevice, rpc::ManagerCalls, wire::MapperRegisterRequest};

async fn registered(edge: &Edge, protocol: &str) -> FakeMapper {
    let mapper = FakeMapper::started(edge.folder.path(), protocol);
    edge.register(&mapper).await;
    mapper
}

fn with_maximum(mut device: DmiDevice, maximum: &str) -> DmiDevice {
    let mut model = DeviceModelSpec::clone(&device.model);
    model.properties[0].maximum = maximum.into();
    device.model = model.into();
    device
}

#[tokio::test(start_paused = true)]
async fn devices_go_to_the_mapper_of_their_protocol_after_their_model() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let (modbus, opcua) = (registered(&edge, "modbus").await, registered(&edge, "opcua").await);
    edge.host.set_device(device("boiler", "modbus", 1));
    assert_eq!(modbus.calls(2).await, ["create meter", "register boiler"]);
    edge.host.set_device(device("oven", "opcua", 1));
    assert_eq!(opcua.calls(2).await, ["create meter", "register oven"]);
    edge.host.set_device(device("pump", "modbus", 2));
    assert_eq!(modbus.calls(1).await, ["register pump"], "the model is there");
    edge.host.set_device(device("boiler", "modbus", 1));
    modbus.assert_quiet().await;
    edge.host.set_device(device("boiler", "modbus", 3));
    assert_eq!(modbus.calls(1).await, ["update boiler"]);
    let address = modbus.last_device().spec.unwrap().protocol.unwrap().config_data.unwrap().data["address"].clone();
    assert!(address.type_url.ends_with("FloatValue"));
    opcua.assert_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_model_is_told_with_the_devices_that_use_it() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let mapper = registered(&edge, "modbus").await;
    edge.host.set_device(device("boiler", "modbus", 1));
    mapper.calls(2).await;
    edge.host.set_device(with_maximum(device("boiler", "modbus", 1), "28"));
    assert_eq!(mapper.calls(2).await, ["remodel meter", "update boiler"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_or_changes_its_protocol_leaves_its_mapper() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let (modbus, opcua) = (registered(&edge, "modbus").await, registered(&edge, "opcua").await);
    edge.host.set_device(device("boiler", "modbus", 1));
    modbus.calls(2).await;
    edge.host.set_device(device("boiler", "opcua", 1));
    assert_eq!(modbus.calls(2).await, ["remove boiler", "unmodel meter"]);
    assert_eq!(opcua.calls(2).await, ["create meter", "register boiler"]);
    let id = device("boiler", "opcua", 1).id;
    assert!(edge.host.remove_device(&id) && !edge.host.remove_device(&id));
    assert_eq!(opcua.calls(2).await, ["remove boiler", "unmodel meter"]);
    modbus.assert_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_mapper_stalls_nobody_and_gets_the_newest_when_it_is_back() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let (hung, well) = (registered(&edge, "modbus").await, registered(&edge, "opcua").await);
    hung.hang(Some("boiler"));
    edge.host.set_device(device("boiler", "modbus", 1));
    edge.host.set_device(device("pump", "modbus", 1));
    hung.calls(2).await;
    let start = tokio::time::Instant::now();
    edge.host.set_device(device("oven", "opcua", 1));
    assert_eq!(well.calls(2).await, ["create meter", "register oven"]);
    assert!(start.elapsed() < Duration::from_secs(1), "it did not wait for the other");
    for address in 2..5 {
        edge.host.set_device(device("boiler", "modbus", address));
    }
    // The device at which it hangs waits behind the others.
    let calls = hung.calls(1).await;
    assert!(calls.iter().any(|call| call == "register pump"), "{calls:?}");
    hung.hang(None);
    // A version that was asked for may be the one that it has: only an update makes certain.
    let mut calls = Vec::new();
    while calls.last().is_none_or(|call| call != "update boiler") {
        calls.extend(hung.calls(1).await);
    }
    let config = hung.last_device().spec.unwrap().protocol.unwrap().config_data.unwrap();
    assert_eq!(crate::dmi::any::to_config(Some(&config))["address"], 4);
    hung.assert_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_mapper_refuses_is_tried_again_and_others_go_on() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let mapper = registered(&edge, "modbus").await;
    mapper.refuse(Some("boiler"));
    edge.host.set_device(device("boiler", "modbus", 1));
    edge.host.set_device(device("pump", "modbus", 1));
    assert_eq!(mapper.calls(3).await, ["create meter", "register boiler", "register pump"]);
    let start = tokio::time::Instant::now();
    assert_eq!(mapper.calls(1).await, ["register boiler"]);
    assert_eq!(mapper.calls(1).await, ["register boiler"]);
    assert!(start.elapsed() >= Duration::from_secs(3), "1 s, then 2 s");
    mapper.refuse(None);
    mapper.calls(1).await;
    // What will not go counts as gone after a while.
    mapper.refuse(Some("boiler"));
    edge.host.remove_device(&device("boiler", "modbus", 1).id);
    assert_eq!(mapper.calls(3).await, ["remove boiler"; 3]);
    mapper.assert_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_mapper_that_comes_back_gets_all_in_its_answer_and_only_what_changes_after_it() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let mut mapper = registered(&edge, "modbus").await;
    edge.host.set_device(device("boiler", "modbus", 1));
    mapper.calls(2).await;
    mapper.stop().await;
    edge.host.set_device(device("boiler", "modbus", 2));
    edge.host.set_device(device("pump", "modbus", 1));
    tokio::time::sleep(Duration::from_secs(300)).await;
    mapper.start();
    let answer = edge.register(&mapper).await;
    assert_eq!(answer.device_list.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["boiler", "pump"]);
    assert_eq!(answer.model_list.len(), 1, "each model once");
    mapper.assert_quiet().await;
    edge.host.set_device(device("boiler", "modbus", 3));
    assert_eq!(mapper.calls(1).await, ["update boiler"]);
}

#[tokio::test(start_paused = true)]
async fn a_mapper_that_was_away_for_a_while_gets_what_changed_without_registering_again() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let mut mapper = registered(&edge, "modbus").await;
    edge.host.set_device(device("boiler", "modbus", 1));
    mapper.calls(2).await;
    mapper.stop().await;
    edge.host.set_device(device("boiler", "modbus", 2));
    tokio::time::sleep(Duration::from_secs(300)).await;
    mapper.start();
    assert_eq!(mapper.calls(1).await, ["update boiler"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_edge_only_what_changed_meanwhile_is_told() {
    let mut edge = Edge::start().await;
    edge.host.all_set();
    let mapper = registered(&edge, "modbus").await;
    for name in ["boiler", "pump", "valve"] {
        edge.host.set_device(device(name, "modbus", 1));
    }
    mapper.calls(4).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    edge.stop().await;
    edge.start_again().await;
    mapper.assert_quiet().await;
    edge.host.set_device(device("boiler", "modbus", 1));
    edge.host.set_device(device("pump", "modbus", 2));
    assert_eq!(mapper.calls(2).await, ["create meter", "update pump"], "the mapper need not register for it");
    mapper.assert_quiet().await;
    edge.host.all_set();
    assert_eq!(mapper.calls(1).await, ["remove valve"], "now it is certain that it is gone");
    mapper.assert_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_at_two_mappers_for_a_while_is_remembered_for_each() {
    let mut edge = Edge::start().await;
    edge.host.all_set();
    let (modbus, opcua) = (registered(&edge, "modbus").await, registered(&edge, "opcua").await);
    edge.host.set_device(device("boiler", "modbus", 1));
    modbus.calls(2).await;
    modbus.hang(Some("boiler"));
    edge.host.set_device(device("boiler", "opcua", 1));
    assert_eq!(opcua.calls(2).await, ["create meter", "register boiler"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    modbus.hang(None);
    modbus.calls(2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    edge.stop().await;
    edge.start_again().await;
    edge.host.set_device(device("boiler", "opcua", 1));
    edge.host.all_set();
    opcua.assert_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_edge_did_not_survive_is_made_certain_by_the_next_run() {
    let mut edge = Edge::start().await;
    edge.host.all_set();
    let mapper = registered(&edge, "modbus").await;
    mapper.hang(Some("boiler"));
    edge.host.set_device(device("boiler", "modbus", 1));
    mapper.calls(2).await;
    edge.stop().await;
    mapper.hang(None);
    edge.start_again().await;
    edge.host.set_device(device("boiler", "modbus", 2));
    edge.host.all_set();
    assert_eq!(mapper.calls(3).await, ["create meter", "register boiler", "update boiler"]);
}

#[tokio::test(start_paused = true)]
async fn a_mapper_that_wants_no_data_is_told_by_calls() {
    let edge = Edge::start().await;
    edge.host.set_device(device("boiler", "modbus", 1));
    edge.host.all_set();
    let mapper = FakeMapper::started(edge.folder.path(), "modbus");
    let request = MapperRegisterRequest { with_data: false, mapper: Some(mapper.info()) };
    let answer = ManagerCalls(&edge.dial().await.calls).mapper_register(request).await.unwrap();
    assert_eq!((answer.device_list.len(), answer.model_list.len()), (0, 0));
    assert_eq!(mapper.calls(2).await, ["create meter", "register boiler"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_an_answer_of_4_mib_is_told_by_calls() {
    let edge = Edge::start().await;
    let long = "x".repeat(1024 * 1024);
    for name in ["a", "b", "c", "d"] {
        let config = json!({"protocol": {"protocolName": "modbus", "configData": {"note": long}}});
        edge.host.set_device(device_with(name, &config, &json!({})));
    }
    edge.host.all_set();
    let mapper = FakeMapper::started(edge.folder.path(), "modbus");
    assert_eq!(edge.register(&mapper).await.device_list.len(), 2);
    assert_eq!(mapper.calls(2).await, ["register c", "register d"]);
}

#[tokio::test(start_paused = true)]
async fn a_mapper_that_registers_early_waits_for_the_devices_but_not_for_long() {
    let edge = Edge::start().await;
    let mapper = FakeMapper::started(edge.folder.path(), "modbus");
    let start = tokio::time::Instant::now();
    assert_eq!(edge.register(&mapper).await.device_list.len(), 0);
    assert!(start.elapsed() < Duration::from_secs(1), "a mapper in Go would have given up");
    let host = edge.host.clone();
    let set = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        host.set_device(device("boiler", "modbus", 1));
        host.all_set();
    });
    assert_eq!(edge.register(&mapper).await.device_list.len(), 1);
    within(set).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_device_without_a_model_is_told_to_nobody() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let mapper = registered(&edge, "modbus").await;
    let mut nameless = device("boiler", "modbus", 1);
    nameless.spec = DeviceSpec { device_model_ref: None, ..DeviceSpec::clone(&nameless.spec) }.into();
    edge.host.set_device(nameless);
    mapper.assert_quiet().await;
}
