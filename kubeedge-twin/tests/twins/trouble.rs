//! Stores that fail, brokers that are dead, callers that go away.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    bus::{BusError, BusEvent, Event, EventBus, Overflow},
    meta::{MetaError, MetaEvent, MetaKey, MetaStore, MetaWrite, Record, Revision, Selector},
    outbox,
    service::Subscription,
    testing::{MemoryBus, MemoryStore},
    topic::TopicFilter,
    twin::{TwinError, TwinEvent, Twins as _},
};
use tokio_util::sync::CancellationToken;

use super::rig::{Rig, boiler, device, patch};

#[tokio::test(start_paused = true)]
async fn a_failed_commit_changes_nothing_and_tells_the_caller() {
    let disk = MemoryStore::new();
    let mut rig = Rig::over(disk.clone(), MemoryBus::new(256)).await;
    disk.fail_commits(true);
    assert!(matches!(rig.twins.set_device(device(&boiler(), None), "").await, Err(TwinError::Failed(_))));
    assert!(rig.twins.devices().await.unwrap().is_empty(), "a device that could not be stored is not there");
    disk.fail_commits(false);
    rig.twins.set_device(device(&boiler(), None), "").await.unwrap();
    rig.twins.report(boiler(), patch("temperature", "20")).await.unwrap();
    for _ in 0..3 {
        rig.next().await;
    }
    let before = (rig.twins.get(boiler()).await.unwrap(), rig.outbox("twin/default/boiler").await);

    disk.fail_commits(true);
    let failed = rig.twins.report(boiler(), patch("temperature", "21")).await;
    assert!(matches!(failed, Err(TwinError::Failed(_))), "{failed:?}");
    assert!(rig.twins.remove_device(boiler()).await.is_err());
    assert_eq!((rig.twins.get(boiler()).await.unwrap(), rig.outbox("twin/default/boiler").await), before);
    let update = r#"{"event_id":"u","twin":{"temperature":{"actual":{"value":"21"}}}}"#;
    rig.publish("$hw/events/device/default/boiler/twin/update", update).await;
    let (topic, refused) = rig.next().await;
    assert_eq!(topic, "$hw/events/device/default/boiler/twin/update/result");
    assert_eq!((&refused["code"], &refused["event_id"]), (&500.into(), &"u".into()));
    rig.nothing_more().await;

    disk.fail_commits(false);
    rig.twins.report(boiler(), patch("temperature", "21")).await.unwrap();
    let told = rig.told("twin/default/boiler").await;
    assert_eq!(told["twin"]["temperature"]["actual_version"]["edge"], 2, "what failed was not counted");
    rig.stop().await;
}

/// A store that commits and then says so never, or too late, as long as it is told to.
#[derive(Clone)]
struct Unsure {
    store: MemoryStore,
    silent: Arc<AtomicBool>,
    late: Arc<AtomicBool>,
}

#[async_trait]
impl MetaStore for Unsure {
    async fn get(&self, key: MetaKey) -> Result<Option<Record>, MetaError> {
        self.store.get(key).await
    }

    async fn list(&self, select: Selector) -> Result<Vec<Record>, MetaError> {
        self.store.list(select).await
    }

    async fn commit(&self, writes: Vec<MetaWrite>) -> Result<Revision, MetaError> {
        let revision = self.store.commit(writes).await?;
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.late.load(Ordering::SeqCst) {
            return Err(MetaError::TimedOut);
        }
        Ok(revision)
    }

