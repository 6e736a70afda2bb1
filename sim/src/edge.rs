//! The software of an edge: the real hub, dispatcher and outbox sender.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use kubeedge_core::{
    meta::MetaHandle,
    names::NodeName,
    session::{Keepalive, SessionConfig},
    transport::{CloudEndpoint, Extensions, TransportHandle},
};
use kubeedge_edge::{
    dispatch::Dispatcher,
    hub::{HubConfig, HubDriver, OutboxConfig, OutboxSender},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::HostClock,
    disk::Disk,
    history::History,
    link::{Shears, SimTransport},
    mutation::Mutation,
    reporter,
};

/// What of an edge outlives its crashes.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) node: NodeName,
    pub(crate) disk: Disk,
    pub(crate) clock: Arc<HostClock>,
    pub(crate) extensions: Extensions,
    pub(crate) history: History,
    pub(crate) shears: Arc<Shears>,
    pub(crate) mutation: Mutation,
    /// Whether pods still have something new to report.
    pub(crate) reporting: Arc<AtomicBool>,
}

/// Runs an edge until it crashes.
pub(crate) async fn run(site: Site) -> turmoil::Result {
    let store = MetaHandle::of(site.disk.clone());
    let dispatcher = Dispatcher::new(store.clone(), site.clock.clone()).into_inbound();
    let inbound = site.mutation.inbound(dispatcher, store.clone(), site.clock.clone());
    let transport = TransportHandle::of(SimTransport {
        node: site.node.clone(),
        extensions: site.extensions,
        history: site.history.clone(),
        shears: site.shears.clone(),
        mutation: site.mutation,
    });
    let session = SessionConfig::edge()
        .keepalive(Keepalive::Send { every: Duration::from_secs(1) })
        .reply(Duration::from_secs(5));
    let config = HubConfig::new(CloudEndpoint::new("cloud", site.node.clone()))
        .session(session)
        .reconnect(Duration::from_millis(200), Duration::from_secs(2))
        .write_timeout(Duration::from_secs(3));
    let (uplink, driver) = HubDriver::new(config, transport, inbound, site.clock.clone());
    let outbox = OutboxConfig::default().retry(Duration::from_millis(500), Duration::from_secs(4));
    let sender = OutboxSender::new(outbox, store.clone(), uplink);
    let never = CancellationToken::new();
    tokio::join!(driver.run(never.clone()), sender.run(never), reporter::run(site, store));
    Err("an edge has ended by itself".into())
}
