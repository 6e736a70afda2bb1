//! The database: one table of objects, one of settings.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    cache::Cache,
    object::{Change, ChangeKind, Object},
};
use crate::{
    apiserver::registry::Strategy,
    sqlite::{Fault, connect},
};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS objects (
        resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
        version INTEGER NOT NULL, object BLOB NOT NULL,
        PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
";

/// Layout of the tables; a database of a later layout is not opened.
const LAYOUT: i64 = 1;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another part of this one, has the database open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a database, or a damaged one.
    #[error("{} is not a database, or is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened or written.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The database cannot be opened, read or written, for another reason.
    #[error("database failed")]
    Database(#[from] rusqlite::Error),
    /// The database was written by a later version of this program.
    #[error("database has layout {found}, and only {LAYOUT} and earlier are known")]
    Layout {
        /// The layout that was found.
        found: i64,
    },
    /// A stored object cannot be read.
    #[error("stored object {resource} {namespace}/{name} cannot be read")]
    Object {
        /// The resource it belongs to.
        resource: String,
        /// Its namespace, empty for a cluster-wide object.
        namespace: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The writer thread cannot be started.
    #[error("writer thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// The system has no random numbers.
    #[error("no random numbers")]
    Random,
    /// The first namespaces cannot be made.
    #[error("the first namespaces cannot be made: {0}")]
    Namespaces(String),
    /// The store was closed before it was open.
    #[error("store is closed")]
    Closed,
}

impl StoreError {
    /// The same error, with the file if the file is to blame.
    pub(super) fn at(self, path: Option<&Path>) -> Self {
        let (Self::Database(error), Some(path)) = (&self, path) else { return self };
        match Fault::of(error, path) {
            Some(Fault::InUse) => Self::InUse { path: path.to_owned() },
            Some(Fault::Damaged) => Self::Damaged { path: path.to_owned() },
            Some(Fault::Unusable(why)) => Self::Unusable { path: path.to_owned(), why },
            None => self,
        }
    }
}

/// The connection that the writer owns.
pub(super) struct Database(Connection);

impl Database {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, StoreError> {
        let connection = connect(path)?;
        connection.execute_batch(SCHEMA)?;
        let database = Self(connection);
        let layout = database.setting("layout")?.and_then(|v| String::from_utf8(v).ok()?.parse().ok());
        match layout {
            Some(found) if found > LAYOUT => return Err(StoreError::Layout { found }),
            Some(_) => {}
            None => database.put_setting("layout", LAYOUT.to_string().as_bytes())?,
        }
        Ok(database)
    }

    pub(super) fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut query = self.0.prepare("SELECT value FROM settings WHERE name = ?1")?;
        Ok(query.query_row([name], |row| row.get(0)).optional()?)
    }

    pub(super) fn put_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.0.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)", params![name, value])?;
        Ok(())
    }

    /// A secret that is made at first use.
    pub(super) fn secret(&self, name: &str) -> Result<String, StoreError> {
        if let Some(known) = self.setting(name)?.and_then(|v| String::from_utf8(v).ok()) {
            return Ok(known);
        }
        let made = random_token().map_err(|_| StoreError::Random)?;
        self.put_setting(name, made.as_bytes())?;
        Ok(made)
    }

    /// Reads everything into a new cache: definitions first, as they say what the rest is.
    pub(super) fn load(&self) -> Result<Cache, StoreError> {
        let version = self.setting("version")?.and_then(|v| String::from_utf8(v).ok()?.parse().ok()).unwrap_or(0);
        let mut cache = Cache::new(version);
        let builtin = cache.registry().clone();
        for resource in builtin.sorted() {
            if resource.strategy == Strategy::Definition {
                self.load_resource(&mut cache, resource)?;
            }
        }
        cache.refresh_registry();
        let all = cache.registry().clone();
        for resource in all.sorted() {
            if resource.strategy != Strategy::Definition {
                self.load_resource(&mut cache, resource)?;
            }
        }
        Ok(cache)
    }

    fn load_resource(
        &self,
        cache: &mut Cache,
        resource: &Arc<crate::apiserver::registry::Resource>,
    ) -> Result<(), StoreError> {
        let mut query = self.0.prepare("SELECT namespace, name, version, object FROM objects WHERE resource = ?1")?;
        let mut rows = query.query([&*resource.id])?;
        while let Some(row) = rows.next()? {
            let json: Vec<u8> = row.get(3)?;
            let value = match serde_json::from_slice(&json) {
                Ok(value) => value,
                Err(source) => {
                    let resource = resource.id.to_string();
                    return Err(StoreError::Object { resource, namespace: row.get(0)?, name: row.get(1)?, source });
                }
            };
            let version = row.get::<_, i64>(2)?.unsigned_abs();
            cache.load(&resource.id, Arc::new(Object::new(&value, version, &resource.fields)));
        }
        Ok(())
    }

    /// Makes the changes durable, all or none.
    pub(super) fn commit(&mut self, changes: &[Arc<Change>], version: u64) -> Result<(), StoreError> {
        let transaction = self.0.transaction()?;
        {
            let mut put = transaction.prepare(
                "INSERT OR REPLACE INTO objects (resource, namespace, name, version, object) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            let mut delete =
                transaction.prepare("DELETE FROM objects WHERE resource = ?1 AND namespace = ?2 AND name = ?3")?;
            for change in changes {
                let Object { key, version, json, .. } = &*change.object;
                let place = (&*change.resource.id, &*key.namespace, &*key.name);
                if change.kind == ChangeKind::Deleted {
                    delete.execute(params![place.0, place.1, place.2])?;
                } else {
                    put.execute(params![place.0, place.1, place.2, version.cast_signed(), &json[..]])?;
                }
            }
            let mut set =
                transaction.prepare("INSERT OR REPLACE INTO settings (name, value) VALUES ('version', ?1)")?;
            set.execute([version.to_string().into_bytes()])?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// 32 random bytes as text.
fn random_token() -> Result<String, ring::error::Unspecified> {
    use base64::Engine as _;
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut bytes)?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_may_only_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.db");
        drop(Database::open(Some(&path)).unwrap());
        // Root may write to any file, so this connection is one that must not.
        let connection = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let error = Database(connection).put_setting("a", b"b").unwrap_err().at(Some(&path));
        assert_eq!(error.to_string(), format!("{} cannot be used: it may not be written", path.display()));
    }
}
