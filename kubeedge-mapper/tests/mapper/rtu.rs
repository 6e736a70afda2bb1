//! Modbus over a serial line, against another implementation at the other end of it.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    device::DeviceInstance,
    mapper::{DriverError, DriverHandle, Value, ValueType, Visitor},
    names::SystemClock,
    testing,
};
use kubeedge_mapper::modbus::Modbus;
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::modbus::Pymodbus;

const PATIENCE: Duration = Duration::from_secs(30);

fn device(config: &Json) -> DeviceInstance {
    let spec = json!({"deviceModelRef": {"name": "m"}, "protocol": {"protocolName": "modbus", "configData": config}});
    let (spec, model) = (serde_json::from_value(spec).unwrap(), serde_json::from_value(json!({})).unwrap());
    DeviceInstance::merge("default/device".parse().unwrap(), &spec, &model).unwrap()
}

fn visitor(value_type: ValueType, place: &Json) -> Visitor {
    Visitor { property: "p".parse().unwrap(), value_type, config: place.as_object().unwrap().clone().into() }
}

async fn read(driver: &DriverHandle, offset: u16) -> Result<Value, DriverError> {
    let place = visitor(ValueType::Int, &json!({"register": "HoldingRegister", "offset": offset}));
    timeout(PATIENCE, driver.read(place)).await.expect("an answer in time").map(|sample| sample.value)
}

#[tokio::test]
async fn units_on_one_serial_line_take_turns() {
    let server = Pymodbus::serial();
    let modbus = Modbus::new(Arc::new(SystemClock));
    let unit = |unit: u8, over: Json| {
        let mut config = json!({"communicateMode": "RTU", "serialName": server.line, "baudRate": 19200, "dataBits": 8,
            "stopBits": 1, "parity": "None", "slaveID": unit, "timeout": 10_000});
        config.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        modbus.open(&device(&config))
    };
    let (one, two) =
        (unit(1, json!({})).unwrap(), unit(2, json!({"serialName": "", "serialPort": server.line})).unwrap());
    let reads = (0..20).map(|count| {
        let (driver, value) = if count % 2 == 0 { (one.clone(), 213) } else { (two.clone(), 233) };
        tokio::spawn(async move { assert_eq!(read(&driver, 0).await.unwrap(), Value::Int(value)) })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap();
    }
    let beyond = read(&two, 5).await.unwrap_err();
    assert_eq!(beyond.to_string(), "device refused: illegal data address (exception 2)");
    let place = json!({"register": "HoldingRegister", "offset": 8, "limit": 2});
    let wrong = visitor(ValueType::Float, &json!({"register": "Register"}));
    let values = vec![Value::Float(-21.3), Value::Float(0.1)];
    testing::driver_suite(one.clone(), visitor(ValueType::Float, &place), values, wrong).await.unwrap();

    let silent = unit(9, json!({"timeout": 200})).unwrap();
    assert!(matches!(read(&silent, 0).await, Err(DriverError::TimedOut)), "nobody has this number");
    assert_eq!(read(&one, 0).await.unwrap(), Value::Int(213), "which is no harm to the others");

    let faster = unit(1, json!({"baudRate": 9600})).unwrap_err();
    assert!(matches!(faster, DriverError::Offline(_)), "the line has one speed: {faster:?}");
    let another =
        Modbus::new(Arc::new(SystemClock)).open(&device(&json!({"serialPort": server.line, "baudRate": 19200})));
    let taken = read(&another.unwrap(), 0).await;
    assert!(matches!(taken, Err(DriverError::Offline(_))), "the line is ours alone: {taken:?}");
    drop((one, two, silent));
    let slower = unit(1, json!({"baudRate": 38400})).unwrap();
    assert_eq!(read(&slower, 0).await.unwrap(), Value::Int(213), "nobody is on it any more");
}

#[tokio::test]
async fn a_line_that_is_not_there_is_a_device_that_is_away() {
    let modbus = Modbus::new(Arc::new(SystemClock));
    let driver = modbus.open(&device(&json!({"communicateMode": "RTU", "serialPort": "/dev/no-such-line"}))).unwrap();
    assert!(matches!(read(&driver, 0).await, Err(DriverError::Offline(_))));
}
