use std::{collections::VecDeque, slice};

use bytes::Bytes;
use kubeedge_core::{
    meta::{MetaError, MetaEvent, MetaKey, MetaWrite, Precondition, Record, Revision, Selector},
    names::{ResourceVersion, Uid},
};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, Statement, params};

use super::upstream::Upstream;

/// Deletions that a watch can reach back to.
const TOMBSTONES: usize = 1024;
/// Revisions that are set aside on the disk at a time: a commit then need not write the number as well.
const RESERVE: u64 = 1024;

/// A batch that is durable.
pub(super) struct Committed {
    pub(super) revision: Revision,
    pub(super) events: Vec<MetaEvent>,
}

/// The records, through prepared statements.
pub(super) struct Table<'c> {
    connection: &'c Connection,
    get: Statement<'c>,
    list: Statement<'c>,
    since: Statement<'c>,
    revision_of: Statement<'c>,
    put: Statement<'c>,
    delete: Statement<'c>,
    reserve: Statement<'c>,
    revision: u64,
    reserved: u64,
    tombstones: VecDeque<(MetaKey, Revision)>,
    /// Deletions up to here are not known any more.
    forgotten: Revision,
}

/// Why a batch was not written.
enum Refused {
    /// It alone: the others may go on.
    Batch(MetaError),
    /// The transaction is gone.
    All(rusqlite::Error),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::All(error)
    }
}

pub(super) fn meta_error(error: rusqlite::Error) -> MetaError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => MetaError::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            tracing::error!(%error, "metadata store is damaged; it is replaced at the next start");
            MetaError::Failed(error.into())
        }
        _ => MetaError::Failed(error.into()),
    }
}

