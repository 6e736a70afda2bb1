use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kubeedge_core::{
    device::{ConfigData, DeviceInstance},
    mapper::{DriverError, DriverHandle, Value, ValueType, Visitor},
    names::SystemClock,
    testing,
};
use kubeedge_mapper::{
    MapperConfig, MapperHost,
    modbus::Modbus,
    simulator::{Boiler, BoilerServer},
};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::twins::RecordingTwins;

const PATIENCE: Duration = Duration::from_secs(20);

fn config(value: &Json) -> Arc<ConfigData> {
    Arc::new(value.as_object().unwrap().clone())
}

fn visitor(value_type: ValueType, value: &Json) -> Visitor {
    Visitor { property: "p".parse().unwrap(), value_type, config: config(value) }
}

fn device(port: u16, over: &Json) -> DeviceInstance {
    let mut settings = json!({"communicateMode": "TCP", "ip": "127.0.0.1", "port": port.to_string(), "slaveID": 1});
    for (key, value) in over.as_object().unwrap() {
        settings[key] = value.clone();
    }
    DeviceInstance {
        id: "default/device".parse().unwrap(),
        protocol: "modbus".to_owned(),
        config: config(&settings),
        properties: Vec::new(),
        report_state: false,
        state_cycle: None,
    }
}

fn modbus() -> Modbus {
    Modbus::new(Arc::new(SystemClock))
}

fn open(port: u16) -> DriverHandle {
    modbus().open(&device(port, &json!({"timeout": 5000}))).unwrap()
}

async fn read(driver: &DriverHandle, value_type: ValueType, place: &Json) -> Result<Value, DriverError> {
    let read = timeout(PATIENCE, driver.read(visitor(value_type, place)));
    read.await.expect("an answer in time").map(|sample| sample.value)
}

async fn write(driver: &DriverHandle, value_type: ValueType, place: &Json, value: Value) -> Result<(), DriverError> {
    timeout(PATIENCE, driver.write(visitor(value_type, place), value)).await.expect("an answer in time")
}

/// A Modbus device that is not ours, ended when it is dropped.
pub(crate) struct Pymodbus {
    child: Child,
    port: u16,
    #[cfg(feature = "modbus-rtu")]
    pub(crate) line: String,
}

impl Pymodbus {
    /// Takes the first Python that has pymodbus: a distribution installs it for its own, which may not come first.
    fn start(port: u16) -> Self {
        Self::of(&port.to_string())
    }

    /// On a serial line of its own.
    #[cfg(feature = "modbus-rtu")]
    pub(crate) fn serial() -> Self {
        Self::of("serial")
    }

    fn of(what: &str) -> Self {
        let mut reasons = String::new();
        for python in ["python3", "/usr/bin/python3"] {
            match Self::with(python, what) {
                Ok(server) => return server,
                Err(why) => reasons = format!("{reasons}{python}: {why}\n"),
            }
        }
        panic!(
            "this test needs Python with pymodbus: apt-get install python3-pymodbus python3-serial-asyncio\n{reasons}"
        );
    }

