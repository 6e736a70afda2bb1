//! Devices that speak by themselves, what drivers say of them, and demands out of turn.

use std::sync::{Arc, Mutex};

use kubeedge_core::{
    device::DeviceState,
    mapper::{DriverError, Value, ValueType},
};
use kubeedge_mapper::{DemandError, host::AuditHook};
use serde_json::json;
use tokio::time::Instant;

use super::{
    host::{Site, boiler, pump, seconds, values},
    plant::Mode,
};

#[tokio::test(start_paused = true)]
async fn a_device_that_speaks_is_listened_to_and_polled_when_it_stops() {
    let site = Site::start();
    site.plant.with(|state| state.pushes = true);
    site.set(&json!({}));
    seconds(5.5).await;
    site.plant.say("temperature", Ok(Value::Float(30.0)));
    site.plant.say("setpoint", Ok(Value::Float(50.0)));
    site.plant.say("temperature", Ok(Value::Float(31.0)));
    seconds(0.1).await;
    let both = values(&[("temperature", "31"), ("setpoint", "50")]);
    assert_eq!(site.twins.values(&boiler()), [(5500, both)], "at once, in one report");
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online]);
    assert_eq!(site.plant.with(|state| state.reads.len()), 0, "it is not polled");
    site.plant.with(|state| {
        state.pushes = false;
        state.listener = None;
    });
    seconds(0.1).await;
    assert_eq!(site.plant.with(|state| state.reads.len()), 2, "polled at once");
    assert_eq!(site.twins.reported(&boiler(), "temperature").unwrap(), "20");
    seconds(10.0).await;
    assert!(site.plant.with(|state| state.reads.len()) >= 20);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ended_is_opened_again() {
    let site = Site::start();
    site.plant.with(|state| state.pushes = true);
    site.set(&json!({}));
    seconds(1.5).await;
    site.plant.with(|state| state.listener = None);
    seconds(20.0).await;
    assert!(site.plant.with(|state| state.listener.is_some()));
    let reads = site.plant.with(|state| state.reads.len());
    assert!(reads > 0, "polled meanwhile");
    seconds(20.0).await;
    assert_eq!(site.plant.with(|state| state.reads.len()), reads);
    site.plant.say("temperature", Ok(Value::Float(33.0)));
    seconds(0.1).await;
    assert_eq!(site.twins.reported(&boiler(), "temperature").unwrap(), "33");
}

#[tokio::test(start_paused = true)]
async fn what_is_desired_waits_for_a_speaking_device_but_not_for_ever() {
    let site = Site::start();
    site.plant.with(|state| {
        state.pushes = true;
        state.health = DeviceState::Offline;
    });
    site.twins.wish(&boiler(), "setpoint", "60", true);
    site.set(&json!({}));
    seconds(30.0).await;
    assert_eq!(site.writes(), Vec::<f64>::new(), "it is not there");
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Offline]);
    site.plant.with(|state| state.health = DeviceState::Online);
    seconds(5.0).await;
    assert_eq!(site.writes(), [60.0], "it is there, and has said nothing of its setpoint");
    assert_eq!(site.twins.states(&boiler())[1..], [DeviceState::Online]);
}

