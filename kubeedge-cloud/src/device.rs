//! DeviceController: devices and their models down; twins and states up into DeviceStatus.
//!
//! Down, each device goes to the node that it is bound to, with its model, on any change of either but for their versions;
//! a device whose model does not exist goes without, and holds back nobody. Up, what a node reports of a device that is
//! bound to it is written to the DeviceStatus, and confirmed only then. Of each device there is at most one write per
//! interval: what is reported meanwhile is merged, the newest of each property winning.
//!
//! Upstream: `cloud/pkg/devicecontroller` (v1.21 to v1.23).

mod board;
mod inspect;
mod membership;
mod report;
mod status;
mod uplink;

use std::{fmt, sync::Arc, time::Duration};

use kube::Client;
use kubeedge_core::{
    names::{NodeName, SharedClock},
    resource::{ObjectPath, ResourceType},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::{inspect::Inspector, membership::Membership, status::Statuses, uplink::DeviceUplinks};
use crate::{
    hub::{HubHandle, Uplinks, served_by},
    object::Kind,
    sync::{Facts, Followed, Truth},
};

/// Keeps the truth of devices; see the [module](self).
pub(crate) struct DeviceController {
    truth: Truth,
    membership: Arc<Membership>,
    statuses: Arc<Statuses>,
    inspector: Inspector,
    uplinks: DeviceUplinks,
}

impl DeviceController {
    /// Each DeviceStatus is written at most once per `interval`.
    pub(crate) fn new(client: Client, truth: Truth, hub: HubHandle, clock: SharedClock, interval: Duration) -> Self {
        let statuses = Arc::new(Statuses::new(client.clone(), truth.clone(), hub.clone(), clock.clone(), interval));
        let inspector = Inspector::new(client, truth.clone(), clock.clone());
        let membership = Arc::new(Membership::new(truth.clone(), hub, clock.clone()));
        let uplinks = DeviceUplinks::new(truth.clone(), statuses.clone(), membership.clone(), clock);
        Self { truth, membership, statuses, inspector, uplinks }
    }

    /// Serves reports of nodes.
    pub(crate) fn uplinks(&self) -> Uplinks {
        let uplinks = self.uplinks.clone();
        served_by(move |from| uplinks.clone().handle(from))
    }

    /// Tells a node which devices it has.
    pub(crate) fn tell_members(&self, node: &NodeName) {
        self.membership.tell_all(node);
    }

    /// Watches until `shutdown`.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        let watches = async {
            // In this order, so that what is needed is known before the contents pass by.
            tokio::join!(
                self.truth.follow(&Kind::DEVICE, None, device_facts, |followed| {
                    self.membership.follow(followed);
                    self.statuses.follow(followed);
                    self.inspector.follow(followed);
                }),
                async {
                    self.truth.listed(&[ResourceType::Device]).await;
                    let inspector = &self.inspector;
                    let changed = |followed: Followed<'_>| inspector.follow(followed);
                    self.truth.follow(&Kind::DEVICE_MODEL, None, |_| Facts::default(), changed).await;
                },
                self.statuses.run(),
                self.inspector.run(),
            )
        };
        let _stopped = shutdown.run_until_cancelled(Box::pin(watches)).await;
    }
}

impl fmt::Debug for DeviceController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceController").finish_non_exhaustive()
    }
}

/// Whoever has a device is an edge node, whatever its labels say.
fn device_facts(device: &Value) -> Facts {
    let spec = &device["spec"];
    let node = spec["nodeName"].as_str().and_then(|name| NodeName::new(name).ok());
    let namespace = device["metadata"]["namespace"].as_str();
    let model = namespace
        .zip(spec["deviceModelRef"]["name"].as_str())
        .and_then(|(namespace, model)| ObjectPath::namespaced(namespace, ResourceType::DeviceModel, model).ok());
    Facts { makes_edge: node.is_some(), node, references: model.into_iter().collect(), terminating: false }
}
