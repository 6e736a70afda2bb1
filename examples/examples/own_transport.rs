//! A transport of one's own: here a link in memory, with the cloud at its other end. `cargo run --example own_transport`
use async_trait::async_trait;
use futures_util::{SinkExt as _, StreamExt as _};
use kubeedge_core::{
    message::{Content, Message},
    meta::MetaHandle,
    names::{ResourceVersion, SystemClock, WallClock},
    resource::{ObjectPath, ResourceType},
    service::BoxError,
    testing::MemoryStore,
    transport::{
        CloudEndpoint, Link, LinkError, Transport, TransportHandle,
        memory::{MemoryLink, memory_link},
    },
    words::{Group, Operation, Source},
};
use kubeedge_edge::node::EdgeNode;
use serde_json::json;
use tokio::sync::mpsc;

/// Hands the far end of every link to whoever plays the cloud.
struct Pair(mpsc::Sender<MemoryLink>);

#[async_trait]
impl Transport for Pair {
    async fn dial(&self, _: CloudEndpoint) -> Result<Box<dyn Link>, LinkError> {
        let (near, far) = memory_link(16);
        self.0.send(far).await.map_err(|error| LinkError::Failed(error.into()))?;
        Ok(Box::new(near))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let (dials, mut dialed) = mpsc::channel(1);
    let node = EdgeNode::builder("gw-0042")
        .endpoint("memory")
        .transport(TransportHandle::of(Pair(dials)))
        .meta_store(MetaHandle::of(MemoryStore::new()))
        .spawn()
        .await?;
    let mut edge = dialed.recv().await.ok_or("the node does not dial")?;
    let path = ObjectPath::namespaced("default", ResourceType::ConfigMap, "greeting")?;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"text": "hello"},
        "metadata": {"name": "greeting", "namespace": "default", "uid": "u-1", "resourceVersion": "7"}});
    let update =
        Message::new(SystemClock.now(), Source::EdgeController, Group::Resource, Operation::Update, path.clone())
            .content(Content::json(&object)?)
            .version(ResourceVersion::new(7));
    edge.send(update.clone()).await?;
    while let Some(message) = edge.next().await {
        if message?.parent == Some(update.id.clone()) {
            println!("{path} is stored at the edge and acknowledged");
            break;
        }
    }
    Ok(node.shutdown(std::time::Duration::from_secs(1)).await?)
}
