//! From a Device object to a driver and back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    bus::{BusEvent, BusHandle, Overflow},
    mapper::{Driver, DriverError, DriverHandle, Sample, Value, Visitor, driver_maker},
    meta::MetaHandle,
    names::UnixMillis,
    testing::{MemoryBus, MemoryStore},
    topic::TopicFilter,
};

use crate::cloud::{Cloud, device, model, node, within};

/// A device of one register.
#[derive(Clone, Default)]
struct Register(Arc<Mutex<i64>>);

#[async_trait]
impl Driver for Register {
    async fn read(&self, _: Visitor) -> Result<Sample, DriverError> {
        Ok(Sample { value: Value::Int(*self.0.lock().unwrap()), at: UnixMillis(1) })
    }

    async fn write(&self, _: Visitor, value: Value) -> Result<(), DriverError> {
        let Value::Int(number) = value else { return Err(DriverError::Refused("not a number".into())) };
        *self.0.lock().unwrap() = number;
        Ok(())
    }
}

#[tokio::test]
async fn a_desired_value_reaches_the_device_and_its_value_the_cloud_and_the_bus() {
    let register = Register::default();
    let maker = {
        let register = register.clone();
        driver_maker(move |_| {
            let opened = DriverHandle::of(register.clone());
            async move { Ok(opened) }
        })
    };
    let bus = BusHandle::of(MemoryBus::new(256));
    let filter = TopicFilter::new("$hw/events/device/default/boiler-1/twin/update/document").unwrap();
    let mut documents = bus.subscribe(filter, Overflow::DropOldest).await.unwrap();
    let (builder, acceptor) = node();
    let builder = builder.meta_store(MetaHandle::of(MemoryStore::new())).event_bus(bus).driver("memory", maker);
    let node = builder.spawn().await.unwrap();
    let mut cloud = Cloud::accept(&acceptor).await;
    cloud.apply(model(1)).await;
    cloud.apply(device(2, "edge-1", "42")).await;
    cloud.twin_shows("default/boiler-1", "setpoint", "actual", "42").await;
    assert_eq!(*register.0.lock().unwrap(), 42);
    assert!(matches!(within(documents.next()).await, Some(BusEvent::Message(_))), "applications hear of it");

    // Without the cloud the device goes on, and what it does is told later.
    drop(cloud);
    *register.0.lock().unwrap() = 17;
    let mut cloud = Cloud::accept(&acceptor).await;
    cloud.twin_shows("default/boiler-1", "setpoint", "actual", "17").await;
    node.shutdown(Duration::from_secs(5)).await.unwrap();
}
