#![allow(clippy::unwrap_used)]
use super::*;
use crate::device::{read_device, read_model, validate, validate_model};

fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn selector(values: &[&str]) -> Value {
    let expression = json!({ "key": "", "operator": "In", "values": values });
    json!({ "nodeSelectorTerms": [{ "matchExpressions": [expression] }] })
}

fn old_model() -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1alpha2", "kind": "DeviceModel",
        "metadata": { "name": "thermo", "namespace": "default", "resourceVersion": "7" },
        "spec": { "protocol": "modbus", "properties": [
            { "name": "temperature", "description": "of the water",
              "type": { "int": { "accessMode": "ReadWrite", "minimum": 1, "maximum": 5, "unit": "°C", "defaultValue": 1 } } },
            { "name": "load", "type": { "double": { "accessMode": "ReadOnly", "maximum": 0.5 } } },
            { "name": "name", "type": { "string": { "accessMode": "ReadOnly" } } },
        ] },
    })
}

#[test]
fn types_become_words_and_bounds_become_text() {
    assert!(is_older_model(&old_model()));
    let Converted { object, problems } = model_from_v1alpha2(&old_model());
    let expected = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
        "metadata": { "name": "thermo", "namespace": "default", "resourceVersion": "7" },
        "spec": { "protocol": "modbus", "properties": [
            { "name": "temperature", "description": "of the water", "type": "INT", "accessMode": "ReadWrite",
              "minimum": "1", "maximum": "5", "unit": "°C" },
            { "name": "load", "type": "DOUBLE", "accessMode": "ReadOnly", "maximum": "0.5" },
            { "name": "name", "type": "STRING", "accessMode": "ReadOnly" },
        ] },
    });
    assert_eq!(object, expected);
    let default = r#"spec.properties[0].type.int.defaultValue is "1": v1beta1 has no place for it"#;
    assert_eq!(told(&problems), [default]);
    assert_eq!(validate_model(&read_model(&object["spec"]).unwrap()), []);
    assert!(!is_older_model(&object));
    assert_eq!(model_from_v1alpha2(&object).object, object, "twice is once");
}

#[test]
fn a_device_is_bound_by_name_and_has_its_visitors_and_desired_values_in_its_properties() {
    let old = json!({
        "apiVersion": "devices.kubeedge.io/v1alpha2", "kind": "Device",
        "metadata": { "name": "d1", "labels": { "description": "Thermometer" } },
        "spec": {
            "deviceModelRef": { "name": "thermo" }, "nodeSelector": selector(&["edge-1"]),
            "protocol": {
                "modbus": { "slaveID": 1 },
                "common": { "com": { "serialPort": "/dev/ttyS0", "baudRate": 9600 }, "tcp": { "ip": "10.0.0.1", "port": 502 },
                    "commType": "rtu", "collectTimeout": 20, "customizedValues": { "def1": "a" } },
            },
            "propertyVisitors": [{
                "propertyName": "temperature", "collectCycle": 500_000_000, "reportCycle": 1_000_000_000,
                "customizedValues": { "def2": "b" },
                "modbus": { "register": "CoilRegister", "offset": 2, "limit": 1, "scale": 0.5, "isSwap": true },
            }],
            "data": { "dataTopic": "$ke/events/device/+/data/update" },
        },
        "status": { "twins": [
            { "propertyName": "temperature", "desired": { "value": "3", "metadata": { "type": "int" } },
              "reported": { "value": "4" } },
            { "propertyName": "lost", "desired": { "value": "3" } },
        ] },
    });
    assert!(is_older_device(&old));
    let Converted { object, problems } = device_from_v1alpha2(&old);
    let spec = json!({
        "deviceModelRef": { "name": "thermo" }, "nodeName": "edge-1",
        "protocol": { "protocolName": "modbus", "configData": {
            "slaveID": 1, "serialPort": "/dev/ttyS0", "baudRate": 9600, "ip": "10.0.0.1", "port": 502, "commType": "rtu",
            "collectTimeout": 20, "def1": "a",
        } },
        "properties": [{
            "name": "temperature", "collectCycle": 500_000_000, "reportCycle": 1_000_000_000,
            "desired": { "value": "3", "metadata": { "type": "int" } },
            "visitors": { "protocolName": "modbus", "configData": {
                "register": "CoilRegister", "offset": 2, "limit": 1, "scale": 0.5, "isSwap": true, "def2": "b",
            } },
        }],
    });
    assert_eq!(object["spec"], spec);
    assert_eq!((&object["metadata"], &object["status"]), (&old["metadata"], &Value::Null));
    assert_eq!(
        told(&problems),
        [
            r#"status.twins[1].propertyName is "lost": it has a desired value, but no visitor"#,
            r#"status.twins is "": reported values are left out, as the edge reports them again"#,
            "spec.data.dataTopic is \"$ke/events/device/+/data/update\": v1beta1 has no data topic; pushMethod takes its place",
        ]
    );
    let model = read_model(&model_from_v1alpha2(&old_model()).object["spec"]).unwrap();
    assert_eq!(validate(&read_device(&object["spec"]).unwrap(), Some(&model)), []);
    assert!(!is_older_device(&object));
    assert_eq!(device_from_v1alpha2(&object).object, object, "twice is once");
}

#[test]
fn each_protocol_keeps_its_settings() {
    let protocol =
        |old: &Value| device_from_v1alpha2(&json!({ "spec": { "protocol": old } })).object["spec"]["protocol"].take();
    for (name, config) in [
        ("opcua", json!({ "url": "opc.tcp://h:4840", "securityMode": "Sign", "timeout": 5 })),
        ("bluetooth", json!({ "macAddress": "A4:C1:38:1A:49:90" })),
        ("modbus", json!({ "slaveID": 7 })),
    ] {
        assert_eq!(protocol(&json!({ name: config })), json!({ "protocolName": name, "configData": config }));
    }
    let custom = json!({ "protocolName": "ours", "configData": { "a": 1 } });
    assert_eq!(protocol(&json!({ "customizedProtocol": custom })), custom);
    assert_eq!(protocol(&json!({ "common": { "commType": "tcp" } })), json!({ "configData": { "commType": "tcp" } }));
    assert_eq!(protocol(&Value::Null), json!({}));
}

#[test]
fn what_is_lost_on_the_way_is_told() {
    let spec = json!({
        "nodeSelector": selector(&["edge-1", "edge-2"]), "protocol": { "modbus": {}, "opcua": {} },
        "propertyVisitors": [{ "propertyName": "a" }, { "propertyName": "a" }],
    });
    let Converted { object, problems } = device_from_v1alpha2(&json!({ "spec": spec }));
    assert_eq!(object["spec"]["nodeName"], "edge-1");
    let fields: Vec<_> = problems.iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["spec.nodeSelector", "spec.protocol", "spec.propertyVisitors[1].propertyName"]);
    for odd in
        [Value::Null, json!(7), json!({ "spec": 7 }), json!({ "spec": { "propertyVisitors": 7, "nodeSelector": "x" } })]
    {
        let _no_panic =
            (device_from_v1alpha2(&odd), model_from_v1alpha2(&odd), is_older_device(&odd), is_older_model(&odd));
    }
}
