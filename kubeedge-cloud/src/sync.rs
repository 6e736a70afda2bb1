//! What each node should have, what it has, and how the one becomes the other.
//!
//! The controllers keep the truth: which object belongs to which node. [`SyncLedger`] remembers what a node has
//! acknowledged, in the API ([`CrdLedger`]), behind a log that repeats failed writes ([`DeliveryLog`]). A node that connects
//! gets what the two differ in, and from then on each change.
//!
//! Upstream: `cloud/pkg/synccontroller`, `cloud/pkg/cloudhub/session` (v1.21 to v1.23). Other than upstream, a record also
//! has a digest, so that a restart of the cloud or of an edge sends nothing that the edge has already.

mod controller;
mod crd_ledger;
mod deliveries;
mod inventory;
mod ledger;
mod owners;
mod placement;
mod sessions;
mod sqlite_ledger;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod truth;

pub(crate) use self::{
    controller::{DELIVERED, SyncController},
    placement::Facts,
    sessions::Sessions,
    truth::{Followed, Truth},
};
pub use self::{
    crd_ledger::CrdLedger,
    deliveries::DeliveryLog,
    ledger::{LedgerEntry, LedgerError, SyncLedger},
    owners::{Alone, Owners, Standing},
    sqlite_ledger::{SqliteLedger, SqliteLedgerError},
};
