//! What each node should have, what it has, and how the one becomes the other.
//!
//! The controllers keep the truth: which object belongs to which node. [`SyncLedger`] remembers what a node has
//! acknowledged, in the API ([`CrdLedger`]), behind a log that repeats failed writes ([`DeliveryLog`]). A node that connects
//! gets what the two differ in, and from then on each change.
//!
//! Upstream: `cloud/pkg/synccontroller`, `cloud/pkg/cloudhub/session` (v1.21 to v1.23). Other than upstream, a record also
//! has a digest, so that a restart of the cloud or of an edge sends nothing that the edge has already.

mod crd_ledger;
mod deliveries;
mod inventory;
mod ledger;
mod placement;
mod resync;
mod truth;

pub use self::{
    crd_ledger::CrdLedger,
    deliveries::DeliveryLog,
    ledger::{LedgerEntry, LedgerError, SyncLedger},
};
pub(crate) use self::{
    placement::Facts,
    resync::{DELIVERED, run as resync},
    truth::{Followed, Truth},
};
