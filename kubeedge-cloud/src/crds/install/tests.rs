#![allow(clippy::unwrap_used)]
use kube::Resource;
use serde_json::{Value, json};

use super::*;
use crate::{
    crds::{ClusterObjectSync, Device, DeviceModel, DeviceStatus, ObjectSync},
    pki::fake_api::FakeApi,
};

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn established(definition: &mut Value) {
    definition["status"] = json!({
        "conditions": [{ "type": "Established", "status": "True" }],
        "acceptedNames": { "kind": "", "plural": "" },
    });
}

/// Puts a definition into the API as one that is served.
fn put_established(api: &FakeApi, text: &str) -> String {
    let definition = parse(text).unwrap();
    let mut value = serde_json::to_value(&definition).unwrap();
    established(&mut value);
    api.put(&format!("{PATH}/{}", definition.name_any()), value);
    definition.name_any()
}

fn checks<K: Resource<DynamicType = ()>>() {
    let name = format!("{}.{}", K::plural(&()), K::group(&()));
    let all: Vec<_> = DEFINITIONS.iter().map(|text| parse(text).unwrap()).collect();
    let definition = all.iter().find(|definition| definition.name_any() == name).expect("a definition");
    assert_eq!(definition.spec.names.kind, K::kind(&()));
    assert_eq!(definition.spec.group, K::group(&()));
    assert_eq!(definition.spec.versions[0].name, K::version(&()));
    let cluster = std::any::type_name::<K::Scope>().ends_with("ClusterResourceScope");
    assert_eq!(definition.spec.scope == "Cluster", cluster);
}

#[test]
fn definitions_and_types_agree() {
    checks::<Device>();
    checks::<DeviceModel>();
    checks::<DeviceStatus>();
    checks::<ObjectSync>();
    checks::<ClusterObjectSync>();
}

#[test]
fn definitions_survive_a_strict_reading() {
    for text in DEFINITIONS {
        let raw: Value = serde_saphyr::from_str(text).unwrap();
        let typed = serde_json::to_value(parse(text).unwrap()).unwrap();
        // A misspelt keyword of a schema would be lost on the way through the type.
        assert_eq!(typed["spec"]["versions"], raw["spec"]["versions"]);
        let version = &raw["spec"]["versions"][0];
        let is_sync = raw["spec"]["group"] == "reliablesyncs.kubeedge.io";
        assert_eq!(version.get("subresources").is_some(), is_sync, "{}", raw["metadata"]["name"]);
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_missing_is_created() {
    let api = FakeApi::new();
    let device = put_established(&api, DEFINITIONS[0]);
    let path = format!("{PATH}/{device}");
    let mut own = api.get(&path).unwrap();
    own["metadata"]["labels"] = json!({ "by": "an operator" });
    api.put(&path, own.clone());

    let client = api.client();
    let running = tokio::spawn(async move { install(&client).await });
    // The API establishes them one after the other.
    for text in &DEFINITIONS[1..] {
        let path = format!("{PATH}/{}", parse(text).unwrap().name_any());
        while api.get(&path).is_none() {
            tokio::task::yield_now().await;
        }
        let mut definition = api.get(&path).unwrap();
        established(&mut definition);
        api.put(&path, definition);
    }
    let installed = running.await.unwrap().unwrap();
    assert_eq!(installed.present, [device]);
    assert_eq!(installed.created.len(), 6);
    assert_eq!(api.get(&path), Some(own));

    let again = install(&api.client()).await.unwrap();
    assert!(again.created.is_empty());
    assert_eq!(again.present.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded() {
    let api = FakeApi::new();
    let err = install(&api.client()).await.unwrap_err();
    assert_eq!(err.to_string(), "definition devices.devices.kubeedge.io is not established in time");
}

#[tokio::test(start_paused = true)]
async fn an_older_definition_is_reported() {
    let api = FakeApi::new();
    for text in DEFINITIONS {
        put_established(&api, text);
    }
    let path = format!("{PATH}/devicemodels.devices.kubeedge.io");
    let mut old = api.get(&path).unwrap();
    old["spec"]["versions"][0]["name"] = json!("v1alpha2");
    api.put(&path, old);
    let err = install(&api.client()).await.unwrap_err();
    assert_eq!(err.to_string(), "definition devicemodels.devices.kubeedge.io does not serve version v1beta1");
    api.fail_next(1);
    assert!(matches!(install(&api.client()).await, Err(InstallError::Api { action: "read", .. })));
}

/// Whether a schema knows all of `value`, as the API would store it: nothing pruned, nothing refused.
fn fits(schema: &Value, value: &Value, path: &str) {
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{path} is {value}");
    }
    match (schema["type"].as_str().expect(path), value) {
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) => {}
        ("integer", Value::Number(number)) if number.is_i64() => {}
        ("array", Value::Array(items)) => items.iter().for_each(|item| fits(&schema["items"], item, path)),
        ("object", Value::Object(members)) => {
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(required.as_str().unwrap()), "{path}.{required} is missing");
            }
            for (name, member) in members {
                let path = format!("{path}.{name}");
                if let Some(schema) = schema["properties"].get(name) {
                    fits(schema, member, &path);
                } else if let Some(schema) = schema.get("additionalProperties") {
                    fits(schema, member, &path);
                } else {
                    assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true, "{path} would be dropped");
                }
            }
        }
        (wanted, found) => panic!("{path} is {found}, not a {wanted}"),
    }
}

