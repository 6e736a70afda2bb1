//! The traps of the wire, one test each, by their numbers in upstream's behaviour.

use std::time::Duration;

use kubeedge_core::meta::{Collection, Selector};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use tonic::Code;

use super::fake::{Edge, FakeMapper, device, device_with, within};
use crate::dmi::{
    device::device_from_wire,
    rpc::ManagerCalls,
    wire::{DeviceStatus, ReportDeviceStatesRequest, ReportDeviceStatusRequest, Twin, TwinProperty},
};

const GRPC_GO: &[u8] = include_bytes!("../../../tests/golden/grpc-go-1.67.1.bin");

/// Upstream's server takes the `:authority` that grpc-go makes of a path; the HTTP/2 of this process does not.
#[tokio::test]
async fn t1_calls_of_grpc_go_are_answered_although_their_authority_is_a_path() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let mut stream = UnixStream::connect(edge.socket()).await.unwrap();
    stream.write_all(GRPC_GO).await.unwrap();
    let (mut answered, mut bytes) = (0, Vec::new());
    while answered < 5 {
        let mut head = [0; 9];
        within(stream.read_exact(&mut head)).await.unwrap();
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        bytes.resize(length, 0);
        within(stream.read_exact(&mut bytes)).await.unwrap();
        let (kind, flags) = (head[3], head[4]);
        assert!(kind != 3 && kind != 7, "a stream or the connection was refused");
        // Headers that end a stream: trailers.
        answered += usize::from(kind == 1 && flags & 1 != 0);
    }
    assert_eq!(edge.desk.take().len(), 4, "three values and a state");
}

#[test]
fn t9_each_part_that_go_looks_into_is_there() {
    let spec = json!({
        "protocol": {"protocolName": "modbus"}, "properties": [{"name": "level"}], "stateReport": null
    });
    let said = device_with("boiler", &spec, &json!({})).to_wire();
    let spec = said.spec.unwrap();
    assert!(said.status.is_some() && spec.protocol.unwrap().config_data.is_some());
    let property = &spec.properties[0];
    assert!(property.desired.is_some());
    assert!(property.visitors.as_ref().unwrap().config_data.is_some());
}

#[tokio::test]
async fn t10_a_report_without_namespace_is_of_the_only_device_of_that_name() {
    let edge = Edge::start().await;
    for name in ["factory/boiler", "factory/pump", "office/pump"] {
        edge.host.set_device(device(name, "modbus", 1));
    }
    let dialed = edge.dial().await;
    let state = |name: &str| {
        let request =
            ReportDeviceStatesRequest { device_name: name.into(), state: "online".into(), ..Default::default() };
        let calls = dialed.calls.clone();
        async move { ManagerCalls(&calls).report_device_states(request).await.map_err(|status| status.code()) }
    };
    state("boiler").await.unwrap();
    assert_eq!(edge.desk.take()[0].0, "factory/boiler");
    assert_eq!(state("pump").await.unwrap_err(), Code::InvalidArgument);
    assert_eq!(state("valve").await.unwrap_err(), Code::NotFound);
}

#[tokio::test]
async fn t11_a_thousand_reports_at_once_are_all_taken() {
    let edge = Edge::start().await;
    let reports = (0..10).map(|mapper| {
        let dialing = edge.dial();
        async move {
            let dialed = dialing.await;
            let calls = (0..100).map(|number| {
                let calls = dialed.calls.clone();
                async move {
                    let reported = TwinProperty { value: number.to_string(), ..TwinProperty::default() };
                    let twin = Twin {
                        property_name: format!("p{number}"),
                        observed_desired: Some(TwinProperty::default()),
                        reported: Some(reported),
                    };
                    let request = ReportDeviceStatusRequest {
                        device_name: format!("d{mapper}"),
                        reported_device: Some(DeviceStatus { twins: vec![twin], ..DeviceStatus::default() }),
                        device_namespace: "default".into(),
                    };
                    ManagerCalls(&calls).report_device_status(request).await.unwrap();
                }
            });
            futures_util::future::join_all(calls).await;
        }
    });
    within(futures_util::future::join_all(reports)).await;
    assert_eq!(edge.desk.take().len(), 1000);
}

#[test]
fn t12_numbers_that_go_would_damage_keep_their_value() {
    let config = json!({"protocol": {"protocolName": "modbus", "configData": {
        "serial": 16_777_217, "port": 502, "scale": 0.1, "map": {"a": 1}, "none": null, "data": "x"
    }}});
    let said = device_with("boiler", &config, &json!({})).to_wire();
    let (_, spec) = device_from_wire(Some(said)).unwrap();
    let expected = json!({"serial": 16_777_217, "port": 502, "scale": 0.1, "map": "{\"a\":1}", "data": "x"});
    assert_eq!(Value::Object(spec.protocol.config_data), expected);
}

