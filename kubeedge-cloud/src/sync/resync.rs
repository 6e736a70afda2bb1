//! Bringing a node that connects to the truth.

use std::{collections::BTreeMap, time::Duration};

use kubeedge_core::{
    names::{NodeName, SharedClock},
    resource::ResourceType,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{deliveries::DeliveryLog, inventory, truth::Truth};
use crate::{
    hub::{HubHandle, SessionNumber},
    object::Pause,
};

/// The kinds that decide what a node should have.
pub(crate) const DELIVERED: [ResourceType; 6] = [
    ResourceType::Node,
    ResourceType::Pod,
    ResourceType::ConfigMap,
    ResourceType::Secret,
    ResourceType::Device,
    ResourceType::DeviceModel,
];

/// Compares each node that connects with the truth, until `shutdown`. When it has been compared, `greet` is run for it.
///
/// Waits until all of `kinds` have been listed and the ledger is read: a cloud that has just started would take for deleted
/// what it does not know yet.
///
/// Upstream: `cloud/pkg/synccontroller`, which compares everything every 5 s.
pub(crate) async fn run<F>(
    truth: Truth,
    log: DeliveryLog,
    hub: HubHandle,
    clock: SharedClock,
    kinds: Vec<ResourceType>,
    greet: impl Fn(NodeName) -> F + Clone + Send + 'static,
    shutdown: CancellationToken,
) where
    F: Future<Output = ()> + Send,
{
    let mut changes = hub.changes();
    let mut known = BTreeMap::<NodeName, SessionNumber>::new();
    let mut jobs = JoinSet::new();
    // What connects meanwhile is seen below. Nodes that come and go while the API is away must not pile up here.
    if shutdown.run_until_cancelled(truth.listed(&kinds)).await.is_none() {
        return;
    }
    loop {
        changes.mark_unchanged();
        let connected = hub.connected();
        for (node, number) in &connected {
            if known.get(node) != Some(number) {
                let (truth, log, hub) = (truth.clone(), log.clone(), hub.clone());
                let (greet, clock) = (greet.clone(), clock.clone());
                let (node, number) = (node.clone(), *number);
                jobs.spawn(async move {
                    if compare(&truth, &log, &hub, &clock, &node, number).await {
                        greet(node).await;
                    }
                });
            }
        }
        known = connected;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(_) = jobs.join_next() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn compare(
    truth: &Truth,
    log: &DeliveryLog,
    hub: &HubHandle,
    clock: &SharedClock,
    node: &NodeName,
    number: SessionNumber,
) -> bool {
    let mut changes = hub.changes();
    let gone = async {
        // The hub outlives its sessions.
        let _ended = changes.wait_for(|_| hub.session(node) != Some(number)).await;
    };
    tokio::select! {
        () = gone => false,
        done = compare_session(truth, log, hub, clock, node, number) => done,
    }
}

async fn compare_session(
    truth: &Truth,
    log: &DeliveryLog,
    hub: &HubHandle,
    clock: &SharedClock,
    node: &NodeName,
    number: SessionNumber,
) -> bool {
    for pause in Pause::default() {
        match log.list(node).await {
            Ok(ledger) => {
                let ledger = inventory::take(hub, log, node, ledger, clock.now()).await;
                let count = truth.resync(node, &ledger);
                tracing::debug!(%node, session = %number, records = ledger.len(), changes = count, "node compared");
                return true;
            }
            Err(err) => {
                tracing::warn!(%node, err = &err as &dyn std::error::Error, "records of a node not read");
                tokio::time::sleep(pause.max(Duration::from_millis(100))).await;
            }
        }
    }
    false
}
