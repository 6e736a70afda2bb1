//! EdgeController: pods, configuration and nodes down; status, leases and queries up.
//!
//! Down, it watches the API and keeps the truth of which node needs what: pods that are bound to it, the ConfigMaps and
//! Secrets that they refer to, and the node itself. A node counts as edge node by the label
//! `node-role.kubernetes.io/edge` with an empty value, or by a device that is bound to it. Up, it carries out the
//! requests of nodes, each limited to what is the node's own.
//!
//! Upstream: `cloud/pkg/edgecontroller` (v1.21 to v1.23).

mod authorize;
mod csr;
mod legacy;
mod nodes;
mod orphans;
mod pods;
mod queries;
mod references;
mod restrict;
mod uplink;

use std::{fmt, sync::Arc, time::Duration};

use kube::Client;
use kubeedge_core::{
    names::{NodeName, SharedClock},
    resource::ResourceType,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::{orphans::Orphans, uplink::EdgeUplinks};
use crate::{
    hub::{Authorization, HubHandle, Uplinks, served_by},
    object::Kind,
    sync::{DeliveryLog, Facts, Owners, Truth},
};

/// Selects edge nodes.
const EDGE: &str = "node-role.kubernetes.io/edge=";

/// Keeps the truth of pods, configuration and nodes; see the [module](self).
pub(crate) struct EdgeController {
    truth: Truth,
    orphans: Arc<Orphans>,
    uplinks: EdgeUplinks,
}

/// Who keeps what is to be cleared away after a node that is gone, and how often that is looked for.
pub(crate) struct Keepers {
    pub(crate) log: DeliveryLog,
    pub(crate) owners: Arc<dyn Owners>,
    pub(crate) sweep: Duration,
}

impl EdgeController {
    /// `advertise` is what nodes get as annotation `cloudcore`; `authorization` tells in whose name their requests are
    /// carried out.
    pub(crate) fn new(
        client: Client,
        truth: Truth,
        hub: HubHandle,
        keepers: Keepers,
        advertise: Option<String>,
        authorization: Authorization,
        clock: SharedClock,
    ) -> Self {
        let uplinks = EdgeUplinks::new(client.clone(), truth.clone(), hub.clone(), advertise, authorization, clock);
        let orphans = Arc::new(Orphans::new(client, truth.clone(), hub, keepers));
        Self { truth, orphans, uplinks }
    }

    /// Serves requests of nodes.
    pub(crate) fn uplinks(&self) -> Uplinks {
        let uplinks = self.uplinks.clone();
        served_by(move |from| uplinks.clone().handle(from))
    }

    /// Notes at `node` that its session is here.
    pub(crate) async fn annotate(&self, node: &NodeName) {
        self.uplinks.annotate(node).await;
    }

    /// Watches until `shutdown`.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        let watches = async {
            // In this order, so that what is needed is known before the contents pass by.
            tokio::join!(
                self.truth.follow(&Kind::NODE, Some(EDGE), node_facts, |followed| self.orphans.follow(followed)),
                async {
                    self.truth.listed(&[ResourceType::Node]).await;
                    self.truth.follow(&Kind::POD, None, references::pod_facts, |_| {}).await;
                },
                async {
                    self.truth.listed(&[ResourceType::Pod]).await;
                    self.truth.follow(&Kind::CONFIG_MAP, None, |_| Facts::default(), |_| {}).await;
                },
                async {
                    self.truth.listed(&[ResourceType::Pod]).await;
                    self.truth.follow(&Kind::SECRET, None, |_| Facts::default(), |_| {}).await;
                },
                self.orphans.run(),
            )
        };
        let _stopped = shutdown.run_until_cancelled(Box::pin(watches)).await;
    }
}

impl fmt::Debug for EdgeController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeController").finish_non_exhaustive()
    }
}

fn node_facts(node: &Value) -> Facts {
    let name = node["metadata"]["name"].as_str().and_then(|name| NodeName::new(name).ok());
    Facts { node: name, makes_edge: true, ..Facts::default() }
}
