//! HTTP devices behind Python's http.server.

use std::sync::Arc;

use kubeedge_core::{
    device::DeviceInstance,
    mapper::{DriverError, DriverHandle, Value, ValueType, Visitor},
    names::SystemClock,
    service::Causes,
    testing,
};
use kubeedge_mapper::http::HttpDevices;
use serde_json::{Value as Json, json};

use super::{soon, web::Web};

async fn open(config: &Json) -> Result<DriverHandle, DriverError> {
    let model = json!({"properties": [{"name": "p", "type": "STRING"}]});
    let spec = json!({"deviceModelRef": {"name": "m"}, "protocol": {"protocolName": "http", "configData": config},
        "properties": [{"name": "p"}]});
    let (spec, model) = (serde_json::from_value(spec).unwrap(), serde_json::from_value(model).unwrap());
    let device = DeviceInstance::merge("default/d".parse().unwrap(), &spec, &model).unwrap();
    HttpDevices::maker(Arc::new(SystemClock)).open(device).await
}

async fn device(web: &Web, over: Json) -> DriverHandle {
    let mut config = json!({"baseUrl": format!("http://127.0.0.1:{}", web.port), "timeout": 20_000});
    config.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    open(&config).await.unwrap()
}

fn visitor(value_type: ValueType, config: Json) -> Visitor {
    let Json::Object(config) = config else { panic!("settings are an object") };
    Visitor { property: "p".parse().unwrap(), value_type, config: config.into() }
}

async fn read(driver: &DriverHandle, value_type: ValueType, config: Json) -> Result<Value, DriverError> {
    soon("an answer", driver.read(visitor(value_type, config))).await.map(|sample| sample.value)
}

#[tokio::test]
async fn values_are_read_from_answers() {
    let web = Web::start();
    let driver = device(&web, json!({})).await;
    let temp = json!({"url": "state", "pointer": "/sensor/temp", "scale": 0.1});
    assert_eq!(read(&driver, ValueType::Float, temp).await.unwrap(), Value::Float(21.5));
    let on = json!({"url": "/state", "pointer": "/on", "enum": "true=running,false=stopped"});
    assert_eq!(read(&driver, ValueType::String, on).await.unwrap(), Value::Text("running".into()));
    assert_eq!(read(&driver, ValueType::Int, json!({"url": "plain"})).await.unwrap(), Value::Int(42));
    for _ in 0..3 {
        assert_eq!(read(&driver, ValueType::Int, json!({"url": "close"})).await.unwrap(), Value::Int(1));
    }
    let absent = read(&driver, ValueType::Int, json!({"url": "state", "pointer": "/x"})).await.unwrap_err();
    assert_eq!(Causes(&absent).to_string(), "driver failed: a payload without it cannot be the value at the pointer");
}

#[tokio::test]
async fn values_are_written_with_method_template_and_headers() {
    let web = Web::start();
    let driver = device(&web, json!({"headers": "X-Key=7"})).await;
    let write =
        async |config: Json, value| soon("an answer", driver.write(visitor(ValueType::Float, config), value)).await;
    write(json!({"url": "value/a"}), Value::Float(21.5)).await.unwrap();
    let post = json!({"url": "value/a", "writeUrl": "value/b", "writeMethod": "post", "scale": 0.1,
        "payload": "{\"set\": {json}, \"of\": \"{device}.{property}\"}"});
    write(post, Value::Float(21.5)).await.unwrap();
    assert_eq!(read(&driver, ValueType::Float, json!({"url": "value/a"})).await.unwrap(), Value::Float(21.5));
    let refused = write(json!({"url": "refuse"}), Value::Float(1.0)).await.unwrap_err();
    assert_eq!(refused.to_string(), "device refused: 403 Forbidden not today");
    let log = read(&driver, ValueType::String, json!({"url": "log"})).await.unwrap();
    let expected = "PUT /value/a text/plain; charset=utf-8 7 21.5\n\
        POST /value/b application/json 7 {\"set\": 215, \"of\": \"default/d.p\"}\n\
        PUT /refuse text/plain; charset=utf-8 7 1";
    assert_eq!(log, Value::Text(expected.into()));
    let values = vec![Value::Text("a b".into()), Value::Text("ä".into())];
    let wrong = visitor(ValueType::String, json!({"url": "ftp://x"}));
    testing::driver_suite(driver.clone(), visitor(ValueType::String, json!({"url": "value/s"})), values, wrong)
        .await
        .unwrap();
}

#[tokio::test]
async fn logins_limits_and_failures_are_told_apart() {
    let web = Web::start();
    let secret = || json!({"url": "secret"});
    let text = ValueType::String;
    for login in [json!({"username": "u", "password": "p"}), json!({"token": "t"})] {
        assert_eq!(read(&device(&web, login).await, text, secret()).await.unwrap(), Value::Text("open".into()));
    }
    let stranger = device(&web, json!({"timeout": 300, "maxBody": 1000})).await;
    let error = read(&stranger, text, secret()).await.unwrap_err();
    assert_eq!(error.to_string(), "device refused: 401 Unauthorized who is it?");
    let big = read(&stranger, text, json!({"url": "big"})).await.unwrap_err();
    assert_eq!(Causes(&big).to_string(), "driver failed: answer is longer than 1000 bytes");
    assert!(matches!(read(&stranger, text, json!({"url": "busy"})).await, Err(DriverError::Busy)));
    assert!(matches!(read(&stranger, text, json!({"url": "hang"})).await, Err(DriverError::TimedOut)));
    let error = read(&stranger, text, json!({"url": "nothing"})).await.unwrap_err();
    assert_eq!(error.to_string(), "device refused: 404 Not Found no such value");
    drop(web);
    assert!(matches!(read(&stranger, text, secret()).await, Err(DriverError::Offline(_))));
}

#[tokio::test]
async fn certificates_are_verified() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("cert.pem"), signed.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), signed.signing_key.serialize_pem()).unwrap();
    let web = Web::with(&[&path("cert.pem"), &path("key.pem")]);
    let base = format!("https://127.0.0.1:{}", web.port);
    let known = open(&json!({"baseUrl": base, "caFile": path("cert.pem"), "timeout": 20_000})).await.unwrap();
    assert_eq!(read(&known, ValueType::Int, json!({"url": "plain"})).await.unwrap(), Value::Int(42));
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("other.pem"), other.cert.pem()).unwrap();
    let unknown = open(&json!({"baseUrl": base, "caFile": path("other.pem"), "timeout": 20_000})).await.unwrap();
    let error = read(&unknown, ValueType::Int, json!({"url": "plain"})).await.unwrap_err();
    assert!(Causes(&error).to_string().contains("certificate"), "{error:?}");
    let absent = open(&json!({"baseUrl": base, "caFile": path("absent.pem")})).await.unwrap_err();
    assert!(absent.to_string().starts_with("setting caFile is "), "{absent}");
}
