//! The one table, and the file that it is in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kubeedge_core::{
    names::{NodeName, ResourceVersion, Uid},
    resource::{ObjectPath, ResourceType},
};
use ring::digest::{Context, SHA256};
use rusqlite::{Connection, ErrorCode, Row, Transaction, params};

use super::SqliteLedgerError;
use crate::{
    sqlite::{Fault, connect},
    sync::LedgerEntry,
};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS acknowledged (
        node TEXT NOT NULL, uid TEXT NOT NULL,
        namespace TEXT, resource TEXT NOT NULL, name TEXT NOT NULL,
        api_version TEXT NOT NULL, kind TEXT NOT NULL,
        version INTEGER, digest TEXT, checksum BLOB NOT NULL,
        PRIMARY KEY (node, uid)) STRICT, WITHOUT ROWID;
";

/// Layout of the table; a database of a later layout is not opened.
const LAYOUT: i64 = 1;

/// Skips from node to node in the primary key, instead of reading all records.
const NODES: &str = "
    WITH RECURSIVE found(node) AS (
        SELECT min(node) FROM acknowledged
        UNION ALL
        SELECT (SELECT min(node) FROM acknowledged WHERE acknowledged.node > found.node)
        FROM found WHERE found.node IS NOT NULL)
    SELECT node FROM found WHERE node IS NOT NULL
";

const CHECKSUM_LEN: usize = 8;

/// Opens the database at `path`; a damaged one is moved aside first.
pub(super) fn open(path: &Path) -> Result<Connection, SqliteLedgerError> {
    let unusable = |why: String| SqliteLedgerError::Unusable { path: path.to_owned(), why };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|err| unusable(format!("its folder cannot be made: {err}")))?;
    }
    let opened = match try_open(path) {
        Err(OpenError::Damaged(what)) => {
            let aside =
                move_aside(path).map_err(|err| unusable(format!("it is damaged and cannot be moved: {err}")))?;
            tracing::warn!(
                file = %path.display(), kept_as = %aside.display(), what,
                "ledger is damaged: moved aside, starting with an empty one; nodes are sent everything again"
            );
            try_open(path)
        }
        opened => opened,
    };
    opened.map_err(|err| match err {
        OpenError::Damaged(what) => unusable(what),
        OpenError::Layout(found) => SqliteLedgerError::Layout { path: path.to_owned(), found, known: LAYOUT },
        OpenError::Database(err) => match Fault::of(&err, path) {
            Some(Fault::InUse) => SqliteLedgerError::InUse { path: path.to_owned() },
            Some(Fault::Unusable(why)) => unusable(why.to_owned()),
            _ => unusable(err.to_string()),
        },
    })
}

enum OpenError {
    Damaged(String),
    Layout(i64),
    Database(rusqlite::Error),
}

fn try_open(path: &Path) -> Result<Connection, OpenError> {
    let classify = |err: rusqlite::Error| {
        let is_damage = match (Fault::of(&err, path), err.sqlite_error_code()) {
            (Some(Fault::Damaged), _) => true,
            // The header may say so while the file system does not.
            (_, Some(ErrorCode::ReadOnly)) => fs::OpenOptions::new().append(true).open(path).is_ok(),
            // The statements are right, so it is the file that is wrong.
            (None, code) => code != Some(ErrorCode::OutOfMemory),
            _ => false,
        };
        if is_damage { OpenError::Damaged(err.to_string()) } else { OpenError::Database(err) }
    };
    let connection = connect(Some(path)).map_err(classify)?;
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(classify)?;
    if verdict != "ok" {
        return Err(OpenError::Damaged(verdict));
    }
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(classify)?;
    if found > LAYOUT {
        return Err(OpenError::Layout(found));
    }
    connection.execute_batch(SCHEMA).map_err(classify)?;
    // The definition is text in the file, too.
    if definition(&connection).map_err(classify)?
        != definition(&fresh().map_err(OpenError::Database)?).map_err(classify)?
    {
        return Err(OpenError::Damaged("its table is not the one that it should have".to_owned()));
    }
    connection.pragma_update(None, "user_version", LAYOUT).map_err(classify)?;
    Ok(connection)
}

fn fresh() -> rusqlite::Result<Connection> {
    let connection = connect(None)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn definition(connection: &Connection) -> rusqlite::Result<Vec<u8>> {
    let text = "SELECT CAST(group_concat(sql) AS BLOB) FROM sqlite_schema WHERE name = 'acknowledged'";
    connection.query_row(text, [], |row| row.get(0))
}

/// Keeps one damaged file, the last: a disk that goes bad must not fill up with them.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(".corrupt");
    fs::rename(path, &aside)?;
    match fs::rename(with("-wal"), with(".corrupt-wal")) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(aside),
    }
}