#[tokio::test(start_paused = true)]
async fn news_that_are_no_values_break_nothing() {
    let site = Site::start();
    site.plant.with(|state| state.pushes = true);
    site.set(&json!({}));
    seconds(0.5).await;
    site.plant.say("temperature", Err(DriverError::Failed("no number".into())));
    site.plant.say("no-such", Ok(Value::Float(1.0)));
    site.plant.say("temperature", Ok(Value::Text("warm".into())));
    site.plant.say("temperature", Ok(Value::Text("25".into())));
    seconds(0.1).await;
    assert_eq!(site.twins.reported(&boiler(), "temperature").unwrap(), "25");
    assert_eq!(site.twins.reported(&boiler(), "no-such"), None);
    assert_eq!(site.twins.states(&boiler()), [DeviceState::Online]);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_knows_the_state_is_believed() {
    let site = Site::start();
    site.plant.with(|state| state.health = DeviceState::Unhealthy);
    site.set(&json!({}));
    seconds(2.5).await;
    site.plant.with(|state| state.health = DeviceState::Ok);
    seconds(1.0).await;
    site.plant.mode(Mode::Offline);
    seconds(5.0).await;
    let told = [DeviceState::Unhealthy, DeviceState::Ok, DeviceState::Offline];
    assert_eq!(site.twins.states(&boiler()), told);
}

#[tokio::test(start_paused = true)]
async fn reads_and_writes_on_demand_go_between_the_polls() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let noted = log.clone();
    let site = Site::with(|mut config| {
        config.audit = Some(AuditHook::new(move |audit| {
            let outcome = audit.outcome.map_err(ToString::to_string);
            noted.lock().unwrap().push(format!("{} {} {} {outcome:?}", audit.origin, audit.property, audit.value));
        }));
        config
    });
    site.set(&json!({}));
    seconds(0.5).await;
    let (temperature, setpoint) = ("temperature".parse().unwrap(), "setpoint".parse().unwrap());
    site.plant.set("temperature", Value::Float(21.5));
    let reading = site.host.read(&boiler(), &temperature).await.unwrap();
    assert_eq!((reading.text.as_str(), reading.value_type), ("21.5", ValueType::Float));
    assert_eq!(site.host.write(&boiler(), &setpoint, "60.50", "test").await.unwrap().text, "60.5");
    assert_eq!(site.writes(), [60.5]);
    seconds(0.1).await;
    assert_eq!(site.twins.reported(&boiler(), "setpoint").unwrap(), "60.5", "and it is reported");
    let write = async |property, value: &str| {
        let outcome = site.host.write(&boiler(), property, value, "test").await;
        kubeedge_core::service::Causes(&outcome.unwrap_err()).to_string()
    };
    assert_eq!(write(&temperature, "1").await, "property temperature is read only");
    assert_eq!(write(&setpoint, "91").await, "value is not acceptable: 91 is above the maximum 90");
    assert!(write(&setpoint, "hot").await.contains("\"hot\" is not a number"));
    let unknown = site.host.read(&pump(), &setpoint).await.unwrap_err();
    assert_eq!(unknown.to_string(), "device default/pump is not on this mapper");
    assert!(matches!(site.host.read(&boiler(), &"x".parse().unwrap()).await, Err(DemandError::UnknownProperty(_))));
    assert_eq!(
        log.lock().unwrap()[..2],
        ["test setpoint 60.50 Ok(())", "test temperature 1 Err(\"property temperature is read only\")"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_demand_on_a_hung_device_ends_in_time_and_is_not_done_later() {
    let site = Site::start();
    site.set(&json!({}));
    seconds(0.5).await;
    site.plant.mode(Mode::Hangs);
    let (start, setpoint) = (Instant::now(), "setpoint".parse().unwrap());
    let many = (0..40).map(|_| {
        let (host, setpoint) = (site.host.clone(), Clone::clone(&setpoint));
        tokio::spawn(async move { host.write(&boiler(), &setpoint, "60", "test").await })
    });
    let (mut late, mut busy) = (0, 0);
    for demand in many.collect::<Vec<_>>() {
        match demand.await.unwrap() {
            Err(DemandError::TimedOut | DemandError::Driver(DriverError::TimedOut)) => late += 1,
            Err(DemandError::Busy) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(late >= 16 && busy >= 1, "{late} waited, {busy} were turned away");
    assert!(start.elapsed().as_secs() <= 10);
    site.plant.mode(Mode::Works);
    let tried = site.writes().len();
    seconds(60.0).await;
    assert_eq!(site.writes().len(), tried, "those that gave up are not done any more");
    site.shutdown.cancel();
    seconds(2.0).await;
    assert!(matches!(site.host.read(&boiler(), &setpoint).await, Err(DemandError::Stopped)));
}
