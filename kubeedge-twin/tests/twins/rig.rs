//! A node's twins over a store and a bus in memory.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    bus::{BusEvent, BusHandle, Event, EventBus, Overflow},
    device::{DeviceInstance, DeviceModelSpec, DeviceSpec},
    meta::{MetaHandle, MetaStore, Record},
    names::{DeviceId, UnixMillis},
    outbox,
    service::Subscription,
    testing::{ManualClock, MemoryBus, MemoryStore},
    twin::{PropertyPatch, TwinPatch},
};
use kubeedge_twin::{DeviceTwins, TwinsConfig};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) struct Rig {
    pub(super) store: MetaHandle,
    pub(super) clock: Arc<ManualClock>,
    pub(super) twins: DeviceTwins,
    pub(super) bus: BusHandle,
    published: Subscription<BusEvent>,
    shutdown: CancellationToken,
    driver: JoinHandle<()>,
}

/// Event id of the rig's own questions.
const RIG: &str = "rig";

/// Time after which a test gives up; paused clocks make it free.
const PATIENCE: Duration = Duration::from_secs(120);

impl Rig {
    pub(super) async fn new() -> Self {
        Self::over(MemoryStore::new(), MemoryBus::new(256)).await
    }

    pub(super) async fn over(store: impl MetaStore, bus: impl EventBus) -> Self {
        let (store, bus) = (MetaHandle::of(store), BusHandle::of(bus));
        let clock = Arc::new(ManualClock::new(UnixMillis(1_795_232_658_000)));
        let config = TwinsConfig::new("edge-go".parse().unwrap(), store.clone(), bus.clone(), clock.clone());
        let (twins, driver) = DeviceTwins::open(config).await.unwrap();
        let results = "$hw/events/#".parse().unwrap();
        let published = bus.subscribe(results, Overflow::HoldPublisher).await.unwrap();
        let shutdown = CancellationToken::new();
        let driver = tokio::spawn(driver.run(shutdown.clone()));
        let rig = Self { store, clock, twins, bus, published, shutdown, driver };
        rig.wait_until_served().await;
        rig
    }

    /// The driver subscribes in its own time; what is published before that is lost, as on any bus.
    async fn wait_until_served(&self) {
        let device = "$hw/events/device/rig/rig";
        for (topic, answer) in [
            (format!("{device}/twin/get"), format!("{device}/twin/get/result")),
            (format!("{device}/state/update"), format!("{device}/state/update/result")),
            ("$hw/events/node/rig/membership/get".into(), "$hw/events/node/edge-go/membership/get/result".into()),
        ] {
            let mut answers = self.bus.subscribe(answer.parse().unwrap(), Overflow::DropOldest).await.unwrap();
            let mut beat = tokio::time::interval(Duration::from_secs(1));
            let asking = async {
                loop {
                    tokio::select! {
                        _ = beat.tick() => self.publish(&topic, format!(r#"{{"event_id":"{RIG}"}}"#)).await,
                        _ = answers.next() => return,
                    }
                }
            };
            tokio::time::timeout(PATIENCE, asking).await.expect("the driver serves its topics");
        }
    }

    pub(super) async fn publish(&self, topic: &str, payload: impl Into<bytes::Bytes>) {
        self.bus.publish(Event::new(topic.parse().unwrap(), payload)).await.unwrap();
    }

    /// The next thing that the twins have published.
    pub(super) async fn next(&mut self) -> (String, Value) {
        loop {
            let item = tokio::time::timeout(PATIENCE, self.published.next()).await.expect("something is published");
            let BusEvent::Message(event) = item.unwrap() else { panic!("the test is too slow") };
            let topic = event.topic.as_str();
            let is_answer =
                ["/result", "/document", "/delta", "/membership/updated"].iter().any(|end| topic.ends_with(end));
            if !is_answer {
                continue;
            }
            let body: Value = serde_json::from_slice(&event.payload).unwrap();
            if body["event_id"] != RIG {
                return (topic.to_owned(), body);
            }
        }
    }

    /// Asserts that nothing was published since [`Rig::next`]: asks something and sees the answer come first.
    pub(super) async fn nothing_more(&mut self) {
        self.publish("$hw/events/device/silence/check/twin/get", r#"{"event_id":"silence"}"#).await;
        let (topic, answer) = self.next().await;
        assert_eq!(answer["event_id"], "silence", "{topic}: {answer}");
    }

    pub(super) async fn outbox(&self, subject: &str) -> Option<Record> {
        self.store.get(outbox::key(&outbox::Subject::new(subject).unwrap())).await.unwrap()
    }

    /// Content of the message that is left for the cloud.
    pub(super) async fn told(&self, subject: &str) -> Value {
        let entry = self.outbox(subject).await.expect("a message for the cloud");
        outbox::message(&entry).unwrap().content.parse().unwrap()
    }

    /// Stops the driver.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.driver).await.expect("the driver stops").unwrap();
    }
}

pub(super) fn boiler() -> DeviceId {
    "default/boiler".parse().unwrap()
}

/// The boiler with a FLOAT `temperature` and an INT `setpoint` that should have that value.
pub(super) fn device(id: &DeviceId, setpoint: Option<&str>) -> Arc<DeviceInstance> {
    let model: DeviceModelSpec = serde_json::from_value(json!({"protocol": "simulator", "properties": [
        {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
        {"name": "setpoint", "type": "INT", "accessMode": "ReadWrite"},
    ]}))
    .unwrap();
    let desired = setpoint.map(|value| json!({"value": value}));
    let spec: DeviceSpec = serde_json::from_value(json!({"deviceModelRef": {"name": "boiler"}, "properties": [
        {"name": "temperature"}, {"name": "setpoint", "desired": desired},
    ]}))
    .unwrap();
    Arc::new(DeviceInstance::merge(id.clone(), &spec, &model).unwrap())
}

pub(super) fn patch(name: &str, value: &str) -> TwinPatch {
    let patch = PropertyPatch { value: value.into(), value_type: None };
    TwinPatch::from([(name.parse().unwrap(), Some(patch))])
}
