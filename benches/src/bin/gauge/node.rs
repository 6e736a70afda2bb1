//! A node with devices.

use std::sync::Arc;

use kubeedge_core::{
    bus::BusHandle,
    meta::{Collection, MetaHandle, MetaKey, MetaWrite, Precondition, Record},
    names::SystemClock,
    resource::ResourceType,
    service::BoxError,
    transport::{TransportHandle, memory::MemoryTransport},
};
use kubeedge_edge::{
    bus::{BrokerConfig, EmbeddedBroker},
    meta::SqliteStore,
    node::{EdgeNode, EdgeNodeHandle},
};
use kubeedge_mapper::modbus::Modbus;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Name of the node.
pub(crate) const NODE: &str = "gauge";

/// A running node; stopped when dropped.
pub(crate) struct Node {
    pub(crate) edge: EdgeNodeHandle,
    /// Port of its broker.
    pub(crate) mqtt: u16,
    _broker: DropGuard,
    _folder: TempDir,
}

impl Node {
    /// With these specs of models and devices, by their names.
    pub(crate) async fn start(models: &[(String, Value)], devices: &[(String, Value)]) -> Result<Self, BoxError> {
        let folder = tempfile::tempdir()?;
        let store = MetaHandle::of(SqliteStore::open(folder.path().join("edge.db"))?);
        for (kind, objects) in [(ResourceType::DeviceModel, models), (ResourceType::Device, devices)] {
            let write = |(name, spec): &(String, Value)| {
                let object = serde_json::json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
                let key = MetaKey::new(Collection::from(&kind), "default", name.as_str());
                MetaWrite::Put(Record::new(key, object.to_string()), Precondition::Always)
            };
            for part in objects.chunks(1000) {
                store.commit(part.iter().map(write).collect()).await?;
            }
        }
        let mut config = BrokerConfig::new("127.0.0.1:0".parse()?);
        config.session_queue = 10_000;
        let broker = EmbeddedBroker::bind(config).await?;
        let (bus, mqtt, stop) = (BusHandle::of(broker.bus()), broker.local_addr().port(), CancellationToken::new());
        tokio::spawn(broker.run(stop.clone()));
        // Nobody is at the other end.
        let (transport, _) = MemoryTransport::new(1);
        let node = EdgeNode::builder(NODE)
            .endpoint("nowhere:10000")
            .transport(TransportHandle::of(transport))
            .meta_store(store)
            .event_bus(bus)
            .driver("modbus", Modbus::maker(Arc::new(SystemClock)))
            .spawn()
            .await?;
        Ok(Self { edge: node, mqtt, _broker: stop.drop_guard(), _folder: folder })
    }
}
