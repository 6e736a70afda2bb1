//! A cloud for tests: the other end of links in memory.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use kubeedge_core::{
    message::{Content, Message},
    names::{SharedClock, UnixMillis},
    resource::{ObjectPath, ResourceType},
    service::BoxError,
    testing::ManualClock,
    transport::{
        CloudEndpoint, TransportHandle,
        memory::{MemoryAcceptor, MemoryLink, MemoryTransport},
    },
    uplink::{Inbound, UplinkHandle},
    words::{Group, Operation, Source},
};
use kubeedge_edge::hub::{HubConfig, HubDriver};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) fn clock() -> SharedClock {
    Arc::new(ManualClock::new(UnixMillis(1_700_000_000_000)))
}

pub(crate) fn config() -> HubConfig {
    HubConfig::new(CloudEndpoint::new("cloud:10000", "edge-1".parse().unwrap())).rate(None)
}

/// A hub that runs against a cloud of the test.
pub(crate) struct Rig {
    pub(crate) uplink: UplinkHandle,
    pub(crate) acceptor: MemoryAcceptor,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<()>,
}

impl Rig {
    pub(crate) fn new(config: HubConfig, capacity: usize, inbound: Inbound) -> Self {
        let (transport, acceptor) = MemoryTransport::new(capacity);
        let (uplink, driver) = HubDriver::new(config, TransportHandle::of(transport), inbound, clock());
        let stop = CancellationToken::new();
        let running = tokio::spawn(driver.run(stop.clone()));
        Self { uplink, acceptor, stop, running }
    }

    pub(crate) async fn accept(&self) -> Cloud {
        let (_, link) = within(self.acceptor.accept()).await.unwrap();
        Cloud(link)
    }

    pub(crate) async fn connected(&self) {
        let mut state = self.uplink.state();
        within(state.wait_for(|state| state.is_connected())).await.unwrap();
    }
}

/// No test waits longer, by the paused clock or by a real one.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(600), future).await.expect("it happens in time")
}

/// The cloud's end of a link.
pub(crate) struct Cloud(pub(crate) MemoryLink);

impl Cloud {
    /// The next message that is not a keepalive; `None` when the edge is gone.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match within(self.0.next()).await? {
                Ok(message) if message.operation == Operation::Keepalive => {}
                Ok(message) => return Some(message),
                Err(_) => return None,
            }
        }
    }

    pub(crate) async fn expect(&mut self) -> Message {
        self.next().await.expect("the edge sends something")
    }

    pub(crate) async fn send(&mut self, message: Message) {
        within(self.0.send(message)).await.unwrap();
    }

    /// Answers a request with `content`.
    pub(crate) async fn reply(&mut self, request: &Message, content: Content) {
        let reply = Message::new(
            UnixMillis(2),
            Source::EdgeController,
            Group::Resource,
            Operation::Response,
            request.resource.clone(),
        );
        self.send(reply.answering(&request.id).content(content)).await;
    }
}

pub(crate) fn config_map(name: &str) -> ObjectPath {
    ObjectPath::namespaced("default", ResourceType::ConfigMap, name).unwrap()
}

/// A message of the cloud about a ConfigMap.
pub(crate) fn downlink(name: &str, operation: Operation) -> Message {
    Message::new(UnixMillis(1), Source::EdgeController, Group::Resource, operation, config_map(name))
}

/// A request of the edge.
pub(crate) fn query(name: &str) -> Message {
    Message::new(UnixMillis(1), Source::Edged, Group::Meta, Operation::Query, config_map(name))
}

/// An inbound service that acknowledges everything at once.
pub(crate) fn acknowledging() -> Inbound {
    Inbound::new(tower::service_fn(|message: Message| async move {
        Ok::<_, BoxError>(Some(message.acknowledgement(UnixMillis(3))))
    }))
}