pub(super) fn record(transaction: &Transaction<'_>, node: &NodeName, entry: &LedgerEntry) -> rusqlite::Result<()> {
    let mut put = transaction.prepare(
        "INSERT OR REPLACE INTO acknowledged
         (node, uid, namespace, resource, name, api_version, kind, version, digest, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let (node, path) = (node.as_str(), &entry.path);
    put.execute(params![
        node,
        entry.uid.as_str(),
        path.namespace.as_ref().map(AsRef::<str>::as_ref),
        path.kind.to_string(),
        path.name.as_ref().map_or("", |name| name.as_str()),
        entry.api_version,
        entry.kind,
        entry.version.map(|version| version.number().cast_signed()),
        entry.digest,
        &checksum(node, entry)[..],
    ])?;
    Ok(())
}

pub(super) fn forget(transaction: &Transaction<'_>, node: &str, uid: &str) -> rusqlite::Result<()> {
    let mut delete = transaction.prepare("DELETE FROM acknowledged WHERE node = ?1 AND uid = ?2")?;
    delete.execute([node, uid])?;
    Ok(())
}

/// Rows that cannot be what was once written are taken away.
pub(super) fn list(transaction: &Transaction<'_>, node: &NodeName) -> rusqlite::Result<Vec<LedgerEntry>> {
    let mut entries = Vec::new();
    let mut damaged: Vec<Vec<u8>> = Vec::new();
    {
        let mut query = transaction.prepare(
            "SELECT uid, namespace, resource, name, api_version, kind, version, digest, checksum
             FROM acknowledged WHERE node = ?1",
        )?;
        let mut rows = query.query([node.as_str()])?;
        while let Some(row) = rows.next()? {
            match read(row) {
                Ok(Some((entry, sum))) if sum == checksum(node.as_str(), &entry) => entries.push(entry),
                // Not even of the right type, perhaps.
                _ => damaged.push(row.get_ref(0)?.as_bytes().unwrap_or_default().to_vec()),
            }
        }
    }
    for uid in damaged {
        tracing::warn!(%node, uid = %String::from_utf8_lossy(&uid), "record of the ledger is damaged, the object is sent again");
        let mut delete = transaction.prepare("DELETE FROM acknowledged WHERE node = ?1 AND CAST(uid AS BLOB) = ?2")?;
        delete.execute(params![node.as_str(), uid])?;
    }
    Ok(entries)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<(LedgerEntry, Vec<u8>)>> {
    let text = |at: usize| row.get::<_, String>(at);
    let (uid, kind, name) = (text(0)?, ResourceType::from_word(&text(2)?), text(3)?);
    let path = match row.get::<_, Option<String>>(1)? {
        Some(namespace) => ObjectPath::namespaced(&namespace, kind, &name),
        None => ObjectPath::cluster(kind, &name),
    };
    let (Ok(uid), Ok(path)) = (Uid::new(uid), path) else { return Ok(None) };
    let version = row.get::<_, Option<i64>>(6)?.and_then(|version| ResourceVersion::new(version.cast_unsigned()));
    let entry = LedgerEntry::new(path, uid, text(4)?, text(5)?).acknowledged(version, row.get(7)?);
    Ok(Some((entry, row.get(8)?)))
}

pub(super) fn nodes(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<NodeName>> {
    let mut query = transaction.prepare(NODES)?;
    let mut rows = query.query([])?;
    let mut nodes = Vec::new();
    while let Some(row) = rows.next()? {
        nodes.extend(row.get_ref(0)?.as_str().ok().and_then(|name| NodeName::new(name).ok()));
    }
    Ok(nodes)
}

/// Damage within a page is none to SQLite. A version that grew by a flipped bit would hold back all later ones.
fn checksum(node: &str, entry: &LedgerEntry) -> [u8; CHECKSUM_LEN] {
    let mut sum = Context::new(&SHA256);
    let path = entry.path.to_string();
    let version = entry.version.map_or(0, ResourceVersion::number).to_string();
    let digest = entry.digest.as_deref().unwrap_or_default();
    for part in [node, entry.uid.as_str(), &path, &entry.api_version, &entry.kind, &version, digest] {
        sum.update(part.as_bytes());
        sum.update(&[0]);
    }
    let sum = sum.finish();
    std::array::from_fn(|at| sum.as_ref().get(at).copied().unwrap_or_default())
}