    async fn watch(&self, select: Selector, after: Revision) -> Result<Subscription<MetaEvent>, MetaError> {
        self.store.watch(select, after).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_a_whole_twin() {
    let silent = Arc::new(AtomicBool::new(false));
    let disk = Unsure { store: MemoryStore::new(), silent: Arc::clone(&silent), late: Arc::default() };
    let rig = Rig::over(disk, MemoryBus::new(256)).await;
    rig.twins.set_device(device(&boiler(), None), "").await.unwrap();
    let mut watch = rig.twins.watch(kubeedge_core::twin::DeviceSelector::All).await.unwrap();
    silent.store(true, Ordering::SeqCst);
    let report = rig.twins.report(boiler(), patch("temperature", "20"));
    assert!(tokio::time::timeout(Duration::from_secs(1), report).await.is_err());
    silent.store(false, Ordering::SeqCst);

    // It was stored, so it happened, and the next change builds on it.
    let twin = rig.twins.get(boiler()).await.unwrap();
    assert_eq!(twin.properties[&"temperature".parse().unwrap()].reported.as_ref().unwrap().value, "20");
    assert!(matches!(watch.next().await, Some(TwinEvent::Changed { changed, .. }) if changed.len() == 1));
    rig.twins.report(boiler(), patch("temperature", "21")).await.unwrap();
    let told = rig.told("twin/default/boiler").await;
    assert_eq!(told["twin"]["temperature"]["actual_version"]["edge"], 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_late_counts() {
    let late = Arc::new(AtomicBool::new(false));
    let disk = Unsure { store: MemoryStore::new(), silent: Arc::default(), late: Arc::clone(&late) };
    let rig = Rig::over(disk, MemoryBus::new(256)).await;
    rig.twins.set_device(device(&boiler(), None), "").await.unwrap();
    late.store(true, Ordering::SeqCst);
    let reported = rig.twins.report(boiler(), patch("temperature", "20")).await;
    assert!(matches!(reported, Err(TwinError::TimedOut)), "{reported:?}");
    late.store(false, Ordering::SeqCst);
    rig.twins.report(boiler(), patch("temperature", "21")).await.unwrap();
    let told = rig.told("twin/default/boiler").await;
    assert_eq!(told["twin"]["temperature"]["actual_version"]["edge"], 2);

    late.store(true, Ordering::SeqCst);
    assert!(rig.twins.remove_device(boiler()).await.is_err());
    late.store(false, Ordering::SeqCst);
    assert!(rig.twins.devices().await.unwrap().is_empty(), "it was removed");
    rig.twins.set_device(device(&boiler(), None), "").await.unwrap();
    assert!(rig.twins.get(boiler()).await.unwrap().properties.is_empty(), "and starts anew");
    rig.stop().await;
}

/// A bus on which publishing about some devices never ends.
#[derive(Clone)]
struct Stuck {
    bus: MemoryBus,
    stuck: &'static str,
}

#[async_trait]
impl EventBus for Stuck {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        if event.topic.as_str().contains(self.stuck) && event.topic.as_str().contains("/twin/update/") {
            std::future::pending::<()>().await;
        }
        self.bus.publish(event).await
    }

    async fn subscribe(&self, filter: TopicFilter, overflow: Overflow) -> Result<Subscription<BusEvent>, BusError> {
        self.bus.subscribe(filter, overflow).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_broker_stalls_no_report() {
    let rig = Rig::over(MemoryStore::new(), Stuck { bus: MemoryBus::new(256), stuck: "/device/" }).await;
    rig.twins.set_device(device(&boiler(), None), "").await.unwrap();
    let started = tokio::time::Instant::now();
    for round in 0..2000 {
        rig.twins.report(boiler(), patch("temperature", &round.to_string())).await.unwrap();
    }
    assert_eq!(started.elapsed(), Duration::ZERO, "nobody has waited");
    assert_eq!(rig.store.list(outbox::selector()).await.unwrap().len(), 1, "what the cloud must know is there");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_stuck_on_the_bus_holds_up_no_other() {
    let mut rig = Rig::over(MemoryStore::new(), Stuck { bus: MemoryBus::new(256), stuck: "/stuck/" }).await;
    let stuck: kubeedge_core::names::DeviceId = "default/stuck".parse().unwrap();
    for id in [&stuck, &boiler()] {
        rig.twins.set_device(device(id, None), "").await.unwrap();
        rig.next().await;
    }
    for round in 0..50 {
        rig.twins.report(stuck.clone(), patch("temperature", &round.to_string())).await.unwrap();
    }
    let started = tokio::time::Instant::now();
    rig.twins.report(boiler(), patch("temperature", "20")).await.unwrap();
    assert_eq!(rig.next().await.0, "$hw/events/device/default/boiler/twin/update/result");
    assert_eq!(started.elapsed(), Duration::ZERO);
    rig.stop().await;
}

/// A broker that comes up late, and goes away and comes back once.
#[derive(Clone)]
struct Late {
    bus: MemoryBus,
    refusals: Arc<AtomicUsize>,
    ends: Arc<AtomicUsize>,
}

#[async_trait]
impl EventBus for Late {
    async fn publish(&self, event: Event) -> Result<(), BusError> {
        self.bus.publish(event).await
    }

    async fn subscribe(&self, filter: TopicFilter, overflow: Overflow) -> Result<Subscription<BusEvent>, BusError> {
        let less = |left: usize| left.checked_sub(1);
        // Only the driver asks for one level of twin topics.
        if filter.as_str().ends_with("/twin/+") {
            if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
                return Err(BusError::Disconnected);
            }
            if self.ends.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
                return Ok(Subscription::new(futures_util::stream::empty(), CancellationToken::new()));
            }
        }
        self.bus.subscribe(filter, overflow).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_broker_may_come_late_and_come_back() {
    let (refusals, ends) = (Arc::new(AtomicUsize::new(8)), Arc::new(AtomicUsize::new(2)));
    let bus = Late { bus: MemoryBus::new(256), refusals: Arc::clone(&refusals), ends: Arc::clone(&ends) };
    let mut rig = Rig::over(MemoryStore::new(), bus).await;
    rig.publish("$hw/events/device/default/boiler/twin/get", r#"{"event_id":"g"}"#).await;
    assert_eq!(rig.next().await.1["code"], 404);
    assert_eq!((refusals.load(Ordering::SeqCst), ends.load(Ordering::SeqCst)), (0, 0));
    rig.stop().await;
}
