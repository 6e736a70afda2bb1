//! The suites hold on the implementations in memory.

use kubeedge_core::{
    bus::BusHandle,
    meta::MetaHandle,
    testing::{MemoryBus, MemoryStore, bus_suite, memory_link, meta_suite, transport_suite},
};

#[tokio::test]
async fn memory_store_conforms() {
    meta_suite(MetaHandle::of(MemoryStore::new())).await;
}

#[tokio::test]
async fn memory_bus_conforms() {
    bus_suite(BusHandle::of(MemoryBus::new(16))).await;
}

#[tokio::test]
async fn memory_link_conforms() {
    let (ours, theirs) = memory_link(2);
    transport_suite(Box::new(ours), Box::new(theirs)).await;
}
