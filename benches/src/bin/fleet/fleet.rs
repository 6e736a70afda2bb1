//! All edges together.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use kubeedge_core::{
    names::NodeName,
    service::BoxError,
    transport::{CloudEndpoint, TransportHandle},
};
use kubeedge_edge::{
    hub::{DialSettings, Quic, QuicSocket, WebSocket},
    pki::Identity,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use crate::{
    edge::{Common, Edge, Manner, Wanted},
    gate::Gate,
    options::{FleetOptions, Link},
    tally::{Counts, Tally},
    uplink::UplinkPlan,
};

/// Sockets of all edges together that connect over QUIC.
const SOCKETS: usize = 8;
/// How often it is looked at whether something has come to an end.
const LOOK: Duration = Duration::from_millis(20);

/// Edges that run. They end when this is dropped.
pub(crate) struct Fleet {
    common: Arc<Common>,
    wanted: watch::Sender<Wanted>,
    edges: TaskTracker,
    size: usize,
}

/// The names of `options.nodes` edges from number `first` on.
pub(crate) fn names(options: &FleetOptions, first: usize, nodes: usize) -> Result<Vec<NodeName>, BoxError> {
    let name = |number| NodeName::new(format!("{}{number:05}", options.name_prefix)).map_err(Into::into);
    (first..first + nodes).map(name).collect()
}

impl Fleet {
    /// Spawns an edge for each identity; nobody dials before [`connect`](Self::connect).
    pub(crate) fn spawn(
        options: &FleetOptions,
        cloud: &str,
        identities: Vec<Identity>,
        manner: Manner,
        uplinks: UplinkPlan,
    ) -> Result<Self, BoxError> {
        let common = Arc::new(Common {
            tally: Tally::default(),
            gate: Gate::new(options.rate, options.dials),
            keepalive: options.keepalive,
            uplinks: UplinkPlan { register: options.register, lease: options.lease, ..uplinks },
            manner,
        });
        let (wanted, edges, size) = (watch::Sender::new(Wanted::Offline), TaskTracker::new(), identities.len());
        let sockets = sockets(options)?;
        for (number, identity) in identities.into_iter().enumerate() {
            let endpoint = CloudEndpoint::new(cloud, identity.node().clone());
            let transport = transport(options, &sockets, identity, number);
            edges.spawn(Edge::new(endpoint, transport, common.clone(), wanted.subscribe()).run());
        }
        edges.close();
        Ok(Self { common, wanted, edges, size })
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.common.tally
    }

    /// All edges dial, and dial again when they lose their link.
    pub(crate) fn connect(&self) {
        self.wanted.send_replace(Wanted::Online);
    }

    /// All edges close their links, and keep what they have. Waits until they have.
    pub(crate) async fn disconnect(&self, patience: Duration) {
        self.wanted.send_replace(Wanted::Offline);
        self.until(patience, |counts| counts.connected == 0).await;
    }

    /// Waits until all are connected. Tells how many are.
    pub(crate) async fn connected(&self, patience: Duration) -> u64 {
        let all = self.size as u64;
        self.until(patience, |counts| counts.connected >= all).await;
        self.tally().counts().connected
    }

    /// Waits until nothing has come for as long as `quiet`. Gives the time of what came last.
    pub(crate) async fn quiet(&self, quiet: Duration, patience: Duration) -> Instant {
        let end = Instant::now() + patience;
        while self.tally().last_activity().elapsed() < quiet && Instant::now() < end {
            sleep(LOOK).await;
        }
        self.tally().last_activity()
    }

    /// Waits until `done`, but no longer than `patience`. Tells whether it was.
    pub(crate) async fn until(&self, patience: Duration, done: impl Fn(&Counts) -> bool) -> bool {
        let end = Instant::now() + patience;
        while !done(&self.tally().counts()) {
            if Instant::now() >= end {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// Ends all edges.
    pub(crate) async fn end(self) {
        self.wanted.send_replace(Wanted::Gone);
        self.edges.wait().await;
    }
}

/// The sockets that edges with QUIC share.
fn sockets(options: &FleetOptions) -> Result<Vec<QuicSocket>, BoxError> {
    let count = if options.transport == Link::Quic { SOCKETS } else { 0 };
    let bind = |_| QuicSocket::bind((Ipv4Addr::LOCALHOST, 0).into());
    Ok((0..count).map(bind).collect::<Result<_, _>>()?)
}

fn transport(options: &FleetOptions, sockets: &[QuicSocket], identity: Identity, number: usize) -> TransportHandle {
    // A storm may keep an edge waiting for longer than a single one would be.
    let settings = DialSettings::new().timeout(Duration::from_secs(60));
    match options.transport {
        Link::Quic => {
            let settings = settings.dead_after(options.keepalive * 3);
            let socket = sockets[number % sockets.len()].clone();
            TransportHandle::of(Quic::new(identity).settings(settings).socket(socket))
        }
        Link::WebSocket => {
            let websocket = WebSocket::new(identity).settings(settings);
            TransportHandle::of(match options.source.as_slice() {
                [] => websocket,
                sources => websocket.source(sources[number % sources.len()]),
            })
        }
    }
}
