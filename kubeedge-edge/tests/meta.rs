//! The SQLite store: the suite of its seam, and what only a file can do.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use kubeedge_core::{
    meta::{
        Collection, MetaError, MetaEvent, MetaHandle, MetaKey, MetaWrite, Precondition, Record, Revision, Selector,
    },
    names::{ResourceVersion, Uid},
    testing::meta_suite,
};
use kubeedge_edge::meta::{Change, Follower, SqliteError, SqliteOptions, SqliteStore};
use tempfile::TempDir;

fn key(name: &str) -> MetaKey {
    MetaKey::new(Collection::twins(), "default", name)
}

fn record(name: &str, value: impl Into<Vec<u8>>) -> Record {
    Record::new(key(name), value.into())
}

fn put(name: &str, value: impl Into<Vec<u8>>) -> MetaWrite {
    MetaWrite::Put(record(name, value), Precondition::Always)
}

fn open(folder: &TempDir) -> (SqliteStore, MetaHandle) {
    let store = SqliteStore::open(folder.path().join("edge.db")).unwrap();
    (store.clone(), MetaHandle::of(store))
}

#[tokio::test]
async fn the_suite() {
    let folder = TempDir::new().unwrap();
    let (store, handle) = open(&folder);
    meta_suite(handle).await;
    store.close().await;
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let (store, handle) = open(&folder);
    let mut written = record("boiler", "{}");
    (written.uid, written.version) = (Uid::new("u-1").ok(), ResourceVersion::new(7));
    written.revision = handle.put(written.clone()).await.unwrap();
    let last = handle.delete(key("nothing")).await.unwrap();
    store.close().await;
    assert!(matches!(handle.get(key("boiler")).await, Err(MetaError::Closed)), "a closed store says so");

    let (_store, handle) = open(&folder);
    assert_eq!(handle.get(key("boiler")).await.unwrap(), Some(written), "with uid, version and revision");
    assert!(handle.put(record("next", "1")).await.unwrap() > last, "revisions go on growing");
}

/// Nobody waits for the thread of a store that was dropped, but the next one must not trip over it.
#[tokio::test]
async fn a_dropped_store_lets_go_of_its_file() {
    let folder = TempDir::new().unwrap();
    for round in 0..5 {
        let (_store, handle) = open(&folder);
        handle.put(record("round", round.to_string())).await.unwrap();
    }
    let (_store, handle) = open(&folder);
    assert_eq!(handle.get(key("round")).await.unwrap().unwrap().value, "4");
}

#[tokio::test]
async fn a_file_has_one_store_at_a_time() {
    let folder = TempDir::new().unwrap();
    let (_store, handle) = open(&folder);
    handle.put(record("a", "1")).await.unwrap();
    let again = SqliteOptions::new(folder.path().join("edge.db")).wait_for_lock(Duration::ZERO);
    assert!(matches!(SqliteStore::open_with(again), Err(SqliteError::InUse { .. })));
}

#[tokio::test]
async fn a_watch_reaches_back_to_deletions_and_says_when_it_cannot() {
    let folder = TempDir::new().unwrap();
    let (store, handle) = open(&folder);
    let start = handle.put(record("gone", "1")).await.unwrap();
    handle.put(record("stays", "1")).await.unwrap();
    handle.delete(key("gone")).await.unwrap();
    handle.put(record("stays", "2")).await.unwrap();
    let select = Selector::all(Collection::twins());
    let mut watch = handle.watch(select.clone(), start).await.unwrap();
    let Some(MetaEvent::Deleted(gone, at)) = watch.next().await else { panic!("the deletion comes first") };
    assert_eq!(gone, key("gone"));
    let Some(MetaEvent::Put(stays)) = watch.next().await else { panic!("then the newest write") };
    assert!(stays.value == "2" && stays.revision > at);
    store.close().await;
    assert_eq!(watch.next().await, None, "a closed store ends its watches");

    let (_store, handle) = open(&folder);
    let mut watch = handle.watch(select, start).await.unwrap();
    assert!(matches!(watch.next().await, Some(MetaEvent::Lagged(_))), "deletions before the start are not known");
}

