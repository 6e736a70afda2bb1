//! The conformance suite of ledgers.
//!
//! It panics with what went wrong; run it from a test of your own ledger.
#![expect(clippy::expect_used, reason = "a suite panics with the rule that is broken")]

use kubeedge_core::{
    names::{NodeName, ResourceVersion, Uid},
    resource::{ObjectPath, ResourceType},
};

use super::{LedgerEntry, SyncLedger};

/// Calls that are made side by side.
const CALLERS: u64 = 32;

fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("a node name")
}

fn namespaced(kind: ResourceType, api_version: &str, kind_name: &str, uid: &str, version: u64) -> LedgerEntry {
    let path = ObjectPath::namespaced("default", kind, &format!("name.of.{uid}")).expect("a path");
    let digest = (version > 0).then(|| format!("digest-{version}"));
    LedgerEntry::new(path, Uid::new(uid).expect("a UID"), api_version, kind_name)
        .acknowledged(ResourceVersion::new(version), digest)
}

fn pod(uid: &str, version: u64) -> LedgerEntry {
    namespaced(ResourceType::Pod, "v1", "Pod", uid, version)
}

fn of_cluster(uid: &str, version: u64) -> LedgerEntry {
    let path = ObjectPath::cluster(ResourceType::Node, "edge-1.site.example").expect("a path");
    LedgerEntry::new(path, Uid::new(uid).expect("a UID"), "v1", "Node")
        .acknowledged(ResourceVersion::new(version), Some("d".into()))
}

async fn listed<L: SyncLedger>(ledger: &L, of: &NodeName) -> Vec<LedgerEntry> {
    let mut entries = ledger.list(of).await.expect("a list");
    entries.sort_by(|one, other| one.uid.cmp(&other.uid));
    entries
}

async fn nodes<L: SyncLedger>(ledger: &L) -> Vec<NodeName> {
    let mut nodes = ledger.nodes().await.expect("the nodes");
    nodes.sort();
    nodes
}

/// What every [`SyncLedger`] has to do. `ledger` must be empty, the namespace `default` must exist; `reopen` opens the same
/// records anew, after the first one was dropped.
///
/// # Panics
/// With the rule that is broken.
pub async fn ledger_suite<L: SyncLedger>(ledger: L, reopen: impl AsyncFn() -> L) {
    // A name with dots, and one that begins with another.
    let (dotted, plain, longer) = (node("edge-1.site.example"), node("edge-1"), node("edge-10"));
    assert_eq!(nodes(&ledger).await, [], "a new ledger knows no node");
    assert_eq!(listed(&ledger, &dotted).await, [], "and nothing of any");

    let device = namespaced(ResourceType::Device, "devices.kubeedge.io/v1beta1", "Device", "u-3", 9);
    let unacknowledged = pod("u-4", 0);
    let all = [pod("u-1", 7), of_cluster("u-2", 8), device, unacknowledged];
    for entry in &all {
        ledger.record(&dotted, entry).await.expect("a record");
    }
    assert_eq!(listed(&ledger, &dotted).await, all, "entries come back as they were written");
    ledger.record(&plain, &pod("u-1", 5)).await.expect("a record");
    ledger.record(&longer, &pod("u-1", 6)).await.expect("a record");
    assert_eq!(nodes(&ledger).await, [plain.clone(), dotted.clone(), longer.clone()], "each node once");
    assert_eq!(listed(&ledger, &plain).await, [pod("u-1", 5)], "an object has a record for each node");

    ledger.record(&plain, &pod("u-1", 5)).await.expect("the same record again");
    ledger.record(&plain, &pod("u-1", u64::from(u32::MAX) + 6)).await.expect("a newer version");
    assert_eq!(listed(&ledger, &plain).await, [pod("u-1", u64::from(u32::MAX) + 6)], "the last word counts");
    ledger.forget(&plain, &pod("u-1", 5)).await.expect("a record is forgotten, whatever its version");
    ledger.forget(&plain, &pod("u-1", 5)).await.expect("it may be forgotten twice");
    ledger.forget(&node("unknown"), &of_cluster("u-9", 1)).await.expect("what never was may be forgotten");
    assert_eq!(listed(&ledger, &plain).await, [], "what is forgotten is gone");
    assert_eq!(nodes(&ledger).await, [dotted.clone(), longer.clone()], "a node without records is none");

    let many: Vec<LedgerEntry> = (0..CALLERS).map(|at| pod(&format!("m-{at:02}"), at + 1)).collect();
    let writes = many.iter().map(|entry| ledger.record(&plain, entry));
    for written in futures_util::future::join_all(writes).await {
        written.expect("a record among others");
    }
    assert_eq!(listed(&ledger, &plain).await, many, "calls side by side lose nothing");

    drop(ledger);
    let ledger = reopen().await;
    assert_eq!(listed(&ledger, &dotted).await, all, "everything outlives the process");
    assert_eq!(listed(&ledger, &plain).await, many, "everything outlives the process");
    for entry in &all {
        ledger.forget(&dotted, entry).await.expect("a record of before is forgotten");
    }
    assert_eq!(nodes(&ledger).await, [plain, longer], "a node without records is none");
}