#[tokio::test(start_paused = true)]
async fn t13_models_come_once_and_unchanged_devices_are_not_updated() {
    let edge = Edge::start().await;
    for name in ["boiler", "pump"] {
        edge.host.set_device(device(name, "modbus", 1));
    }
    edge.host.all_set();
    let mapper = FakeMapper::started(edge.folder.path(), "modbus");
    let answer = edge.register(&mapper).await;
    assert_eq!((answer.device_list.len(), answer.model_list.len()), (2, 1));
    edge.host.set_device(device("boiler", "modbus", 1));
    mapper.assert_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn t14_a_mapper_may_register_before_it_listens() {
    let edge = Edge::start().await;
    edge.host.all_set();
    let mut mapper = FakeMapper::new(edge.folder.path(), "modbus");
    edge.register(&mapper).await;
    edge.host.set_device(device("boiler", "modbus", 1));
    tokio::time::sleep(Duration::from_secs(20)).await;
    mapper.start();
    assert_eq!(mapper.calls(2).await, ["create meter", "register boiler"]);
}

#[tokio::test(start_paused = true)]
async fn t15_the_last_address_of_a_mapper_is_the_one_even_after_a_restart() {
    let mut edge = Edge::start().await;
    edge.host.all_set();
    edge.register(&FakeMapper::new(edge.folder.path(), "modbus")).await;
    let moved = edge.folder.path().join("moved");
    let mapper = FakeMapper::started(&moved, "modbus");
    edge.register(&mapper).await;
    edge.stop().await;
    edge.start_again().await;
    edge.host.set_device(device("boiler", "modbus", 1));
    assert_eq!(mapper.calls(2).await, ["create meter", "register boiler"]);
    let records = edge.store.list(Selector::all(Collection::new("devicemapper").unwrap())).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].key.to_string(), "node/nodeID/namespace/devicemapper/modbus-mapper", "as upstream names it");
}

#[test]
fn t25_keys_are_found_however_they_are_spelled() {
    let push = json!({
        "HTTP": {"hostname": "http://h", "requestpath": "/p", "port": 80, "timeout": 5},
        "mqtt": {"address": "tcp://m:1883", "topic": "t", "qos": 1, "retained": true},
        "dbMethod": {
            "tdengine": {"tdEngineClientConfig": {"addr": "a", "dbname": "b"}},
            "influxdb2": {"influxdb2ClientConfig": {"url": "u", "org": "o", "bucket": "b"},
                "influxdb2DataConfig": {"measurement": "m", "tag": {"k": "v"}, "fieldKey": "f"}},
            "redis": {"redisClientConfig": {"addr": "r", "db": 1, "poolSize": 2, "minIdleConns": 3}},
            "mysql": {"mysqlClientConfig": {"addr": "s", "database": "d", "userName": "n"}}
        },
        "otel": {"endpointURL": "e"}, "anomalyDetection": {"limit": 3}
    });
    let spec = json!({"properties": [{"name": "level", "pushMethod": push}]});
    let (_, spec) = device_from_wire(Some(device_with("boiler", &spec, &json!({})).to_wire())).unwrap();
    let expected = json!({
        "http": {"hostName": "http://h", "requestPath": "/p", "port": 80, "timeout": 5},
        "mqtt": {"address": "tcp://m:1883", "topic": "t", "qos": 1, "retained": true},
        "dbMethod": {
            "TDEngine": {"TDEngineClientConfig": {"addr": "a", "dbName": "b"}},
            "influxdb2": {"influxdb2ClientConfig": {"url": "u", "org": "o", "bucket": "b"},
                "influxdb2DataConfig": {"measurement": "m", "tag": {"k": "v"}, "fieldKey": "f"}},
            "redis": {"redisClientConfig": {"addr": "r", "db": 1, "poolsize": 2, "minIdleConns": 3}},
            "mysql": {"mysqlClientConfig": {"addr": "s", "database": "d", "userName": "n"}}
        },
        "otel": {"endpointURL": "e"}, "anomalyDetection": {"limit": 3}
    });
    assert_eq!(spec.properties[0].push_method, Some(expected));
}

#[test]
fn t27_cycles_are_carried_as_they_are() {
    let spec = json!({"properties": [{"name": "level", "collectCycle": 500_000_000, "reportCycle": 7}]});
    let said = device_with("boiler", &spec, &json!({})).to_wire().spec.unwrap();
    assert_eq!((said.properties[0].collect_cycle, said.properties[0].report_cycle), (500_000_000, 7));
}
