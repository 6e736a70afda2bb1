//! Asking a node whether it has what the ledger says.

use std::{collections::HashMap, time::Duration};

use kubeedge_core::{
    inventory::{Holding, InventoryAnswer, InventoryQuestion},
    names::{NodeName, Uid, UnixMillis},
};
use tokio::time::timeout;

use super::{controller::DELIVERED, deliveries::DeliveryLog, ledger::LedgerEntry};
use crate::{hub::HubHandle, object::Kind};

/// For a node to answer. One that does not is believed to have what the ledger says, as every Go edge is.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `node` has: what the ledger says, unless the node can tell and says something else. Then the ledger is set right.
pub(super) async fn take(
    hub: &HubHandle,
    log: &DeliveryLog,
    node: &NodeName,
    ledger: Vec<LedgerEntry>,
    now: UnixMillis,
) -> Vec<LedgerEntry> {
    if hub.extensions(node).is_none_or(|extensions| !extensions.inventory) {
        return ledger;
    }
    let digest = ledger.iter().filter(|entry| entry.version.is_some()).map(LedgerEntry::holding).collect::<Vec<_>>();
    let question = InventoryQuestion::new(DELIVERED, digest.iter().collect());
    let answer = match timeout(PATIENCE, hub.ask(node, question.message(now))).await {
        Ok(Ok(answer)) => InventoryAnswer::read(&answer).map_err(|err| err.to_string()),
        Ok(Err(err)) => Err(err.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    };
    match answer {
        Ok(InventoryAnswer::Same) => ledger,
        Ok(InventoryAnswer::Differs(holdings)) => {
            tracing::info!(%node, records = ledger.len(), objects = holdings.len(), "node has other objects than were recorded");
            set_right(log, node, ledger, holdings)
        }
        Err(why) => {
            tracing::debug!(%node, why, "node does not tell what it has");
            ledger
        }
    }
}

fn set_right(log: &DeliveryLog, node: &NodeName, ledger: Vec<LedgerEntry>, holdings: Vec<Holding>) -> Vec<LedgerEntry> {
    let mut recorded: HashMap<Uid, LedgerEntry> = ledger.into_iter().map(|entry| (entry.uid.clone(), entry)).collect();
    let mut there = Vec::new();
    for holding in holdings {
        let entry = match recorded.remove(&holding.uid) {
            Some(entry) if entry.holding() == holding => entry,
            _ => {
                let Some(entry) = LedgerEntry::held(&holding) else { continue };
                log.put(node, entry.clone(), true);
                entry
            }
        };
        there.push(entry);
    }
    for (_, lost) in recorded {
        log.put(node, lost, false);
    }
    there
}

impl LedgerEntry {
    fn holding(&self) -> Holding {
        Holding { path: self.path.clone(), uid: self.uid.clone(), version: self.version }
    }

    /// The entry of a node that says it has this; nothing is known of the content.
    fn held(holding: &Holding) -> Option<Self> {
        let kind = Kind::delivered(&holding.path.kind)?;
        Some(Self {
            path: holding.path.clone(),
            uid: holding.uid.clone(),
            api_version: kind.api_version(),
            kind: kind.kind.to_owned(),
            version: holding.version,
            digest: None,
        })
    }
}
