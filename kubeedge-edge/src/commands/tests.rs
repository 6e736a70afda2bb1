#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use kubeedge_core::{
    device::{DeviceInstance, DeviceModelSpec, DeviceSpec},
    meta::{Collection, MetaKey, Record},
    names::SystemClock,
    resource::ResourceType,
    testing::{MemoryBus, MemoryStore},
    twin::PropertyPatch,
};
use kubeedge_twin::{DeviceTwins, TwinsConfig};
use serde_json::json;

use super::*;
use kubeedge_core::twin::{DeviceSelector, TwinEvent};

struct Site {
    commands: Commands,
    twins: TwinHandle,
    device: DeviceId,
}

/// A device that no driver of this process has.
async fn site() -> Site {
    let (store, clock) = (MetaHandle::of(MemoryStore::new()), Arc::new(SystemClock));
    let bus = BusHandle::of(MemoryBus::new(10));
    let config = TwinsConfig::new("edge-1".parse().unwrap(), store.clone(), bus, clock.clone());
    let (device_twins, _driver) = DeviceTwins::open(config).await.unwrap();
    let device: DeviceId = "default/lamp".parse().unwrap();
    let spec = json!({
        "deviceModelRef": {"name": "lamp"}, "nodeName": "edge-1", "protocol": {"protocolName": "p"},
        "properties": [{"name": "level"}, {"name": "color"}],
        "methods": [{"name": "dim", "propertyNames": ["level"]}],
    });
    let model: DeviceModelSpec = serde_json::from_value(json!({"properties": [
        {"name": "level", "type": "INT", "accessMode": "ReadWrite"},
        {"name": "color", "type": "STRING", "accessMode": "ReadWrite"},
    ]}))
    .unwrap();
    let key = MetaKey::new(Collection::from(&ResourceType::Device), "default", "lamp");
    store.put(Record::new(key, serde_json::to_vec(&json!({"metadata": {}, "spec": spec})).unwrap())).await.unwrap();
    let spec: DeviceSpec = serde_json::from_value(spec).unwrap();
    let instance = DeviceInstance::merge(device.clone(), &spec, &model).unwrap();
    device_twins.set_device(instance.into(), "").await.unwrap();
    let twins = device_twins.handle();
    Site { commands: Commands::new(store, twins.clone(), None, clock), twins, device }
}

fn command(json: serde_json::Value) -> DeviceCommand {
    serde_json::from_value(json).unwrap()
}

impl Site {
    async fn run(&self, json: serde_json::Value) -> CommandResult {
        self.commands.execute(&self.device, command(json), "test").await
    }

    async fn report(&self, name: &str, value: &str) {
        let patch = PropertyPatch { value: value.into(), value_type: None };
        let patch = BTreeMap::from([(name.parse().unwrap(), Some(patch))]);
        self.twins.report(self.device.clone(), patch).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_until_the_mapper_has_done_it() {
    let site = site().await;
    let mut changes = site.twins.watch(DeviceSelector::One(site.device.clone())).await.unwrap();
    let mapper = async {
        while let Some(TwinEvent::Changed { twin, .. }) = changes.next().await {
            if let Some(desired) = &twin.properties[&"level".parse().unwrap()].desired {
                return site.report("level", &desired.value).await;
            }
        }
    };
    let (result, ()) = tokio::join!(site.run(json!({"event_id": "7", "write": {"level": "40"}})), mapper);
    assert!(result.is_done(), "{result:?}");
    assert_eq!((result.event_id.as_str(), result.values[&"level".parse().unwrap()].value.as_str()), ("7", "40"));
}

#[tokio::test(start_paused = true)]
async fn a_mapper_that_does_nothing_makes_it_late_and_the_value_stays_desired() {
    let site = site().await;
    site.report("color", "red").await;
    let result = site.run(json!({"write": {"level": "40"}, "timeout": 200})).await;
    assert_eq!((result.code, result.reason.as_str()), (Some(504), "no answer in time"));
    let twin = site.twins.get(site.device.clone()).await.unwrap();
    assert_eq!(twin.properties[&"level".parse().unwrap()].desired.as_ref().unwrap().value, "40");
    let read = site.run(json!({"read": ["color"]})).await;
    assert_eq!(read.values[&"color".parse().unwrap()].value, "red");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_told_with_its_name() {
    let site = site().await;
    for (asked, code, reason) in [
        (json!({}), 400, "neither write nor read names a property"),
        (json!({"write": {"level": "warm"}}), 400, "property level is refused: the value is not int or integer"),
        (json!({"read": ["color"]}), 404, "property color: nothing was reported of it yet"),
        (json!({"method": "sing", "write": {"level": "1"}}), 404, "the device has no method \"sing\""),
        (json!({"method": "dim", "write": {"color": "1"}}), 400, "method \"dim\" does not write property color"),
        (json!({"method": "dim", "read": ["level"]}), 400, "method \"dim\" needs values in write, for level"),
    ] {
        let result = site.run(asked.clone()).await;
        assert_eq!((result.code, result.reason.as_str()), (Some(code), reason), "{asked}");
    }
    let nobody = "default/nobody".parse().unwrap();
    let result = site.commands.execute(&nobody, command(json!({"read": ["x"]})), "test").await;
    assert_eq!(result.code, Some(404));
}
