//! A metadata store of one's own: one that counts what is written to flash. `cargo run --example own_store`
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use kubeedge_core::{
    meta::{MetaError, MetaEvent, MetaHandle, MetaKey, MetaStore, MetaWrite, Record, Revision, Selector},
    service::{BoxError, Subscription},
    testing::meta_suite,
    transport::{TransportHandle, memory::MemoryTransport},
};
use kubeedge_edge::{meta::SqliteStore, node::EdgeNode};

/// Any store, with the bytes that went into it.
struct Metered<S> {
    inner: S,
    written: Arc<AtomicUsize>,
}

#[async_trait]
impl<S: MetaStore> MetaStore for Metered<S> {
    async fn get(&self, key: MetaKey) -> Result<Option<Record>, MetaError> {
        self.inner.get(key).await
    }

    async fn list(&self, select: Selector) -> Result<Vec<Record>, MetaError> {
        self.inner.list(select).await
    }

    async fn commit(&self, writes: Vec<MetaWrite>) -> Result<Revision, MetaError> {
        let size = |write: &MetaWrite| if let MetaWrite::Put(record, _) = write { record.value.len() } else { 0 };
        let bytes: usize = writes.iter().map(size).sum();
        let revision = self.inner.commit(writes).await?;
        self.written.fetch_add(bytes, Ordering::Relaxed);
        Ok(revision)
    }

    async fn watch(&self, select: Selector, after: Revision) -> Result<Subscription<MetaEvent>, MetaError> {
        self.inner.watch(select, after).await
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let folder = tempfile::tempdir()?;
    let written = Arc::new(AtomicUsize::new(0));
    let open = |name| SqliteStore::open(folder.path().join(name));
    let store = MetaHandle::of(Metered { inner: open("suite.db")?, written: Arc::clone(&written) });
    meta_suite(store).await;
    println!("the store conforms; the suite wrote {} bytes", written.swap(0, Ordering::Relaxed));

    let store = MetaHandle::of(Metered { inner: open("edge.db")?, written });
    let (transport, _) = MemoryTransport::new(1); // nobody accepts: the cloud is away
    let node = EdgeNode::builder("gw-0042").endpoint("nowhere:10000").transport(TransportHandle::of(transport));
    let node = node.meta_store(store).spawn().await?;
    println!("node {} runs on it", node.name());
    Ok(node.shutdown(std::time::Duration::from_secs(1)).await?)
}
