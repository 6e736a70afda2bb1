use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kubeedge_core::{
    device::{DeviceInstance, DeviceState},
    mapper::Value,
    names::DeviceId,
};
use kubeedge_mapper::{MapperConfig, MapperHost};
use serde_json::{Value as Json, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    plant::{Mode, Plant},
    twins::RecordingTwins,
};

/// A host with two plants, of the protocols `plant` and `other`.
pub(crate) struct Site {
    pub(crate) host: MapperHost,
    pub(crate) plant: Plant,
    other: Plant,
    pub(crate) twins: RecordingTwins,
    pub(crate) shutdown: CancellationToken,
    running: JoinHandle<()>,
}

pub(crate) fn boiler() -> DeviceId {
    "default/boiler".parse().unwrap()
}

pub(crate) fn pump() -> DeviceId {
    "default/pump".parse().unwrap()
}

/// A device with `temperature` (read only) and `setpoint` (5 to 90), changed by `over`.
fn device(id: &DeviceId, over: &Json) -> Arc<DeviceInstance> {
    let model = json!({"protocol": "plant", "properties": [
        {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
        {"name": "setpoint", "type": "FLOAT", "accessMode": "ReadWrite", "minimum": "5", "maximum": "90"}]});
    let mut device = json!({"deviceModelRef": {"name": "boiler"}, "properties": [
        {"name": "temperature", "reportToCloud": true}, {"name": "setpoint", "reportToCloud": true}]});
    for (key, value) in over.as_object().unwrap() {
        device[key] = value.clone();
    }
    let (device, model) = (serde_json::from_value(device).unwrap(), serde_json::from_value(model).unwrap());
    Arc::new(DeviceInstance::merge(id.clone(), &device, &model).unwrap())
}

impl Site {
    pub(crate) fn start() -> Self {
        Self::with(|config| config)
    }

    pub(crate) fn with(adjust: impl FnOnce(MapperConfig) -> MapperConfig) -> Self {
        let values = || [("temperature", Value::Float(20.0)), ("setpoint", Value::Float(45.0))];
        let (plant, other, twins) = (Plant::new(values()), Plant::new(values()), RecordingTwins::new());
        let drivers = [("plant".to_owned(), plant.maker()), ("other".to_owned(), other.maker())];
        let (host, driver) = MapperHost::new(adjust(MapperConfig::new(twins.handle())), drivers);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(driver.run(shutdown.clone()));
        Self { host, plant, other, twins, shutdown, running }
    }

    pub(crate) fn set(&self, over: &Json) {
        self.host.set_device(device(&boiler(), over)).unwrap();
    }

    pub(crate) fn writes(&self) -> Vec<f64> {
        let number = |(_, value): &(String, Value)| match value {
            Value::Float(number) => *number,
            other => panic!("{other:?}"),
        };
        self.plant.with(|state| state.writes.iter().map(number).collect())
    }

    fn opened(&self) -> (usize, usize) {
        self.plant.with(|state| (state.opened, state.open_now))
    }
}

pub(crate) fn values(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Time is paused: it passes only when everybody waits, so this costs none.
pub(crate) async fn seconds(count: f64) {
    sleep(Duration::from_secs_f64(count)).await;
}

#[tokio::test(start_paused = true)]
async fn values_are_reported_together_when_they_change_and_at_their_cycle() {
    let site = Site::start();
    site.set(&json!({}));
    seconds(10.5).await;
    site.plant.set("temperature", Value::Float(21.5));
    seconds(62.0).await;
    let both = |temperature| values(&[("temperature", temperature), ("setpoint", "45")]);
    assert_eq!(
        site.twins.values(&boiler()),
        [
            (0, both("20")),
            (11_000, values(&[("temperature", "21.5")])),
            (60_000, values(&[("setpoint", "45")])),
            (71_000, values(&[("temperature", "21.5")])),
        ]
    );
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online], "told once without stateReport");
    assert_eq!(site.plant.with(|state| state.reads.len()), 2 * 73, "each property once a second, and no more");
}