    fn with(python: &str, what: &str) -> Result<Self, String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pymodbus_server.py");
        let mut child = Command::new(python)
            .args([script, what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let line = line.trim();
        if line.starts_with("/dev/") || line.parse::<u16>().is_ok() {
            return Ok(Self {
                child,
                port: line.parse().unwrap_or(0),
                #[cfg(feature = "modbus-rtu")]
                line: line.to_owned(),
            });
        }
        let mut why = String::new();
        child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
        child.wait().unwrap();
        Err(why)
    }
}

impl Drop for Pymodbus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn every_register_of_another_implementation_is_read() {
    use ValueType::{Boolean, Bytes, Double, Float, Int, String as Text};
    let server = Pymodbus::start(0);
    let driver = open(server.port);
    for (value_type, place, value) in [
        (Int, json!({"register": "HoldingRegister", "offset": 0}), Value::Int(213)),
        (Float, json!({"register": "HoldingRegister", "offset": "0", "scale": 0.1}), Value::Float(21.3)),
        (Float, json!({"register": "HoldingRegister", "offset": 2, "limit": 2}), Value::Float(21.3)),
        (Int, json!({"register": "HoldingRegister", "offset": 4, "limit": 2}), Value::Int(0x0102_0304)),
        (Int, json!({"register": "HoldingRegister", "offset": 4, "limit": 2, "isSwap": true}), Value::Int(0x0201_0403)),
        (
            Int,
            json!({"register": "HoldingRegister", "offset": 4, "limit": 2, "isRegisterSwap": "true"}),
            Value::Int(0x0304_0102),
        ),
        (Text, json!({"register": "HoldingRegister", "offset": 6, "limit": 2}), Value::Text("wxyz".to_owned())),
        (Bytes, json!({"register": "HoldingRegister", "offset": 6, "limit": 1}), Value::Bytes(b"wx".to_vec())),
        (Int, json!({"register": "HoldingRegister", "offset": 12, "dataType": "int16"}), Value::Int(-15)),
        (Double, json!({"register": "InputRegister", "offset": 0, "scale": 0.01}), Value::Float(7.0)),
        (Int, json!({"register": "InputRegister", "offset": 1}), Value::Int(1500)),
        (Boolean, json!({"register": "CoilRegister", "offset": 0}), Value::Bool(true)),
        (Int, json!({"register": "CoilRegister", "offset": 0, "limit": 4}), Value::Int(0b1101)),
        (Boolean, json!({"register": "DiscreteInputRegister", "offset": 0}), Value::Bool(false)),
        (Boolean, json!({"register": "DiscreteInputRegister", "offset": 1}), Value::Bool(true)),
    ] {
        assert_eq!(read(&driver, value_type, &place).await.unwrap(), value, "{place}");
    }
}

#[tokio::test]
async fn another_implementation_takes_what_is_written() {
    let server = Pymodbus::start(0);
    let driver = open(server.port);
    let suite = |value_type, place: Json, values: Vec<Value>| {
        let wrong = visitor(value_type, &json!({"register": "Register"}));
        testing::driver_suite(driver.clone(), visitor(value_type, &place), values, wrong)
    };
    let holding = |limit: u16| json!({"register": "HoldingRegister", "offset": 8, "limit": limit});
    let floats = || vec![Value::Float(-21.3), Value::Float(0.1)];
    suite(ValueType::Int, holding(1), vec![Value::Int(0), Value::Int(65535)]).await.unwrap();
    suite(ValueType::Int, holding(2), vec![Value::Int(0xFFFF_FFFF), Value::Int(1)]).await.unwrap();
    suite(ValueType::Int, holding(4), vec![Value::Int(i64::MAX), Value::Int(7)]).await.unwrap();
    suite(ValueType::Float, holding(2), floats()).await.unwrap();
    suite(ValueType::Double, holding(4), floats()).await.unwrap();
    suite(ValueType::String, holding(3), vec![Value::Text("abc".into()), Value::Text(String::new())]).await.unwrap();
    let swapped = json!({"register": "HoldingRegister", "offset": 8, "dataType": "int64", "isSwap": true,
        "isRegisterSwap": true});
    suite(ValueType::Int, swapped, vec![Value::Int(i64::MIN), Value::Int(-2)]).await.unwrap();
    let scaled = json!({"register": "HoldingRegister", "offset": 8, "dataType": "int16", "scale": "0.1"});
    suite(ValueType::Float, scaled, floats()).await.unwrap();
    let coil = json!({"register": "CoilRegister", "offset": 1});
    suite(ValueType::Boolean, coil, vec![Value::Bool(true), Value::Bool(false)]).await.unwrap();
    let coils = json!({"register": "CoilRegister", "offset": 4, "limit": 4});
    suite(ValueType::Int, coils, vec![Value::Int(0b1010), Value::Int(0)]).await.unwrap();
}

#[tokio::test]
async fn bits_names_and_offsets_are_written_without_touching_the_rest() {
    let server = Pymodbus::start(0);
    let driver = open(server.port);
    let place = |over: &Json| {
        let mut place = json!({"register": "HoldingRegister", "offset": 8});
        place.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        place
    };
    let whole = place(&json!({}));
    write(&driver, ValueType::Int, &whole, Value::Int(0xABCD)).await.unwrap();
    write(&driver, ValueType::Int, &place(&json!({"bits": "4-7"})), Value::Int(5)).await.unwrap();
    assert_eq!(read(&driver, ValueType::Int, &whole).await.unwrap(), Value::Int(0xAB5D));
    let bit = place(&json!({"bit": 15}));
    assert_eq!(read(&driver, ValueType::Boolean, &bit).await.unwrap(), Value::Bool(true));
    write(&driver, ValueType::Boolean, &bit, Value::Bool(false)).await.unwrap();
    assert_eq!(read(&driver, ValueType::Int, &whole).await.unwrap(), Value::Int(0x2B5D));
    let mode = place(&json!({"enum": "0=off,1=auto,2=on"}));
    write(&driver, ValueType::String, &mode, Value::Text("on".into())).await.unwrap();
    assert_eq!(read(&driver, ValueType::Int, &whole).await.unwrap(), Value::Int(2));
    assert_eq!(read(&driver, ValueType::String, &mode).await.unwrap(), Value::Text("on".into()));
    let error = write(&driver, ValueType::String, &mode, Value::Text("full".into())).await.unwrap_err();
    assert_eq!(error.to_string(), "device refused: \"full\" is not one of the names in enum");
    let kelvin = place(&json!({"scale": 0.1, "valueOffset": -273.1}));
    write(&driver, ValueType::Float, &kelvin, Value::Float(21.5)).await.unwrap();
    assert_eq!(read(&driver, ValueType::Int, &whole).await.unwrap(), Value::Int(2946));
    assert_eq!(read(&driver, ValueType::Float, &kelvin).await.unwrap(), Value::Float(21.5));
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_breaks_nothing() {
    let server = Pymodbus::start(0);
    let driver = open(server.port);
    let beyond = json!({"register": "HoldingRegister", "offset": 1000});
    let error = read(&driver, ValueType::Int, &beyond).await.unwrap_err();
    assert_eq!(error.to_string(), "device refused: illegal data address (exception 2)");
    let input = json!({"register": "InputRegister", "offset": 0});
    let error = write(&driver, ValueType::Int, &input, Value::Int(1)).await.unwrap_err();
    let text = "setting register is \"InputRegister\": only coils and holding registers can be written";
    assert_eq!(error.to_string(), text);
    let limited = json!({"register": "HoldingRegister", "offset": 8, "max": "90", "min": 5});
    let error = write(&driver, ValueType::Int, &limited, Value::Int(91)).await.unwrap_err();
    assert_eq!(error.to_string(), "device refused: 91 is above the maximum 90");
    let error = write(&driver, ValueType::Int, &limited, Value::Text("hot".into())).await.unwrap_err();
    assert_eq!(error.to_string(), "device refused: \"hot\" is not a whole number");
    let good = json!({"register": "HoldingRegister", "offset": 0});
    assert_eq!(read(&driver, ValueType::Int, &good).await.unwrap(), Value::Int(213));
}

#[tokio::test]
async fn a_device_that_was_away_is_found_again() {
    let server = Pymodbus::start(0);
    let port = server.port;
    let driver = open(port);
    let place = json!({"register": "HoldingRegister", "offset": 0});
    assert_eq!(read(&driver, ValueType::Int, &place).await.unwrap(), Value::Int(213));
    drop(server);
    let error = read(&driver, ValueType::Int, &place).await.unwrap_err();
    assert!(matches!(error, DriverError::Offline(_)), "{error:?}");
    let _server = Pymodbus::start(port);
    assert_eq!(read(&driver, ValueType::Int, &place).await.unwrap(), Value::Int(213));
}

/// Reads a request: transaction, unit and address.
async fn request(stream: &mut TcpStream) -> Option<([u8; 2], u8, u16)> {
    let mut frame = [0; 12];
    stream.read_exact(&mut frame).await.ok()?;
    Some(([frame[0], frame[1]], frame[6], u16::from_be_bytes([frame[8], frame[9]])))
}

/// Answers a read of one holding register.
async fn answer(stream: &mut TcpStream, transaction: [u8; 2], unit: u8, word: u16) {
    let [high, low] = word.to_be_bytes();
    let frame = [transaction[0], transaction[1], 0, 0, 0, 5, unit, 3, 2, high, low];
    stream.write_all(&frame).await.unwrap();
}

#[tokio::test]
async fn a_late_answer_is_not_taken_for_another() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, mut arrivals) = mpsc::channel(8);
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        let (transaction, unit, address) = request(&mut first).await.unwrap();
        asked.send(address).await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        // The answer to the first question comes now, while the second one is open.
        answer(&mut first, transaction, unit, 111).await;
        released.await.unwrap();
        let (transaction, unit, address) = request(&mut second).await.unwrap();
        asked.send(address).await.unwrap();
        answer(&mut second, transaction, unit, 222).await;
        (first, second)
    });
    let driver = modbus().open(&device(port, &json!({"timeout": 100}))).unwrap();
    let slow = read(&driver, ValueType::Int, &json!({"register": "HoldingRegister", "offset": 1})).await;
    assert!(matches!(slow, Err(DriverError::TimedOut)), "{slow:?}");
    assert_eq!(arrivals.recv().await, Some(1));
    release.send(()).unwrap();
    let patient = Value::Int(222);
    let place = json!({"register": "HoldingRegister", "offset": 2});
    assert_eq!(read(&driver, ValueType::Int, &place).await.unwrap(), patient, "on a connection of its own");
    assert_eq!(arrivals.recv().await, Some(2));
    server.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_the_device_closed_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (closed, mut closings) = mpsc::channel(8);
    let server = tokio::spawn(async move {
        for word in [1, 2] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (transaction, unit, _) = request(&mut stream).await.unwrap();
            answer(&mut stream, transaction, unit, word).await;
            drop(stream);
            closed.send(()).await.unwrap();
        }
    });
    let driver = open(port);
    let place = json!({"register": "HoldingRegister", "offset": 0});
    for word in [1, 2] {
        assert_eq!(read(&driver, ValueType::Int, &place).await.unwrap(), Value::Int(word));
        closings.recv().await.unwrap();
    }
    server.await.unwrap();
}

