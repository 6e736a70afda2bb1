//! MQTT devices behind mosquitto.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    device::{DeviceInstance, DeviceState},
    mapper::{DriverError, DriverHandle, Value, Visitor},
    names::SystemClock,
    testing,
};
use kubeedge_mapper::{MapperConfig, MapperHost, mqtt::MqttDevices};
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::{
    mosquitto::{Mosquitto, Sub},
    soon,
    twins::RecordingTwins,
};

/// A thermostat with `temperature` and `mode` in one JSON topic, and `setpoint` in topics of its own.
fn thermostat(url: &str, over: &Json) -> DeviceInstance {
    let model = json!({"protocol": "mqtt", "properties": [
        {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
        {"name": "mode", "type": "STRING", "accessMode": "ReadWrite"},
        {"name": "setpoint", "type": "FLOAT", "accessMode": "ReadWrite", "minimum": "5", "maximum": "30"}]});
    let mut config = json!({"brokerURL": url, "topic": "home/t1/state", "timeout": 10_000});
    config.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    let spec = json!({"deviceModelRef": {"name": "m"}, "protocol": {"protocolName": "mqtt", "configData": config},
        "properties": [
            {"name": "temperature", "reportToCloud": true, "collectCycle": 50,
                "visitors": {"configData": {"pointer": "/temp", "scale": 0.1}}},
            {"name": "mode", "reportToCloud": true, "collectCycle": 50, "visitors": {"configData": {"pointer": "/mode",
                "enum": "0=off,1=heat", "writeTopic": "home/t1/set", "payload": "{\"mode\": {value}, \"of\": \"{device}\"}"}}},
            {"name": "setpoint", "reportToCloud": true, "collectCycle": 50, "visitors": {"configData": {
                "topic": "home/t1/setpoint", "writeTopic": "home/t1/setpoint", "retain": true}}}]});
    let (spec, model) = (serde_json::from_value(spec).unwrap(), serde_json::from_value(model).unwrap());
    DeviceInstance::merge("default/t1".parse().unwrap(), &spec, &model).unwrap()
}

fn visitor(device: &DeviceInstance, name: &str) -> Visitor {
    device.property(&name.parse().unwrap()).unwrap().visitor.clone()
}

async fn open(device: &DeviceInstance) -> DriverHandle {
    MqttDevices::maker(Arc::new(SystemClock)).open(device.clone()).await.unwrap()
}

/// Reads until the device has said something, which takes a moment.
async fn read(driver: &DriverHandle, visitor: &Visitor) -> Value {
    let wait = async {
        loop {
            match driver.read(visitor.clone()).await {
                Ok(sample) => return sample.value,
                Err(DriverError::Offline(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    soon("a value", wait).await
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, wait).await;
}

#[tokio::test]
async fn values_are_read_from_topics_and_written_to_topics() {
    let broker = Mosquitto::start().await;
    broker.publish(&["-r", "-t", "home/t1/state", "-m", r#"{"temp": 215, "mode": 1}"#]).await;
    let device = thermostat(&broker.url(), &json!({"clientID": "gateway", "offlineAfter": 60_000}));
    let driver = open(&device).await;
    assert_eq!(read(&driver, &visitor(&device, "temperature")).await, Value::Float(21.5));
    assert_eq!(read(&driver, &visitor(&device, "mode")).await, Value::Text("heat".into()));
    assert_eq!(driver.health().await.unwrap(), DeviceState::Online);
    let silent = driver.read(visitor(&device, "setpoint")).await;
    assert!(matches!(silent, Err(DriverError::Offline(_))), "{silent:?}");
    let mut sets = Sub::start(broker.port, "home/t1/set").await;
    driver.write(visitor(&device, "mode"), Value::Text("off".into())).await.unwrap();
    assert_eq!(sets.next().await, r#"home/t1/set 1 0 {"mode": 0, "of": "default/t1"}"#);
    let bad = driver.write(visitor(&device, "mode"), Value::Text("cool".into())).await.unwrap_err();
    assert_eq!(bad.to_string(), "device refused: \"cool\" is not one of the names in enum");
    let locked = driver.write(visitor(&device, "temperature"), Value::Float(1.0)).await.unwrap_err();
    assert_eq!(locked.to_string(), "setting writeTopic is missing: a topic to write to is needed");
    for (qos, degrees) in [(0, 20.0), (1, 21.0), (2, 22.5)] {
        let mut setpoint = visitor(&device, "setpoint");
        Arc::make_mut(&mut setpoint.config).insert("qos".into(), json!(qos));
        soon("confirmed", driver.write(setpoint, Value::Float(degrees))).await.unwrap();
    }
    let mut last = Sub::start(broker.port, "home/t1/setpoint").await;
    assert_eq!(last.next().await, "home/t1/setpoint 2 1 22.5", "retained");
}

#[tokio::test]
async fn it_is_a_driver() {
    let broker = Mosquitto::start().await;
    let device = thermostat(&broker.url(), &json!({}));
    let driver = open(&device).await;
    // The broker sends back what is written to this topic, as a device would.
    let place = visitor(&device, "setpoint");
    until_connected(&driver).await;
    let mut wrong = place.clone();
    wrong.config = Arc::new(json!({"qos": 7}).as_object().unwrap().clone());
    driver.write(place.clone(), Value::Float(7.0)).await.unwrap();
    assert_eq!(read(&driver, &place).await, Value::Float(7.0));
    testing::driver_suite(driver, place, vec![Value::Float(7.0)], wrong).await.unwrap();
}

async fn until_connected(driver: &DriverHandle) {
    let wait = async {
        // Nothing has come from the device, so only a lost connection would make it offline.
        while driver.health().await.unwrap() == DeviceState::Offline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("a connection", wait).await;
    // The first attempt may not be over yet.
    let device = thermostat("tcp://unused", &json!({}));
    let wait = async {
        while driver.write(visitor(&device, "setpoint"), Value::Float(7.0)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("a first write", wait).await;
}

#[tokio::test]
async fn the_host_listens_and_nothing_is_lost_when_the_broker_dies() {
    let mut broker = Mosquitto::start().await;
    let device = thermostat(&broker.url(), &json!({}));
    let (id, twins) = (device.id.clone(), RecordingTwins::new());
    let mut config = MapperConfig::new(twins.handle());
    config.backoff.first = Duration::from_millis(50);
    config.backoff.most = Duration::from_millis(200);
    let maker = MqttDevices::maker(Arc::new(SystemClock));
    let (host, driver) = MapperHost::new(config, [("mqtt".to_owned(), maker)]);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(driver.run(shutdown.clone()));
    host.set_device(Arc::new(device)).unwrap();
    broker.publish(&["-r", "-t", "home/t1/state", "-m", r#"{"temp": 215, "mode": 0}"#]).await;
    let reported = |property: &str, value: &str| twins.reported(&id, property).as_deref() == Some(value);
    until("a reported value", || reported("temperature", "21.5") && reported("mode", "off")).await;
    assert_eq!(twins.states(&id).last(), Some(&DeviceState::Online));
    twins.wish(&id, "setpoint", "21", false);
    until("the setpoint that the device never said", || reported("setpoint", "21")).await;

    broker.kill().await;
    until("offline", || twins.states(&id).last() == Some(&DeviceState::Offline)).await;
    twins.wish(&id, "setpoint", "23", false);
    broker.restart().await;
    broker.publish(&["-r", "-t", "home/t1/state", "-m", r#"{"temp": 220, "mode": 1}"#]).await;
    until("online", || twins.states(&id).last() == Some(&DeviceState::Online)).await;
    until("what was desired meanwhile", || reported("setpoint", "23")).await;
    until("what was said meanwhile", || reported("temperature", "22") && reported("mode", "heat")).await;
    broker.publish(&["-t", "home/t1/state", "-m", "no json"]).await;
    broker.publish(&["-t", "home/t1/state", "-m", r#"{"temp": 230, "mode": 5}"#]).await;
    until("what follows nonsense", || reported("temperature", "23") && reported("mode", "5")).await;
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_last_will_and_silence_are_offline() {
    let broker = Mosquitto::start().await;
    let device = thermostat(&broker.url(), &json!({"stateTopic": "home/t1/online", "offlineAfter": 300}));
    let driver = open(&device).await;
    let becomes = async |state: DeviceState| {
        let wait = async {
            while driver.health().await.unwrap() != state {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(state.as_str(), wait).await;
    };
    broker.publish(&["-r", "-t", "home/t1/state", "-m", r#"{"temp": 215}"#]).await;
    becomes(DeviceState::Online).await;
    becomes(DeviceState::Offline).await;
    assert!(matches!(driver.read(visitor(&device, "temperature")).await, Err(DriverError::Offline(_))), "too old");
    broker.publish(&["-t", "home/t1/state", "-m", r#"{"temp": 216}"#]).await;
    becomes(DeviceState::Online).await;
    broker.publish(&["-t", "home/t1/online", "-m", "offline"]).await;
    becomes(DeviceState::Offline).await;
    let closed = driver.read(visitor(&device, "temperature")).await.unwrap_err();
    assert!(matches!(closed, DriverError::Offline(_)), "{closed:?}");
    broker.publish(&["-t", "home/t1/online", "-m", "online"]).await;
    becomes(DeviceState::Online).await;
}