#[tokio::test(start_paused = true)]
async fn cycles_and_flags_of_the_device_count() {
    let site = Site::start();
    site.set(&json!({"stateReport": {"reportToCloud": true, "reportCycle": 20_000}, "properties": [
        {"name": "temperature", "reportToCloud": true, "collectCycle": 5000, "reportCycle": 10_000},
        {"name": "setpoint", "collectCycle": 30_000}]}));
    seconds(31.0).await;
    let at: Vec<_> = site.twins.values(&boiler()).into_iter().collect();
    let same = values(&[("temperature", "20")]);
    assert_eq!(at, [0, 10_000, 20_000, 30_000].map(|at| (at, same.clone())), "setpoint is not for the cloud");
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online, DeviceState::Online]);
    assert_eq!(site.plant.with(|state| state.reads.len()), 7 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_desired_value_is_written_read_back_and_reported() {
    let site = Site::start();
    site.set(&json!({}));
    seconds(5.5).await;
    site.twins.wish(&boiler(), "setpoint", "60.0", false);
    site.twins.wish(&boiler(), "temperature", "99", false);
    seconds(0.1).await;
    assert_eq!(site.writes(), [60.0], "at once, and not to what is read only");
    assert_eq!(site.twins.values(&boiler()).last().unwrap(), &(5500, values(&[("setpoint", "60")])));
    seconds(5.0).await;
    site.plant.set("setpoint", Value::Float(50.0));
    seconds(100.0).await;
    assert_eq!(site.writes(), [60.0], "what is set on the device itself stays");
    assert_eq!(site.twins.reported(&boiler(), "setpoint").unwrap(), "50");
    site.twins.wish(&boiler(), "setpoint", "50", false);
    seconds(5.0).await;
    assert_eq!(site.writes(), [60.0], "the device has it already");
    site.twins.wish(&boiler(), "setpoint", "60", false);
    seconds(5.0).await;
    assert_eq!(site.writes(), [60.0, 60.0], "wished for again");
}

#[tokio::test(start_paused = true)]
async fn a_desired_value_that_is_there_at_the_start_is_written() {
    let site = Site::start();
    site.twins.wish(&boiler(), "setpoint", "70", true);
    site.set(&json!({}));
    seconds(0.1).await;
    assert_eq!(site.writes(), [70.0]);
}

#[tokio::test(start_paused = true)]
async fn what_the_model_does_not_allow_is_not_written() {
    let site = Site::start();
    site.set(&json!({}));
    for wrong in ["warm", "90.5", "4.9", "NaN", ""] {
        site.twins.wish(&boiler(), "setpoint", wrong, false);
        seconds(20.0).await;
    }
    assert_eq!(site.writes(), Vec::<f64>::new());
    assert!(site.plant.with(|state| state.reads.len()) >= 2 * 100, "polling goes on");
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online]);
    site.twins.wish(&boiler(), "setpoint", "90", false);
    seconds(1.0).await;
    assert_eq!(site.writes(), [90.0]);
}

#[tokio::test(start_paused = true)]
async fn an_offline_device_gets_what_was_desired_meanwhile() {
    let site = Site::start();
    site.set(&json!({}));
    seconds(1.5).await;
    site.plant.mode(Mode::Offline);
    seconds(5.0).await;
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online, DeviceState::Offline]);
    assert_eq!(site.twins.told(&boiler()).last().unwrap().0, 3000, "after two failures in a row");
    site.twins.wish(&boiler(), "setpoint", "60", false);
    site.plant.with(|state| state.reads.clear());
    seconds(600.0).await;
    assert_eq!(site.writes(), Vec::<f64>::new(), "no use while it is away");
    let asked = site.plant.with(|state| state.reads.len());
    assert!((55..=65).contains(&asked), "it is asked every ten seconds by now: {asked}");
    site.plant.mode(Mode::Works);
    site.plant.set("temperature", Value::Float(33.0));
    seconds(11.0).await;
    assert_eq!(site.writes(), [60.0]);
    assert_eq!(site.twins.reported(&boiler(), "temperature").unwrap(), "33");
    assert_eq!(site.twins.reported(&boiler(), "setpoint").unwrap(), "60");
    assert_eq!(site.twins.states(&boiler())[2..], [DeviceState::Online]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_lost_its_value_gets_it_again() {
    let site = Site::start();
    site.set(&json!({}));
    site.twins.wish(&boiler(), "setpoint", "60", false);
    seconds(2.5).await;
    site.plant.mode(Mode::Offline);
    seconds(10.0).await;
    site.plant.set("setpoint", Value::Float(45.0));
    site.plant.mode(Mode::Works);
    seconds(11.0).await;
    assert_eq!(site.writes(), [60.0, 60.0]);
    seconds(100.0).await;
    assert_eq!(site.writes().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_is_repeated_until_something_else_is_desired() {
    let site = Site::start();
    site.set(&json!({}));
    site.plant.mode(Mode::RefusesWrites);
    seconds(1.5).await;
    site.twins.wish(&boiler(), "setpoint", "60", false);
    seconds(100.0).await;
    let tries = site.writes();
    assert!((10..=15).contains(&tries.len()), "with growing pauses: {}", tries.len());
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online], "a refusal is an answer");
    site.twins.wish(&boiler(), "setpoint", "70", false);
    seconds(0.1).await;
    assert_eq!(site.writes()[tries.len()..], [70.0], "a new wish is tried at once");
    site.plant.mode(Mode::Works);
    seconds(100.0).await;
    assert_eq!(site.writes()[tries.len()..], [70.0, 70.0], "and the old one is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_hung_device_stalls_nobody_else() {
    let site = Site::start();
    let other = json!({"protocol": {"protocolName": "other"}});
    site.set(&json!({}));
    site.host.set_device(device(&pump(), &other)).unwrap();
    seconds(1.5).await;
    site.plant.mode(Mode::Hangs);
    site.other.with(|state| state.reads.clear());
    seconds(60.0).await;
    assert_eq!(site.other.with(|state| state.reads.len()), 2 * 60);
    assert_eq!(site.twins.states(&pump()), [DeviceState::Online]);
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online, DeviceState::Offline]);
    site.plant.mode(Mode::Works);
    seconds(25.0).await;
    assert_eq!(site.twins.states(&boiler())[2..], [DeviceState::Online]);
}

