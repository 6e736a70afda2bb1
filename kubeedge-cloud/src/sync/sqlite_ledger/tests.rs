#![allow(clippy::unwrap_used)]
use std::{fs, path::Path};

use kubeedge_core::{
    names::{ResourceVersion, Uid},
    resource::{ObjectPath, ResourceType},
};
use rusqlite::Connection;

use super::*;
use crate::sync::testing::ledger_suite;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn entry(uid: &str, version: u64) -> LedgerEntry {
    LedgerEntry {
        path: ObjectPath::namespaced("default", ResourceType::Pod, uid).unwrap(),
        uid: Uid::new(uid).unwrap(),
        api_version: "v1".into(),
        kind: "Pod".into(),
        version: ResourceVersion::new(version),
        digest: Some(format!("digest of {version}")),
    }
}

async fn fill(path: &Path, records: u64) -> SqliteLedger {
    let ledger = SqliteLedger::open(path).await.unwrap();
    for version in 1..=records {
        ledger.record(&node("edge-1"), &entry(&format!("u{version}"), version)).await.unwrap();
    }
    ledger
}

/// What is on disk at this moment, as after a `kill -9`.
fn copy(from: &Path, to: &Path) {
    for part in ["", "-wal"] {
        let with = |path: &Path| format!("{}{part}", path.display());
        match fs::read(with(from)) {
            Ok(bytes) => fs::write(with(to), bytes).unwrap(),
            Err(_) => drop(fs::remove_file(with(to))),
        }
    }
}

/// Waits until the thread of a ledger that was dropped has closed the file; then all is in the one file.
fn released(path: &Path) {
    drop(crate::sqlite::connect(Some(path)).unwrap());
}

fn damaged(path: &Path) -> bool {
    Path::new(&format!("{}.corrupt", path.display())).exists()
}

#[tokio::test]
async fn it_is_a_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/ledger.db");
    ledger_suite(SqliteLedger::open(&path).await.unwrap(), async || SqliteLedger::open(&path).await.unwrap()).await;
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (path, after) = (folder.path().join("ledger.db"), folder.path().join("after.db"));
    let ledger = fill(&path, 300).await;
    ledger.forget(&node("edge-1"), &entry("u7", 7)).await.unwrap();
    copy(&path, &after);
    let after = SqliteLedger::open(&after).await.unwrap();
    let mut listed = after.list(&node("edge-1")).await.unwrap();
    listed.sort_by_key(|entry| entry.version);
    let expected: Vec<_> = (1..=300).filter(|at| *at != 7).map(|at| entry(&format!("u{at}"), at)).collect();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_torn_log_costs_the_last_records_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (path, torn) = (folder.path().join("ledger.db"), folder.path().join("torn.db"));
    let _open = fill(&path, 20).await;
    let log = fs::read(format!("{}-wal", path.display())).unwrap();
    for length in (0..log.len()).step_by(1531) {
        copy(&path, &torn);
        fs::write(format!("{}-wal", torn.display()), &log[..length]).unwrap();
        let ledger = SqliteLedger::open(&torn).await.unwrap();
        let versions: Vec<_> = ledger.list(&node("edge-1")).await.unwrap().iter().map(|entry| entry.version).collect();
        // Each was answered before the next was written: what is left is the beginning.
        for version in &versions {
            assert!(version.unwrap().number() <= versions.len() as u64, "{length} bytes: {versions:?}");
        }
        drop(ledger);
        released(&torn);
        assert!(!damaged(&torn), "{length} bytes");
    }
}

#[tokio::test]
async fn a_file_that_is_none_is_moved_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    for round in ["one", "two"] {
        fs::write(&path, format!("{round}: not a database").repeat(1000)).unwrap();
        let ledger = SqliteLedger::open(&path).await.unwrap();
        assert_eq!(ledger.nodes().await.unwrap(), []);
        ledger.record(&node("edge-1"), &entry("u1", 1)).await.unwrap();
        drop(ledger);
        released(&path);
        let kept = fs::read_to_string(format!("{}.corrupt", path.display())).unwrap();
        assert!(kept.starts_with(round), "the last one is kept");
    }
    assert_eq!(
        fs::read_dir(folder.path())
            .unwrap()
            .filter(|file| { file.as_ref().unwrap().file_name().to_string_lossy().ends_with(".corrupt") })
            .count(),
        1
    );
}

/// Wherever a bit flips, the ledger opens and goes on, and never says that a node has what it has not.
#[tokio::test]
async fn flipped_bits_are_never_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, flipped) = (folder.path().join("ledger.db"), folder.path().join("flipped.db"));
    drop(fill(&path, 60).await);
    released(&path);
    let good = fs::read(&path).unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut lost = 0;
    for _ in 0..200 {
        let mut bytes = good.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        for part in ["-wal", ".corrupt", ".corrupt-wal"] {
            let _absent = fs::remove_file(format!("{}{part}", flipped.display()));
        }
        fs::write(&flipped, bytes).unwrap();
        let ledger = match SqliteLedger::open(&flipped).await {
            Ok(ledger) => ledger,
            // The bit made the layout a later one.
            Err(SqliteLedgerError::Layout { .. }) => continue,
            Err(err) => panic!("bit at {at}: {err}"),
        };
        // Damage that is found late fails once, and the ledger is a new one then.
        let listed = match ledger.list(&node("edge-1")).await {
            Ok(listed) => listed,
            Err(_) => ledger.list(&node("edge-1")).await.unwrap(),
        };
        for found in &listed {
            let version = found.version.unwrap().number();
            assert_eq!(*found, entry(&format!("u{version}"), version), "bit at {at}");
        }
        lost += 60 - listed.len();
        ledger.record(&node("edge-1"), &entry("new", 61)).await.unwrap();
        assert!(ledger.list(&node("edge-1")).await.unwrap().contains(&entry("new", 61)), "bit at {at}");
        drop(ledger);
        released(&flipped);
    }
    assert!(lost > 0, "some of it must have hit");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let err = SqliteLedger::open(folder.path()).await.unwrap_err();
    assert_eq!(err.to_string(), format!("ledger {} cannot be used: it is a folder", folder.path().display()));
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let err = SqliteLedger::open(&path).await.unwrap_err();
    assert!(matches!(err, SqliteLedgerError::Layout { found: 2, .. }), "{err}");
    assert!(!damaged(&path), "nothing was touched");
}
