//! A driver of one's own: the load of this machine as a device. `cargo run --example own_driver`
use async_trait::async_trait;
use kubeedge_core::{
    mapper::{Driver, DriverError, DriverHandle, Sample, Value, Visitor, driver_maker},
    meta::{Collection, MetaHandle, MetaKey, Record},
    names::{SystemClock, WallClock},
    resource::ResourceType,
    service::BoxError,
    testing::MemoryStore,
    transport::{TransportHandle, memory::MemoryTransport},
    twin::{DeviceSelector, TwinEvent},
};
use kubeedge_edge::node::EdgeNode;
use serde_json::json;

struct LoadAverage;

#[async_trait]
impl Driver for LoadAverage {
    async fn read(&self, _: Visitor) -> Result<Sample, DriverError> {
        let text =
            tokio::fs::read_to_string("/proc/loadavg").await.map_err(|error| DriverError::Offline(error.into()))?;
        let load = text.split(' ').next().and_then(|first| first.parse().ok());
        let load = load.ok_or_else(|| DriverError::Refused("no number in /proc/loadavg".into()))?;
        Ok(Sample { value: Value::Float(load), at: SystemClock.now() })
    }

    async fn write(&self, visitor: Visitor, _: Value) -> Result<(), DriverError> {
        Err(DriverError::Refused(format!("{} cannot be written", visitor.property)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let store = MetaHandle::of(MemoryStore::new());
    let (transport, _) = MemoryTransport::new(1); // nobody accepts: the cloud is away
    let node = EdgeNode::builder("gw-0042")
        .endpoint("nowhere:10000")
        .transport(TransportHandle::of(transport))
        .meta_store(store.clone())
        .driver("load", driver_maker(|_| async { Ok(DriverHandle::of(LoadAverage)) }))
        .spawn()
        .await?;
    let mut changes = node.twins().watch(DeviceSelector::All).await?;
    // A cloud would send these two; the node finds them in its store.
    let model = json!({"spec": {"protocol": "load", "properties": [{"name": "load", "type": "FLOAT"}]}});
    let device = json!({"metadata": {"name": "cpu", "namespace": "default"}, "spec": {"nodeName": "gw-0042",
        "deviceModelRef": {"name": "machine"}, "properties": [{"name": "load", "reportToCloud": true}]}});
    for (kind, name, object) in [(ResourceType::DeviceModel, "machine", model), (ResourceType::Device, "cpu", device)] {
        store.put(Record::new(MetaKey::new(Collection::from(&kind), "default", name), object.to_string())).await?;
    }
    while let Some(event) = changes.next().await {
        let TwinEvent::Changed { twin, .. } = event else { continue };
        let Some(load) = twin.properties.values().find_map(|property| property.reported.as_ref()) else { continue };
        println!("{} reports a load of {}", twin.device, load.value);
        break;
    }
    Ok(node.shutdown(std::time::Duration::from_secs(1)).await?)
}