#[tokio::test(start_paused = true)]
async fn a_property_that_never_answers_does_not_hide_the_others() {
    let site = Site::start();
    site.plant.with(|state| state.mute = Some("setpoint".to_owned()));
    site.set(&json!({}));
    seconds(1.5).await;
    for step in 1..20 {
        site.plant.set("temperature", Value::Int(step));
        seconds(25.0).await;
        assert_eq!(site.twins.reported(&boiler(), "temperature").unwrap(), step.to_string());
    }
    site.twins.wish(&boiler(), "setpoint", "60", false);
    seconds(25.0).await;
    assert_eq!(site.writes(), [60.0], "it can still be written");
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online]);
}

#[tokio::test(start_paused = true)]
async fn the_same_device_stays_open_and_a_changed_one_is_opened_again() {
    let site = Site::start();
    site.set(&json!({}));
    site.twins.wish(&boiler(), "setpoint", "60", false);
    seconds(2.5).await;
    site.plant.set("setpoint", Value::Float(50.0));
    site.set(&json!({}));
    seconds(2.0).await;
    assert_eq!(site.opened(), (1, 1), "unchanged");
    let properties = json!([{"name": "temperature", "reportToCloud": true, "desired": {"value": "3"}},
        {"name": "setpoint", "reportToCloud": true, "collectCycle": 10_000}]);
    site.set(&json!({"properties": properties.clone()}));
    site.plant.with(|state| state.reads.clear());
    seconds(100.0).await;
    assert_eq!(site.opened(), (1, 1), "cycles and desired values are taken over as they are");
    assert_eq!(site.plant.with(|state| state.reads.len()), 100 + 10);
    assert_eq!(site.writes(), [60.0], "what is set on the device itself since stays");
    let told = site.twins.values(&boiler()).len();
    site.set(&json!({"properties": properties, "protocol": {"configData": {"ip": "10.0.0.2"}}}));
    seconds(0.1).await;
    assert_eq!(site.opened(), (2, 1), "another address, and the old one is closed");
    let after: Vec<_> = site.twins.values(&boiler()).into_iter().skip(told).map(|(_, told)| told).collect();
    assert_eq!(after, [values(&[("setpoint", "60")])], "what was told of the others is kept");
    assert_eq!(site.writes(), [60.0, 60.0], "which may be another device, so it gets what is desired");
    site.set(&json!({"protocol": {"protocolName": "other"}}));
    seconds(0.1).await;
    assert_eq!(site.opened(), (2, 0));
    assert_eq!(site.other.with(|state| state.open_now), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_is_left_alone_and_can_come_again() {
    let site = Site::start();
    site.set(&json!({}));
    seconds(2.5).await;
    assert!(site.host.remove_device(&boiler()));
    assert!(!site.host.remove_device(&boiler()));
    seconds(0.1).await;
    assert_eq!(site.opened(), (1, 0));
    let reads = site.plant.with(|state| state.reads.len());
    site.twins.wish(&boiler(), "setpoint", "60", false);
    seconds(100.0).await;
    assert_eq!(site.plant.with(|state| state.reads.len()), reads);
    assert_eq!(site.writes(), Vec::<f64>::new());
    site.set(&json!({}));
    seconds(0.1).await;
    assert_eq!((site.opened(), site.writes()), ((2, 1), vec![60.0]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_the_twins_are_busy() {
    let site = Site::start();
    site.set(&json!({}));
    seconds(1.5).await;
    site.twins.set_busy(true);
    for degrees in [21, 22, 23] {
        site.plant.set("temperature", Value::Int(degrees));
        seconds(10.0).await;
    }
    site.plant.mode(Mode::Offline);
    site.twins.wish(&boiler(), "setpoint", "60", false);
    seconds(20.0).await;
    site.plant.mode(Mode::Works);
    seconds(20.0).await;
    assert_eq!(site.twins.values(&boiler()).len(), 1);
    site.twins.set_busy(false);
    seconds(11.0).await;
    let values = site.twins.values(&boiler());
    assert_eq!(values[1].1["temperature"], "23", "the latest, once");
    assert_eq!(site.writes(), [60.0]);
    assert_eq!(site.twins.reported(&boiler(), "setpoint").unwrap(), "60");
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online], "it was away unseen, and is here");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_the_twins_refuse_does_not_hold_up_the_others() {
    let site = Site::start();
    let model = json!({"protocol": "plant", "properties": [
        {"name": "label", "type": "STRING"}, {"name": "temperature", "type": "FLOAT"}]});
    let spec = json!({"deviceModelRef": {"name": "m"}, "properties": [
        {"name": "label", "reportToCloud": true}, {"name": "temperature", "reportToCloud": true}]});
    let (spec, model) = (serde_json::from_value(spec).unwrap(), serde_json::from_value(model).unwrap());
    site.plant.set("label", Value::Text("two words".to_owned()));
    site.host.set_device(Arc::new(DeviceInstance::merge(boiler(), &spec, &model).unwrap())).unwrap();
    seconds(2.0).await;
    assert_eq!(site.twins.reported(&boiler(), "temperature").as_deref(), Some("20"));
    site.plant.set("label", Value::Text("word".to_owned()));
    seconds(3.0).await;
    assert_eq!(site.twins.reported(&boiler(), "label").as_deref(), Some("word"));
}

#[tokio::test(start_paused = true)]
async fn missed_events_and_ended_watches_are_made_up_for() {
    let site = Site::start();
    site.set(&json!({}));
    seconds(1.5).await;
    site.twins.wish(&boiler(), "setpoint", "60", true);
    seconds(20.0).await;
    assert_eq!(site.writes(), Vec::<f64>::new());
    site.twins.lag();
    seconds(0.1).await;
    assert_eq!(site.writes(), [60.0]);
    site.twins.close_watches();
    site.twins.wish(&boiler(), "setpoint", "70", true);
    seconds(2.0).await;
    assert_eq!(site.writes(), [60.0, 70.0]);
    site.twins.wish(&boiler(), "setpoint", "80", false);
    seconds(0.1).await;
    assert_eq!(site.writes(), [60.0, 70.0, 80.0], "the new watch works");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_protocol_is_an_error_and_the_device_offline() {
    let site = Site::start();
    let opcua = json!({"protocol": {"protocolName": "opcua"}});
    let error = site.host.set_device(device(&boiler(), &opcua)).unwrap_err();
    let text = "device default/boiler has protocol \"opcua\", but this mapper has only other, plant";
    assert_eq!(error.to_string(), text);
    seconds(30.0).await;
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Offline]);
    site.set(&json!({}));
    seconds(0.1).await;
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Offline, DeviceState::Online]);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_is_opened_again() {
    let site = Site::start();
    let other = json!({"protocol": {"protocolName": "other"}});
    site.host.set_device(device(&pump(), &other)).unwrap();
    site.set(&json!({}));
    seconds(1.5).await;
    site.plant.mode(Mode::Panics);
    seconds(1.0).await;
    site.plant.mode(Mode::Works);
    site.plant.set("temperature", Value::Int(50));
    seconds(11.0).await;
    assert_eq!(site.twins.reported(&boiler(), "temperature").as_deref(), Some("50"));
    assert_eq!((site.opened().0, site.other.with(|state| state.opened)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_even_hung_devices_at_once() {
    let site = Site::start();
    site.set(&json!({}));
    seconds(1.5).await;
    site.plant.mode(Mode::Hangs);
    seconds(1.0).await;
    let before = Instant::now();
    site.shutdown.cancel();
    site.running.await.unwrap();
    assert!(before.elapsed() <= Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(site.plant.with(|state| (state.opened, state.open_now)), (1, 0));
}