#[tokio::test]
async fn devices_of_one_address_share_a_line_and_take_turns() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            while let Some((transaction, unit, address)) = request(&mut stream).await {
                // Whoever sends without waiting for the answer is seen here.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                let mut early = [0; 1];
                assert!(stream.try_read(&mut early).is_err(), "one request at a time");
                answer(&mut stream, transaction, unit, u16::from(unit) * 100 + address).await;
            }
        }
    });
    let modbus = modbus();
    let open = |unit: u8| modbus.open(&device(port, &json!({"slaveID": unit, "timeout": 20_000}))).unwrap();
    let (one, two) = (open(1), open(2));
    let reads = (0..40).map(|count| {
        let (driver, unit) = if count % 2 == 0 { (one.clone(), 1) } else { (two.clone(), 2) };
        tokio::spawn(async move {
            let place = json!({"register": "HoldingRegister", "offset": count});
            assert_eq!(read(&driver, ValueType::Int, &place).await.unwrap(), Value::Int(unit * 100 + count));
        })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert!(!server.is_finished());
    server.abort();
}

#[tokio::test]
async fn nonsense_from_a_device_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let nonsense: &[&[u8]] = &[
        &[0, 0, 0, 0, 0, 3, 1, 3, 0],             // no words
        &[0, 0, 0, 0, 0, 7, 1, 3, 4, 0, 1, 0, 2], // more words than asked for
        &[0, 0, 0, 0, 0, 4, 1, 1, 1, 1],          // the answer to another function
        &[0, 9, 0, 0, 0, 5, 1, 3, 2, 0, 1],       // to another request
        &[0, 0, 0, 0, 0, 5, 7, 3, 2, 0, 1],       // from another unit
        &[0, 0, 0, 0, 0, 1, 1],                   // nothing at all
        &[0, 0, 0, 0, 0, 0, 1],                   // less than nothing
        &[0, 0, 0, 5, 0, 5, 1, 3, 2, 0, 1],       // another protocol
        &[0, 0, 0, 0, 0, 4, 1, 3, 200, 0],        // a length that lies
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ];
    let server = tokio::spawn(async move {
        for frame in nonsense {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await.unwrap();
            stream.write_all(frame).await.unwrap();
            // Until the driver has had enough of it.
            let _ = stream.read(&mut [0; 1]).await;
        }
        let (mut stream, _) = listener.accept().await.unwrap();
        let (transaction, unit, _) = request(&mut stream).await.unwrap();
        answer(&mut stream, transaction, unit, 42).await;
        stream
    });
    let modbus = modbus();
    let place = json!({"register": "HoldingRegister", "offset": 0});
    for frame in nonsense {
        // A new device each, so that the frames above have the right transaction.
        let driver = modbus.open(&device(port, &json!({"timeout": 300}))).unwrap();
        let outcome = read(&driver, ValueType::Int, &place).await;
        assert!(outcome.is_err(), "{frame:?} is {outcome:?}");
    }
    let driver = modbus.open(&device(port, &json!({"timeout": 20_000}))).unwrap();
    assert_eq!(read(&driver, ValueType::Int, &place).await.unwrap(), Value::Int(42));
    server.await.unwrap();
}

