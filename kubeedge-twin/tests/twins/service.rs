use std::time::Duration;

use kubeedge_core::{
    device::DeviceState,
    meta::{Collection, MetaKey, Selector},
    outbox,
    testing::{self, MemoryBus, MemoryStore},
    twin::{DeviceSelector, Twin, TwinError, TwinEvent, TwinHandle, Twins as _},
    words::{Group, Operation, Source},
};

use super::rig::{Rig, boiler, device, patch};

fn twin_key() -> MetaKey {
    MetaKey::new(Collection::twins(), "default", "boiler")
}

fn desired<'a>(twin: &'a Twin, name: &str) -> Option<&'a str> {
    Some(twin.properties.get(&name.parse().ok()?)?.desired.as_ref()?.value.as_str())
}

fn reported<'a>(twin: &'a Twin, name: &str) -> Option<&'a str> {
    Some(twin.properties.get(&name.parse().ok()?)?.reported.as_ref()?.value.as_str())
}

#[tokio::test(start_paused = true)]
async fn the_seam_is_conformant() {
    let rig = Rig::new().await;
    rig.twins.set_device(device(&boiler(), None), "").await.unwrap();
    testing::twin_suite(TwinHandle::of(rig.twins.clone()), boiler()).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_stored_together_with_its_message_and_then_published() {
    let mut rig = Rig::new().await;
    rig.twins.set_device(device(&boiler(), None), "heats").await.unwrap();
    let (topic, announced) = rig.next().await;
    assert_eq!(topic, "$hw/events/node/edge-go/membership/updated");
    assert_eq!(announced["added_devices"][0]["description"], "heats");
    assert!(announced["removed_devices"].is_null());

    rig.twins.report(boiler(), patch("temperature", "20.5")).await.unwrap();
    let record = rig.store.get(twin_key()).await.unwrap().unwrap();
    let entry = rig.outbox("twin/default/boiler").await.unwrap();
    assert_eq!(record.revision, entry.revision, "one commit");
    let message = outbox::message(&entry).unwrap();
    assert_eq!((message.source, message.group, message.operation), (Source::Twin, Group::Resource, Operation::Update));
    assert_eq!(message.resource.to_string(), "device/default/boiler/twin/edge_updated");
    assert_eq!(message.parent, None, "a message with a parent is taken for an answer");
    let told = rig.told("twin/default/boiler").await;
    assert_eq!(told["twin"]["temperature"]["actual"]["value"], "20.5");
    assert_eq!(told["twin"]["temperature"]["metadata"]["type"], "float");
    assert_eq!(told["twin"]["temperature"]["actual_version"]["edge"], 1);

    let (topic, result) = rig.next().await;
    assert_eq!(topic, "$hw/events/device/default/boiler/twin/update/result");
    assert_eq!(result["twin"]["temperature"]["actual"]["value"], "20.5");
    let (topic, document) = rig.next().await;
    assert_eq!(topic, "$hw/events/device/default/boiler/twin/update/document");
    assert!(document["twin"]["temperature"]["last"].is_null());
    rig.nothing_more().await;

    // The newest message is the whole twin.
    rig.twins.desire(boiler(), patch("setpoint", "60")).await.unwrap();
    let told = rig.told("twin/default/boiler").await;
    assert_eq!(told["twin"]["temperature"]["actual"]["value"], "20.5");
    assert_eq!(told["twin"]["setpoint"]["expected"]["value"], "60");
    assert_eq!(rig.store.list(outbox::selector()).await.unwrap().len(), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_known_costs_nothing() {
    let mut rig = Rig::new().await;
    rig.twins.set_device(device(&boiler(), Some("60")), "").await.unwrap();
    rig.twins.report(boiler(), patch("temperature", "20.5")).await.unwrap();
    rig.twins.report_state(boiler(), DeviceState::Online).await.unwrap();
    for _ in 0..6 {
        rig.next().await; // announcement, document and delta of the spec, result, document and delta of the report
    }
    assert_eq!(rig.next().await.0, "$hw/events/device/default/boiler/state/update/result");
    let before = rig.store.list(Selector::all(Collection::twins())).await.unwrap();

    let delta = rig.twins.report(boiler(), patch("temperature", "20.5")).await.unwrap();
    assert_eq!(delta.len(), 1, "what is not reached is told all the same");
    rig.twins.desire(boiler(), patch("setpoint", "60")).await.unwrap();
    rig.twins.report_state(boiler(), DeviceState::Online).await.unwrap();
    rig.twins.set_device(device(&boiler(), Some("60")), "").await.unwrap();
    assert_eq!(rig.store.list(Selector::all(Collection::twins())).await.unwrap(), before);
    rig.nothing_more().await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn everything_is_there_after_a_restart() {
    let disk = MemoryStore::new();
    let rig = Rig::over(disk.clone(), MemoryBus::new(256)).await;
    rig.twins.set_device(device(&boiler(), Some("60")), "heats").await.unwrap();
    rig.twins.report(boiler(), patch("temperature", "20.5")).await.unwrap();
    rig.twins.desire(boiler(), patch("setpoint", "65")).await.unwrap();
    rig.twins.report_state(boiler(), DeviceState::Online).await.unwrap();
    let before = rig.twins.get(boiler()).await.unwrap();
    rig.stop().await;

    let rig = Rig::over(disk, MemoryBus::new(256)).await;
    assert_eq!(rig.twins.devices().await.unwrap(), [boiler()]);
    assert_eq!(rig.twins.get(boiler()).await.unwrap(), before);
    // The wish at the node is newer than what the spec said before the restart.
    rig.twins.set_device(device(&boiler(), Some("60")), "heats").await.unwrap();
    assert_eq!(desired(&rig.twins.get(boiler()).await.unwrap(), "setpoint"), Some("65"));
    rig.twins.set_device(device(&boiler(), Some("70")), "heats").await.unwrap();
    let twin = rig.twins.get(boiler()).await.unwrap();
    assert_eq!(desired(&twin, "setpoint"), Some("70"));
    assert_eq!(reported(&twin, "temperature"), Some("20.5"));
    assert_eq!(rig.told("state/default/boiler").await["device"]["state"], "online");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_leaves_nothing_behind() {
    let mut rig = Rig::new().await;
    rig.twins.set_device(device(&boiler(), Some("60")), "").await.unwrap();
    rig.twins.report_state(boiler(), DeviceState::Online).await.unwrap();
    let mut watch = rig.twins.watch(DeviceSelector::All).await.unwrap();
    rig.twins.remove_device(boiler()).await.unwrap();
    assert_eq!(watch.next().await, Some(TwinEvent::Removed(boiler())));
    assert!(matches!(rig.twins.get(boiler()).await, Err(TwinError::UnknownDevice(_))));
    assert!(rig.store.list(outbox::selector()).await.unwrap().is_empty(), "nobody would answer its messages");
    assert_eq!(rig.store.get(twin_key()).await.unwrap(), None);
    rig.twins.remove_device(boiler()).await.unwrap();
    let removed = loop {
        let (_, body) = rig.next().await;
        if body.get("removed_devices").is_some_and(|list| !list.is_null()) {
            break body;
        }
    };
    assert_eq!(removed["removed_devices"][0]["id"], "default/boiler");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_is_told_what_it_missed() {
    let rig = Rig::new().await;
    rig.twins.set_device(device(&boiler(), None), "").await.unwrap();
    let mut watch = rig.twins.watch(DeviceSelector::One(boiler())).await.unwrap();
    for round in 0..100 {
        rig.twins.report(boiler(), patch("temperature", &round.to_string())).await.unwrap();
    }
    let Some(TwinEvent::Lagged(missed)) = watch.next().await else { panic!("100 events in a queue of 64") };
    assert_eq!(missed, 36);
    let Some(TwinEvent::Changed { twin, .. }) = watch.next().await else { panic!("the rest is there") };
    assert_eq!(reported(&twin, "temperature"), Some("36"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn watches_are_counted() {
    let rig = Rig::new().await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(rig.twins.watch(DeviceSelector::All).await.unwrap());
    }
    assert!(matches!(rig.twins.watch(DeviceSelector::All).await, Err(TwinError::Busy)));
    open.pop();
    open.push(rig.twins.watch(DeviceSelector::All).await.unwrap());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn writers_of_one_device_do_not_lose_each_others_changes() {
    let rig = Rig::new().await;
    rig.twins.set_device(device(&boiler(), None), "").await.unwrap();
    let writers = (0..20).map(|writer| {
        let twins = rig.twins.clone();
        tokio::spawn(async move { twins.report(boiler(), patch(&format!("p{writer}"), "1")).await.unwrap() })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(rig.twins.get(boiler()).await.unwrap().properties.len(), 20);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_device_are_answered_in_their_order() {
    let mut rig = Rig::new().await;
    let ids = ["default/one", "default/two"];
    for id in ids {
        rig.twins.set_device(device(&id.parse().unwrap(), None), "").await.unwrap();
        rig.next().await;
    }
    for round in 0..40 {
        for id in ids {
            let update =
                format!(r#"{{"event_id":"{round}","twin":{{"temperature":{{"actual":{{"value":"{round}"}}}}}}}}"#);
            rig.publish(&format!("$hw/events/device/{id}/twin/update"), update).await;
        }
    }
    let mut seen = [0, 0];
    while seen != [80, 80] {
        let (topic, body) = rig.next().await;
        let of = usize::from(topic.contains("/two/"));
        let kind = if seen[of] % 2 == 0 { "result" } else { "document" };
        assert!(topic.ends_with(kind), "{topic}");
        assert_eq!(body["event_id"], (seen[of] / 2).to_string());
        seen[of] += 1;
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_publishes_what_was_begun() {
    let mut rig = Rig::new().await;
    rig.twins.set_device(device(&boiler(), None), "").await.unwrap();
    rig.next().await;
    rig.twins.report(boiler(), patch("temperature", "20.5")).await.unwrap();
    let mut results = rig
        .bus
        .subscribe("$hw/events/device/+/+/twin/update/#".parse().unwrap(), kubeedge_core::bus::Overflow::DropOldest)
        .await
        .unwrap();
    let started = tokio::time::Instant::now();
    rig.stop().await;
    assert!(started.elapsed() < Duration::from_secs(2));
    for _ in 0..2 {
        assert!(tokio::time::timeout(Duration::from_secs(1), results.next()).await.is_ok());
    }
}