/// Through the type and back, without the metadata that nobody has to know.
fn typed(object: &Value) -> Option<Value> {
    fn through<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<K>(object.clone()).unwrap()).unwrap()
    }
    Some(match object["kind"].as_str().unwrap() {
        "Device" => through::<Device>(object),
        "DeviceModel" => through::<DeviceModel>(object),
        "DeviceStatus" => through::<DeviceStatus>(object),
        "ObjectSync" => through::<ObjectSync>(object),
        "ClusterObjectSync" => through::<ClusterObjectSync>(object),
        _ => return None,
    })
}

/// The schema of each kind.
fn schemas() -> Vec<(Value, Value)> {
    DEFINITIONS
        .iter()
        .map(|text| serde_saphyr::from_str::<Value>(text).unwrap())
        .map(|raw| {
            (raw["spec"]["names"]["kind"].clone(), raw["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
        })
        .collect()
}

#[test]
fn recorded_objects_fit_definitions_and_types() {
    let schemas = schemas();
    let (mut seen, mut count) = (std::collections::BTreeSet::new(), 0);
    for line in include_str!("../../../tests/golden/crd-objects.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let list: Value = serde_saphyr::from_str(line["frame"].as_str().unwrap()).unwrap();
        for item in list["items"].as_array().unwrap() {
            let mut object = item.clone();
            let kind = item["kind"].as_str().unwrap();
            object["metadata"] = json!({});
            let Some((_, schema)) = schemas.iter().find(|(name, _)| name == kind) else { continue };
            fits(schema, &object, kind);
            if let Some(typed) = typed(item) {
                assert_eq!(typed["apiVersion"], item["apiVersion"]);
                assert_eq!(typed["kind"], item["kind"]);
                assert_eq!(typed["metadata"], item["metadata"]);
                assert_eq!(typed.get("status"), item.get("status"));
                let mut typed = typed;
                typed["metadata"] = json!({});
                fits(schema, &typed, kind);
            }
            seen.insert(kind.to_owned());
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
    let all: Vec<_> = seen.iter().map(String::as_str).collect();
    assert_eq!(all, ["ClusterObjectSync", "Device", "DeviceStatus", "ObjectSync", "Rule"]);
}

#[test]
fn every_field_of_the_kinds_is_known() {
    let visitors = json!({ "protocolName": "modbus", "configData": { "register": "HoldingRegister", "deep": [1] } });
    let push = json!({
        "http": { "hostName": "h", "port": 80, "requestPath": "/", "timeout": 3 },
        "mqtt": { "address": "tcp://h:1883", "topic": "t", "qos": 1, "retained": true },
        "otel": { "endpointURL": "http://h" },
        "dbMethod": {
            "influxdb2": {
                "influxdb2ClientConfig": { "url": "u", "org": "o", "bucket": "b" },
                "influxdb2DataConfig": { "measurement": "m", "tag": { "a": "b" }, "fieldKey": "k" },
            },
            "redis": { "redisClientConfig": { "addr": "a", "db": 0, "poolsize": 1, "minIdleConns": 1 } },
            "TDEngine": { "TDEngineClientConfig": { "addr": "a", "dbName": "d" } },
            "mysql": { "mysqlClientConfig": { "addr": "a", "database": "d", "userName": "u" } },
        },
        "anomalyDetection": { "any": { "thing": 1 } },
    });
    let objects = [
        json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {},
            "spec": {
                "deviceModelRef": { "name": "boiler" },
                "nodeName": "edge-1",
                "protocol": { "protocolName": "modbus", "configData": { "slaveID": 1 } },
                "properties": [{
                    "name": "heater",
                    "desired": { "value": "1", "metadata": { "type": "int" } },
                    "visitors": visitors, "reportCycle": 1000, "collectCycle": 500, "reportToCloud": true,
                    "pushMethod": push,
                }],
                "methods": [{ "name": "m", "description": "d", "propertyNames": ["heater"] }],
                "stateReport": { "reportToCloud": true, "reportCycle": 1000 },
            },
            "status": { "reportToCloud": true, "reportCycle": 1000 },
        }),
        json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {},
            "spec": {
                "protocol": "modbus",
                "protocolConfigData": { "slaveID": 1 },
                "properties": [{
                    "name": "heater", "description": "d", "type": "INT", "accessMode": "ReadWrite",
                    "minimum": "0", "maximum": "1", "unit": "u", "visitors": visitors,
                }],
            },
        }),
        json!({
            "apiVersion": "rules.kubeedge.io/v1", "kind": "RuleEndpoint", "metadata": {},
            "spec": { "ruleEndpointType": "servicebus", "properties": { "service_port": "8080" } },
        }),
        json!({
            "apiVersion": "rules.kubeedge.io/v1", "kind": "Rule", "metadata": {},
            "spec": { "source": "a", "sourceResource": { "path": "/" }, "target": "b", "targetResource": { "topic": "t" } },
            "status": { "successMessages": 1, "failMessages": 0, "errors": ["e"] },
        }),
    ];
    let schemas = schemas();
    for object in objects {
        let (kind, schema) = schemas.iter().find(|(kind, _)| *kind == object["kind"]).unwrap();
        fits(schema, &object, kind.as_str().unwrap());
        if let Some(typed) = typed(&object) {
            assert_eq!(typed, object);
        }
    }
}