/// A boiler that lives a thousand times faster.
async fn boiler(acceleration: u32) -> (u16, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = BoilerServer::with(listener, Boiler::default(), acceleration);
    let port = server.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    (port, shutdown.clone(), tokio::spawn(server.run(shutdown)))
}

fn setpoint() -> Json {
    json!({"register": "HoldingRegister", "offset": 0, "scale": 0.1})
}

#[tokio::test]
async fn the_boiler_is_a_modbus_device() {
    let (port, shutdown, served) = boiler(1000).await;
    let driver = open(port);
    let wrong = visitor(ValueType::Float, &json!({"register": "Setpoint"}));
    let values = vec![Value::Float(30.5), Value::Float(80.0)];
    testing::driver_suite(driver.clone(), visitor(ValueType::Float, &setpoint()), values, wrong).await.unwrap();
    let water = json!({"register": "InputRegister", "offset": 0, "scale": 0.1});
    timeout(PATIENCE, async {
        loop {
            match read(&driver, ValueType::Float, &water).await.unwrap() {
                Value::Float(degrees) if degrees > 40.0 => break,
                Value::Float(_) => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
    })
    .await
    .expect("the water gets warmer");
    let heater = json!({"register": "CoilRegister"});
    write(&driver, ValueType::Boolean, &heater, Value::Bool(false)).await.unwrap();
    let on = json!({"register": "DiscreteInputRegister"});
    assert_eq!(read(&driver, ValueType::Boolean, &on).await.unwrap(), Value::Bool(false));
    let power = json!({"register": "InputRegister", "offset": 1});
    assert_eq!(read(&driver, ValueType::Int, &power).await.unwrap(), Value::Int(0));
    let beyond = json!({"register": "InputRegister", "offset": 2});
    assert!(matches!(read(&driver, ValueType::Int, &beyond).await, Err(DriverError::Refused(_))));
    let hot = write(&driver, ValueType::Float, &setpoint(), Value::Float(95.1)).await.unwrap_err();
    assert_eq!(hot.to_string(), "device refused: illegal data value (exception 3)");
    let others: Vec<_> = (0..8).map(|_| open(port)).collect();
    for other in &others {
        assert_eq!(read(other, ValueType::Float, &setpoint()).await.unwrap(), Value::Float(80.0));
    }
    shutdown.cancel();
    timeout(PATIENCE, served).await.expect("it closes every connection").unwrap();
    assert!(matches!(read(&driver, ValueType::Int, &power).await, Err(DriverError::Offline(_))));
}

#[tokio::test]
async fn the_host_brings_a_desired_setpoint_to_the_boiler() {
    let (port, shutdown, served) = boiler(2000).await;
    let model = json!({"protocol": "modbus", "properties": [
        {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly", "visitors": {"protocolName": "modbus",
            "configData": {"register": "InputRegister", "offset": 0, "scale": 0.1}}},
        {"name": "setpoint", "type": "FLOAT", "accessMode": "ReadWrite", "visitors": {"protocolName": "modbus",
            "configData": setpoint()}}]});
    let spec = json!({"deviceModelRef": {"name": "boiler"},
        "protocol": {"protocolName": "modbus", "configData": {"ip": "127.0.0.1", "port": port}},
        "properties": [{"name": "temperature", "reportToCloud": true, "collectCycle": 20},
            {"name": "setpoint", "reportToCloud": true, "collectCycle": 20}]});
    let (spec, model) = (serde_json::from_value(spec).unwrap(), serde_json::from_value(model).unwrap());
    let device = DeviceInstance::merge("default/boiler".parse().unwrap(), &spec, &model).unwrap();
    let (id, twins) = (device.id.clone(), RecordingTwins::new());
    let maker = Modbus::maker(Arc::new(SystemClock));
    let (host, driver) = MapperHost::new(MapperConfig::new(twins.handle()), [("modbus".to_owned(), maker)]);
    let running = tokio::spawn(driver.run(shutdown.clone()));
    host.set_device(Arc::new(device)).unwrap();
    let until = async |property: &str, reached: &dyn Fn(f64) -> bool| {
        let wait = async {
            while !twins.reported(&id, property).is_some_and(|value| reached(value.parse().unwrap())) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{property} does not get there"));
    };
    until("temperature", &|degrees| degrees > 44.0).await;
    twins.wish(&id, "setpoint", "70.5", false);
    until("setpoint", &|degrees| (degrees - 70.5).abs() < 0.01).await;
    until("temperature", &|degrees| degrees > 69.0).await;
    shutdown.cancel();
    running.await.unwrap();
    served.await.unwrap();
}