#[tokio::test]
async fn a_slow_watcher_is_told_and_costs_no_memory() {
    let folder = TempDir::new().unwrap();
    let (_store, handle) = open(&folder);
    let select = Selector::all(Collection::twins());
    let mut watch = handle.watch(select.clone(), Revision(0)).await.unwrap();
    let mut follower = Follower::new(handle.clone(), select);
    assert!(matches!(follower.next().await, Ok(Change::Listed(none)) if none.is_empty()));
    for batch in 0..10 {
        handle.commit((0..100).map(|count| put(&format!("{batch}-{count}"), "1")).collect()).await.unwrap();
    }
    let Some(MetaEvent::Lagged(missed)) = watch.next().await else { panic!("missed events went unnoticed") };
    let mut seen = 0;
    while seen + missed < 1000 {
        assert!(matches!(watch.next().await, Some(MetaEvent::Put(_))));
        seen += 1;
    }
    assert!(seen <= 256, "no more than the queue holds: {seen}");
    let Ok(Change::Listed(all)) = follower.next().await else { panic!("a follower lists again") };
    assert_eq!(all.len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_each_get_all_or_nothing() {
    let folder = TempDir::new().unwrap();
    let (_store, handle) = open(&folder);
    let at = handle.put(record("shared", "0")).await.unwrap();
    let writers = (0..64).map(|writer| {
        let handle = handle.clone();
        tokio::spawn(async move {
            let own = put(&format!("own-{writer}"), "1");
            let shared = MetaWrite::Put(record("shared", writer.to_string()), Precondition::Unchanged(at));
            handle.commit(vec![own, shared]).await
        })
    });
    let mut won = Vec::new();
    for (writer, task) in writers.collect::<Vec<_>>().into_iter().enumerate() {
        match task.await.unwrap() {
            Ok(revision) => won.push((writer, revision)),
            Err(MetaError::Conflict { key: at_fault }) => assert_eq!(at_fault, key("shared")),
            Err(error) => panic!("{error}"),
        }
    }
    let [(winner, revision)] = won[..] else { panic!("exactly one saw the record unchanged: {won:?}") };
    let shared = handle.get(key("shared")).await.unwrap().unwrap();
    assert_eq!((shared.value.as_ref(), shared.revision), (winner.to_string().as_bytes(), revision));
    let all = handle.list(Selector::all(Collection::twins())).await.unwrap();
    assert_eq!(all.len(), 2, "losers left nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_says_so_and_recovers() {
    let folder = TempDir::new().unwrap();
    let options = SqliteOptions::new(folder.path().join("edge.db")).max_size(256 * 1024);
    let store = SqliteStore::open_with(options).unwrap();
    let handle = MetaHandle::of(store);
    handle.put(record("kept", "1")).await.unwrap();
    let mut stored = 0;
    let error = loop {
        match handle.put(record(&format!("fill-{stored}"), vec![b'x'; 16 * 1024])).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, MetaError::Full), "{error:?}");
    assert!(error.is_transient() && stored > 4);
    assert_eq!(handle.get(key("kept")).await.unwrap().unwrap().value, "1", "what is stored stays readable");
    // Small and large at the same time: the large ones must not take the small one with them.
    let large = (0..8).map(|count| {
        let handle = handle.clone();
        tokio::spawn(async move { handle.put(record(&format!("large-{count}"), vec![b'x'; 128 * 1024])).await })
    });
    let large: Vec<_> = large.collect();
    handle.delete(key("fill-0")).await.expect("a deletion makes room");
    for task in large {
        assert!(matches!(task.await.unwrap(), Err(MetaError::Full)));
    }
    handle.put(record("small", "1")).await.expect("there is room again");
}

/// What is done to a file, and how.
type Damage = (&'static str, fn(&mut Vec<u8>));

fn damage(path: &Path, spoil: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    spoil(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_kept_aside_and_a_new_one_started() {
    let damages: [Damage; 3] = [
        ("not a database", |bytes| bytes[..16].copy_from_slice(b"SomethingElse!!!")),
        ("a page of zeroes", |bytes| bytes[4096..8192].fill(0)),
        ("cut off", |bytes| bytes.truncate(bytes.len() / 2)),
    ];
    for (what, spoil) in damages {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("edge.db");
        for attempt in 1..=2 {
            let (store, handle) = open(&folder);
            let all = handle.list(Selector::all(Collection::twins())).await.unwrap();
            assert!(all.is_empty(), "{what}: a fresh store is empty");
            for count in 0..200 {
                handle.put(record(&format!("twin-{count}"), vec![b'x'; 500])).await.unwrap();
            }
            store.close().await;
            damage(&path, spoil);
            let (store, _handle) = open(&folder);
            let aside = folder.path().join(format!("edge.db.corrupt-{attempt}"));
            assert!(aside.exists(), "{what}: the damaged file is kept");
            store.close().await;
        }
    }
}

/// What a power cut leaves of the log: any part of its end may be missing or wrong.
#[tokio::test]
async fn of_a_torn_log_whole_commits_are_left() {
    let folder = TempDir::new().unwrap();
    let (_store, handle) = open(&folder);
    for count in 0..40_u32 {
        let value = count.to_string();
        handle.commit(vec![put("left", value.clone()), put("right", value)]).await.unwrap();
    }
    let (file, log) = (folder.path().join("edge.db"), folder.path().join("edge.db-wal"));
    let (bytes, log) = (fs::read(file).unwrap(), fs::read(log).unwrap());
    assert!(log.len() > 40 * 4096, "the commits are in the log");
    let mut newest = None;
    for step in (0..log.len()).step_by(log.len() / 60).chain([log.len()]) {
        for flipped in [false, true] {
            let torn = TempDir::new().unwrap();
            let mut log = log.clone();
            match log.get_mut(step) {
                Some(byte) if flipped => *byte ^= 0x10,
                _ => log.truncate(step),
            }
            fs::write(torn.path().join("edge.db"), &bytes).unwrap();
            fs::write(torn.path().join("edge.db-wal"), log).unwrap();
            let (store, handle) = open(&torn);
            let value = |record: Option<Record>| {
                record.map(|record| str::from_utf8(&record.value).unwrap().parse::<u32>().unwrap())
            };
            let left = value(handle.get(key("left")).await.unwrap());
            assert_eq!(left, value(handle.get(key("right")).await.unwrap()), "torn at {step}, flipped {flipped}");
            handle.put(record("left", "0")).await.expect("the store can be written");
            newest = newest.max(left);
            store.close().await;
        }
    }
    assert_eq!(newest, Some(39), "an intact log loses nothing");
}

#[tokio::test]
async fn tables_of_others_and_newer_schemas_are_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("edge.db");
    let upstream = rusqlite::Connection::open(&path).unwrap();
    upstream
        .execute_batch(
            "CREATE TABLE meta (key TEXT PRIMARY KEY, type TEXT, value TEXT);
        INSERT INTO meta VALUES ('default/pod/web', 'pod', '{}');",
        )
        .unwrap();
    drop(upstream);
    let (store, handle) = open(&folder);
    handle.put(record("ours", "1")).await.unwrap();
    store.close().await;

    let connection = rusqlite::Connection::open(&path).unwrap();
    let theirs: i64 = connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0)).unwrap();
    assert_eq!(theirs, 1);
    connection.execute("UPDATE kubeedge_schema SET version = 99", []).unwrap();
    drop(connection);
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(refused, SqliteError::Newer { found: 99, .. }), "{refused}");
    assert!(!folder.path().join("edge.db.corrupt-1").exists(), "a newer file is not a damaged one");
}

#[tokio::test]
async fn a_path_that_cannot_be_is_told() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let path = folder.path().join("file/edge.db");
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open {}", path.display()));
}