impl<'c> Table<'c> {
    pub(super) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        const ONE: &str = "WHERE collection = ?1 AND namespace = ?2 AND name = ?3";
        const SOME: &str = "WHERE collection = ?1 AND (?2 IS NULL OR namespace = ?2)";
        const COLUMNS: &str = "namespace, name, uid, version, revision, value";
        // What was set aside may have been used: go on behind it.
        let reserved: i64 = connection.query_row("SELECT reserved FROM kubeedge_revision", [], |row| row.get(0))?;
        let reserved = reserved.cast_unsigned();
        Ok(Self {
            connection,
            get: connection.prepare(&format!("SELECT {COLUMNS} FROM kubeedge_record {ONE}"))?,
            list: connection
                .prepare(&format!("SELECT {COLUMNS} FROM kubeedge_record {SOME} ORDER BY namespace, name"))?,
            since: connection.prepare(&format!(
                "SELECT {COLUMNS} FROM kubeedge_record {SOME} AND revision > ?3 ORDER BY revision"
            ))?,
            revision_of: connection.prepare(&format!("SELECT revision FROM kubeedge_record {ONE}"))?,
            put: connection.prepare(
                "INSERT INTO kubeedge_record (collection, namespace, name, uid, version, revision, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (collection, namespace, name) DO UPDATE SET
                 uid = excluded.uid, version = excluded.version, revision = excluded.revision, value = excluded.value",
            )?,
            delete: connection.prepare(&format!("DELETE FROM kubeedge_record {ONE}"))?,
            reserve: connection.prepare("UPDATE kubeedge_revision SET reserved = ?1")?,
            revision: reserved,
            reserved,
            tombstones: VecDeque::new(),
            forgotten: Revision(reserved),
        })
    }

    pub(super) fn get(&mut self, key: &MetaKey) -> Result<Option<Record>, MetaError> {
        let select = Selector::all(key.collection.clone());
        self.get
            .query_row(params![key.collection.as_str(), &*key.namespace, &*key.name], |row| record(&select, row))
            .optional()
            .map_err(meta_error)
    }

    pub(super) fn list(&mut self, select: &Selector) -> Result<Vec<Record>, MetaError> {
        let parameters = params![select.collection.as_str(), select.namespace.as_deref()];
        let rows = self.list.query_map(parameters, |row| record(select, row)).map_err(meta_error)?;
        rows.collect::<Result<_, _>>().map_err(meta_error)
    }

    /// What an EdgeCore in Go has left in this file; `None` if there is nothing, or if this store was used before.
    pub(super) fn upstream(&self) -> Result<Option<Upstream>, MetaError> {
        if self.reserved > 0 {
            return Ok(None);
        }
        Upstream::read(self.connection).map_err(meta_error)
    }

    /// What became of the selected records after `after`, in order.
    pub(super) fn since(&mut self, select: &Selector, after: Revision) -> Result<Vec<MetaEvent>, MetaError> {
        let number = i64::try_from(after.0).unwrap_or(i64::MAX);
        let parameters = params![select.collection.as_str(), select.namespace.as_deref(), number];
        let rows = self.since.query_map(parameters, |row| record(select, row)).map_err(meta_error)?;
        let mut events = rows.map(|row| row.map(MetaEvent::Put)).collect::<Result<Vec<_>, _>>().map_err(meta_error)?;
        let gone = self.tombstones.iter().filter(|(key, at)| *at > after && select.matches(key));
        events.extend(gone.map(|(key, at)| MetaEvent::Deleted(key.clone(), *at)));
        events.sort_by_key(revision_of);
        if after < self.forgotten {
            events.insert(0, MetaEvent::Lagged(self.forgotten.0 - after.0));
        }
        Ok(events)
    }

    /// Commits every batch, each wholly or not at all, with one sync of the disk for all.
    pub(super) fn commit(&mut self, batches: &[Vec<MetaWrite>]) -> Vec<Result<Committed, MetaError>> {
        match self.transact(batches) {
            Ok(results) => results,
            Err(error) if batches.len() == 1 => vec![Err(meta_error(error))],
            // One that has no room must not take the others with it: a deletion may make room.
            Err(_) => batches.iter().flat_map(|batch| self.commit(slice::from_ref(batch))).collect(),
        }
    }

    fn transact(&mut self, batches: &[Vec<MetaWrite>]) -> rusqlite::Result<Vec<Result<Committed, MetaError>>> {
        let before = (self.revision, self.reserved);
        let results = self.write_all(batches);
        if results.is_ok() {
            for committed in results.iter().flatten().flatten() {
                self.remember(&committed.events);
            }
            return results;
        }
        (self.revision, self.reserved) = before;
        // Some errors have rolled back already.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "metadata store cannot roll back");
        }
        results
    }

    fn write_all(&mut self, batches: &[Vec<MetaWrite>]) -> rusqlite::Result<Vec<Result<Committed, MetaError>>> {
        if batches.iter().all(Vec::is_empty) {
            let nothing = || Ok(Committed { revision: Revision(self.revision), events: Vec::new() });
            return Ok(batches.iter().map(|_| nothing()).collect());
        }
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let needed = self.revision + batches.len() as u64;
        if needed > self.reserved {
            self.reserve.execute([(needed + RESERVE).cast_signed()])?;
            self.reserved = needed + RESERVE;
        }
        let mut results = Vec::with_capacity(batches.len());
        for batch in batches {
            self.connection.execute_batch("SAVEPOINT batch")?;
            let revision = Revision(self.revision + u64::from(!batch.is_empty()));
            match self.write(batch, revision) {
                Ok(events) => {
                    self.revision = revision.0;
                    results.push(Ok(Committed { revision, events }));
                }
                Err(Refused::Batch(error)) => {
                    self.connection.execute_batch("ROLLBACK TO batch")?;
                    results.push(Err(error));
                }
                Err(Refused::All(error)) => return Err(error),
            }
            self.connection.execute_batch("RELEASE batch")?;
        }
        self.connection.execute_batch("COMMIT")?;
        Ok(results)
    }

    fn write(&mut self, batch: &[MetaWrite], revision: Revision) -> Result<Vec<MetaEvent>, Refused> {
        for write in batch {
            match write {
                MetaWrite::Put(record, only_if) => self.check(&record.key, only_if)?,
                MetaWrite::Delete(key, only_if) => self.check(key, only_if)?,
                _ => {
                    return Err(Refused::Batch(MetaError::Failed(
                        "a kind of write that this store does not know".into(),
                    )));
                }
            }
        }
        let mut events = Vec::with_capacity(batch.len());
        for write in batch {
            match write {
                MetaWrite::Put(record, _) => {
                    self.put.execute(params![
                        record.key.collection.as_str(),
                        &*record.key.namespace,
                        &*record.key.name,
                        record.uid.as_ref().map(Uid::as_str),
                        // All 64 bits are kept; the column is only ever read back.
                        record.version.map(|version| version.number().cast_signed()),
                        revision.0.cast_signed(),
                        &*record.value,
                    ])?;
                    events.push(MetaEvent::Put(Record { revision, ..record.clone() }));
                }
                MetaWrite::Delete(key, _)
                    if self.delete.execute(params![key.collection.as_str(), &*key.namespace, &*key.name])? > 0 =>
                {
                    events.push(MetaEvent::Deleted(key.clone(), revision));
                }
                _ => {}
            }
        }
        Ok(events)
    }

    fn check(&mut self, key: &MetaKey, only_if: &Precondition) -> Result<(), Refused> {
        if *only_if == Precondition::Always {
            return Ok(());
        }
        let found: Option<i64> = self
            .revision_of
            .query_row(params![key.collection.as_str(), &*key.namespace, &*key.name], |row| row.get(0))
            .optional()?;
        if only_if.holds(found.map(|revision| Revision(revision.cast_unsigned()))) {
            Ok(())
        } else {
            Err(Refused::Batch(MetaError::Conflict { key: key.clone() }))
        }
    }

    fn remember(&mut self, events: &[MetaEvent]) {
        for event in events {
            let MetaEvent::Deleted(key, at) = event else { continue };
            if self.tombstones.len() == TOMBSTONES
                && let Some((_, oldest)) = self.tombstones.pop_front()
            {
                self.forgotten = oldest;
            }
            self.tombstones.push_back((key.clone(), *at));
        }
    }
}

fn revision_of(event: &MetaEvent) -> Revision {
    match event {
        MetaEvent::Put(record) => record.revision,
        MetaEvent::Deleted(_, revision) => *revision,
        _ => Revision::default(),
    }
}

fn record(select: &Selector, row: &Row<'_>) -> rusqlite::Result<Record> {
    let namespace: String = row.get(0)?;
    let name: String = row.get(1)?;
    let uid: Option<String> = row.get(2)?;
    let version: Option<i64> = row.get(3)?;
    let revision: i64 = row.get(4)?;
    let value: Vec<u8> = row.get(5)?;
    Ok(Record {
        key: MetaKey::new(select.collection.clone(), namespace, name),
        uid: uid.and_then(|uid| Uid::new(uid).ok()),
        version: version.and_then(|version| ResourceVersion::new(version.cast_unsigned())),
        value: Bytes::from(value),
        revision: Revision(revision.cast_unsigned()),
    })
}
