//! The REST API of the mapper framework, over a real socket.

use std::sync::{Arc, Mutex};

use kubeedge_core::{
    device::{DeviceMethod, DeviceModelSpec},
    mapper::Value,
    names::{DeviceId, UnixMillis},
    testing::ManualClock,
};
use kubeedge_mapper::{
    host::AuditHook,
    rest::{Catalogue, RestApi},
};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::{
    host::{Site, boiler},
    soon,
};

struct OneBoiler;

impl Catalogue for OneBoiler {
    fn methods(&self, device: &DeviceId) -> Option<Vec<DeviceMethod>> {
        let method = json!([{"name": "heat", "description": "warmer", "propertyNames": ["setpoint"]}]);
        (*device == boiler()).then(|| serde_json::from_value(method).unwrap())
    }

    fn model(&self, device: &DeviceId) -> Option<(String, Arc<DeviceModelSpec>)> {
        let spec = json!({"properties": [{"name": "setpoint", "type": "FLOAT", "accessMode": "ReadWrite",
            "description": "d", "minimum": "5", "maximum": "90", "unit": "C"}]});
        (*device == boiler()).then(|| ("boiler-model".to_owned(), serde_json::from_value(spec).unwrap()))
    }
}

/// Status, head and body of an answer.
async fn request(port: u16, line: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn every_route_answers_as_the_framework_does() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let noted = log.clone();
    let site = Site::with(|mut config| {
        config.audit = Some(AuditHook::new(move |audit| {
            noted.lock().unwrap().push(format!("{} {} {}", audit.origin, audit.property, audit.value));
        }));
        config
    });
    site.set(&json!({}));
    let clock = Arc::new(ManualClock::new(UnixMillis(1_700_000_000_000)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, shutdown) = (listener.local_addr().unwrap().port(), CancellationToken::new());
    let api = RestApi::new(site.host.clone(), OneBoiler, clock);
    let served = tokio::spawn(api.serve(listener, shutdown.clone()));
    let common = |mut members: Json| {
        let common = json!({"apiVersion": "v1", "statusCode": 200, "timeStamp": "2023-11-14T22:13:20Z"});
        members.as_object_mut().unwrap().extend(common.as_object().unwrap().clone());
        members
    };
    let get = async |path: &str| {
        let (status, head, body) = request(port, &format!("GET /api/v1/{path}"), "X-Correlation-ID: c-7\r\n").await;
        assert!(head.contains("x-correlation-id: c-7"), "{head}");
        (status, serde_json::from_str::<Json>(&body).unwrap_or(Json::String(body)))
    };

    let pong = common(json!({"Message": "This is v1 API, the server is running normally."}));
    assert_eq!(get("ping").await, (200, pong));
    let data = json!({"DeviceName": "boiler", "PropertyName": "setpoint", "Namespace": "default", "Value": "45",
        "Type": "float", "TimeStamp": 1});
    assert_eq!(get("device/default/boiler/setpoint").await, (200, common(json!({"Data": data}))));
    let methods = json!({"Methods": [{"Name": "heat",
        "Path": "/api/v1/devicemethod/default/boiler/heat/{propertyName}/{data}",
        "Parameters": [{"PropertyName": "setpoint", "ValueType": "float"}]}]});
    assert_eq!(get("devicemethod/default/boiler").await, (200, common(json!({"Data": methods}))));
    let written = common(json!({"Message": "Write data 60.5 to device default/boiler successfully."}));
    assert_eq!(get("devicemethod/default/boiler/heat/setpoint/60%2E5").await, (200, written));
    assert_eq!(site.plant.with(|state| state.values["setpoint"].clone()), Value::Float(60.5));
    let model = json!({"id": "default/boiler-model", "name": "boiler-model", "namespace": "default", "description": "",
        "properties": [{"name": "setpoint", "dataType": "float", "description": "d", "accessMode": "ReadWrite",
            "minimum": "5", "maximum": "90", "unit": "C"}]});
    assert_eq!(get("meta/model/default/boiler").await, (200, common(model)));

    for (path, status, text) in [
        ("device/default/boiler/nothing", 500, "Get device data error: there is no property nothing"),
        ("device/default/pump/x", 500, "Get device data error: device default/pump is not on this mapper"),
        ("devicemethod/default/pump", 500, "Get device method error: device default/pump is not on this mapper"),
        (
            "devicemethod/default/boiler/heat/setpoint/95",
            500,
            "Write device data error: value is not acceptable: 95 is above the maximum 90",
        ),
        (
            "devicemethod/default/boiler/heat/temperature/1",
            500,
            "Write device data error: method heat of device default/boiler does not write temperature",
        ),
        (
            "devicemethod/default/boiler/cool/setpoint/1",
            500,
            "Write device data error: device default/boiler has no method cool",
        ),
        ("meta/model/default/pump", 500, "Get device error: device default/pump is not on this mapper"),
        ("database/default/boiler", 503, "Database service is not available"),
        ("nothing", 404, "404 page not found"),
        ("device/default/boiler/%zz", 404, "404 page not found"),
    ] {
        assert_eq!(get(path).await, (status, Json::String(text.to_owned())), "{path}");
    }
    assert_eq!(request(port, "POST /api/v1/ping", "").await.0, 405);
    let write = "GET /api/v1/devicemethod/default/boiler/heat/setpoint/10";
    for page in ["Origin: http://evil\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        assert_eq!(request(port, write, page).await.0, 403, "{page}");
    }
    let audited = log.lock().unwrap().clone();
    assert_eq!(audited, ["rest:c-7 setpoint 60.5", "rest:c-7 setpoint 95"].map(String::from));
    shutdown.cancel();
    soon("the end", served).await.unwrap();
    site.shutdown.cancel();
}