/// Path of the file that the other process of the test below writes to.
const VICTIM: &str = "KUBEEDGE_TEST_VICTIM";

/// What the other process does: it commits as fast as it can, and tells of each commit that was acknowledged.
async fn commit_until_killed(path: String) {
    let handle = MetaHandle::of(SqliteStore::open(path).unwrap());
    let tasks = (0..4).map(|lane| {
        let handle = handle.clone();
        tokio::spawn(async move {
            for count in 0_u32.. {
                let value = format!("{count}").repeat(100);
                handle
                    .commit(vec![put(&format!("left-{lane}"), value.clone()), put(&format!("right-{lane}"), value)])
                    .await
                    .unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acked {lane} {count}").unwrap();
                out.flush().unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_that_was_acknowledged() {
    if let Ok(path) = std::env::var(VICTIM) {
        return commit_until_killed(path).await;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("edge.db");
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_loses_nothing_that_was_acknowledged", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acked = [None; 4];
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        for line in lines.map_while(Result::ok) {
            let Some(rest) = line.split("acked ").nth(1) else { continue };
            let (lane, count) = rest.split_once(' ').unwrap();
            acked[lane.parse::<usize>().unwrap()] = Some(count.parse::<u32>().unwrap());
            told += 1;
            if told == 60 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(told >= 60 * round, "the other process ended by itself");
        let (store, handle) = open(&folder);
        for (lane, acked) in acked.iter().enumerate() {
            let left = handle.get(key(&format!("left-{lane}"))).await.unwrap().map(|record| record.value);
            let right = handle.get(key(&format!("right-{lane}"))).await.unwrap().map(|record| record.value);
            assert_eq!(left, right, "a commit is there as a whole");
            let Some(acked) = acked else { continue };
            let found = left.expect("an acknowledged record is there");
            let digits = found.len() / 100;
            let found: u32 = str::from_utf8(&found[..digits]).unwrap().parse().unwrap();
            assert!(found >= *acked, "lane {lane}: {acked} was acknowledged, {found} is there");
        }
        store.close().await;
        // The next round starts over, as its counters do.
        for file in ["edge.db", "edge.db-wal"] {
            let _ = fs::remove_file(folder.path().join(file));
        }
    }
}

#[tokio::test]
async fn a_slow_watcher_of_large_records_costs_no_memory() {
    let folder = TempDir::new().unwrap();
    let (_store, handle) = open(&folder);
    let mut watch = handle.watch(Selector::all(Collection::twins()), Revision(0)).await.unwrap();
    for _ in 0..20 {
        handle.put(record("large", "x".repeat(1024 * 1024))).await.unwrap();
    }
    handle.put(record("huge", "x".repeat(8 * 1024 * 1024))).await.unwrap();
    assert_eq!(watch.next().await, Some(MetaEvent::Lagged(20)), "what waits for it is limited in bytes, too");
    let Some(MetaEvent::Put(newest)) = watch.next().await else { panic!("the newest stays, whatever its length") };
    assert_eq!(newest.value.len(), 8 * 1024 * 1024);
    for _ in 0..3 {
        handle.put(record("large", "x".repeat(1024 * 1024))).await.unwrap();
    }
    for _ in 0..3 {
        assert!(matches!(watch.next().await, Some(MetaEvent::Put(_))), "there is room again");
    }
}
