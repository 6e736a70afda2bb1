//! A Modbus device that fails in every way a device can, over real sockets: the state is true within two cycles, and no
//! desired value is lost.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kubeedge_core::{
    device::{DeviceInstance, DeviceState},
    names::SystemClock,
};
use kubeedge_mapper::{MapperConfig, MapperHost, modbus::Modbus};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::{soon, twins::RecordingTwins};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Works,
    /// The connection is reset when a request arrives.
    Resets,
    Silent,
    Garbage,
    WrongUnit,
    /// An exception code.
    Exception(u8),
}

/// One holding register at 0.
struct State {
    mode: Mode,
    register: u16,
    /// Requests since the mode was set.
    requests: usize,
    writes: Vec<u16>,
}

#[derive(Clone)]
struct Device(Arc<Mutex<State>>);

impl Device {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn mode(&self, mode: Mode) {
        self.with(|state| {
            state.mode = mode;
            state.requests = 0;
        });
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(self.clone().talk(stream));
        }
    }

    async fn talk(self, mut stream: TcpStream) {
        let mut frame = [0; 12];
        while stream.read_exact(&mut frame).await.is_ok() {
            let (function, value) = (frame[7], u16::from_be_bytes([frame[10], frame[11]]));
            let mode = self.with(|state| {
                state.requests += 1;
                if state.mode == Mode::Works && function == 6 {
                    state.register = value;
                    state.writes.push(value);
                }
                state.mode
            });
            let [high, low] = self.with(|state| state.register).to_be_bytes();
            let body = match (mode, function) {
                (Mode::Exception(code), _) => vec![frame[6], function | 0x80, code],
                (Mode::WrongUnit, _) => vec![frame[6] + 1, function, 2, high, low],
                (_, 3) => vec![frame[6], 3, 2, high, low],
                _ => frame[6..].to_vec(),
            };
            let mut answer = vec![frame[0], frame[1], 0, 0, 0, u8::try_from(body.len()).unwrap()];
            answer.extend(body);
            match mode {
                Mode::Silent => continue,
                Mode::Resets => {
                    // A close with a request unread, or no lingering, is a reset.
                    socket_reset(stream);
                    return;
                }
                Mode::Garbage => answer = b"\xFF\x00garbage\x00\x00".to_vec(),
                _ => {}
            }
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

fn socket_reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[tokio::test]
async fn every_way_to_fail_is_told_and_what_is_desired_is_done_after_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = State { mode: Mode::Works, register: 1, requests: 0, writes: Vec::new() };
    let device = Device(Arc::new(Mutex::new(state)));
    let serving = tokio::spawn(device.clone().serve(listener));

    let model =
        json!({"protocol": "modbus", "properties": [{"name": "setpoint", "type": "INT", "accessMode": "ReadWrite"}]});
    let spec = json!({"deviceModelRef": {"name": "m"},
        "protocol": {"protocolName": "modbus", "configData": {"ip": "127.0.0.1", "port": port, "timeout": 300}},
        "properties": [{"name": "setpoint", "reportToCloud": true, "collectCycle": 50,
            "visitors": {"configData": {"register": "HoldingRegister", "offset": 0}}}]});
    let (spec, model) = (serde_json::from_value(spec).unwrap(), serde_json::from_value(model).unwrap());
    let instance = DeviceInstance::merge("default/d".parse().unwrap(), &spec, &model).unwrap();
    let (id, twins) = (instance.id.clone(), RecordingTwins::new());
    let mut config = MapperConfig::new(twins.handle());
    config.backoff.first = Duration::from_millis(50);
    config.backoff.most = Duration::from_millis(100);
    let maker = Modbus::maker(Arc::new(SystemClock));
    let (host, driver) = MapperHost::new(config, [("modbus".to_owned(), maker)]);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(driver.run(shutdown.clone()));
    host.set_device(Arc::new(instance)).unwrap();
    let until = async |what: String, reached: &dyn Fn() -> bool| {
        let wait = async {
            while !reached() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        soon(&what, wait).await;
    };
    let is = |state: DeviceState| twins.states(&id).last() == Some(&state);
    until("online at first".into(), &|| is(DeviceState::Online)).await;

    let faults = [Mode::Resets, Mode::Silent, Mode::Garbage, Mode::WrongUnit, Mode::Exception(11)];
    for (round, fault) in (100_u16..).zip(faults) {
        device.mode(fault);
        until(format!("offline with {fault:?}"), &|| is(DeviceState::Offline)).await;
        // A request may have been under way; one on a kept connection that breaks is repeated on a new one at once.
        let requests = device.with(|state| state.requests);
        assert!(requests <= 2 * 2 + 1, "offline after two cycles with {fault:?}, not after {requests} requests");
        twins.wish(&id, "setpoint", &round.to_string(), false);
        device.mode(Mode::Works);
        until(format!("online after {fault:?}"), &|| is(DeviceState::Online)).await;
        let requests = device.with(|state| state.requests);
        assert!(requests <= 4, "online with the first answer after {fault:?}, not after {requests} requests");
        until(format!("{round} written after {fault:?}"), &|| device.with(|state| state.writes.contains(&round))).await;
        until(format!("{round} reported"), &|| twins.reported(&id, "setpoint") == Some(round.to_string())).await;
    }

    // An exception code of the device is an answer: it is there, and does not do this one thing.
    let states = twins.states(&id).len();
    device.mode(Mode::Exception(2));
    twins.wish(&id, "setpoint", "200", false);
    until("some refusals".into(), &|| device.with(|state| state.requests > 5)).await;
    assert_eq!(twins.states(&id).len(), states, "still online");
    device.mode(Mode::Works);
    until("written at last".into(), &|| device.with(|state| state.writes.contains(&200))).await;
    let writes = device.with(|state| state.writes.clone());
    assert_eq!(writes, [100, 101, 102, 103, 104, 200], "each once");
    shutdown.cancel();
    running.await.unwrap();
    serving.abort();
}
