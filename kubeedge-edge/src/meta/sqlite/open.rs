use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use kubeedge_core::service::BoxError;
use rusqlite::{Connection, ErrorCode};

/// What a store has promised when it acknowledges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// It survives a power cut: the disk is synced for every group of commits.
    #[default]
    PowerCut,
    /// It survives a crash of the process; a power cut may take the last seconds, and the cloud is not told. Only for
    /// disks that wear out quickly and a cloud that can be asked again.
    Crash,
}

/// How a [`SqliteStore`](super::SqliteStore) is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub(super) path: PathBuf,
    durability: Durability,
    busy: Duration,
    max_pages: Option<u32>,
}

impl SqliteOptions {
    /// The file at `path`; its folder is created if it is missing.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            durability: Durability::PowerCut,
            busy: Duration::from_secs(5),
            max_pages: None,
        }
    }

    /// What an acknowledgement promises; default: that the write survives a power cut.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long to wait for a store that still closes the same file; default 5 s.
    pub fn wait_for_lock(mut self, wait: Duration) -> Self {
        self.busy = wait;
        self
    }

    /// Lets the file grow to so many bytes (in steps of 4096) and no further: then it is full. Default: no limit.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_pages = Some(u32::try_from(bytes / 4096).unwrap_or(u32::MAX).max(16));
        self
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteError {
    /// Another store, in this process or another, has the file open.
    #[error("{} is in use by another store", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of this program wrote it; nothing was touched.
    #[error("{} has schema {found}, this version knows up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest that we know.
        known: u32,
    },
    /// The file or its folder cannot be used.
    #[error("cannot open {}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
}

/// Each step takes the schema from its index to the next version; never change one that was released.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE kubeedge_record (
        collection TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        uid TEXT,
        version INTEGER,
        revision INTEGER NOT NULL,
        value BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX kubeedge_record_key ON kubeedge_record (collection, namespace, name);
    CREATE TABLE kubeedge_revision (reserved INTEGER NOT NULL) STRICT;
    INSERT INTO kubeedge_revision (reserved) VALUES (0);
    CREATE TABLE kubeedge_schema (version INTEGER NOT NULL) STRICT;
    INSERT INTO kubeedge_schema (version) VALUES (1);
"];

/// Opens the file; a damaged one is moved aside first.
pub(super) fn open(options: &SqliteOptions) -> Result<Connection, SqliteError> {
    let path = &options.path;
    let failed = |source: BoxError| SqliteError::Failed { path: path.clone(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
    }
    match try_open(options) {
        Err(Fault::Damaged(what)) => {
            let aside = move_aside(path).map_err(|error| failed(error.into()))?;
            tracing::error!(
                file = %path.display(), kept_as = %aside.display(), what,
                "metadata store is damaged: moved aside, starting with an empty one; the cloud has to send everything anew"
            );
            try_open(options)
        }
        opened => opened,
    }
    .map_err(|fault| match fault {
        Fault::Damaged(what) => failed(what.into()),
        Fault::InUse => SqliteError::InUse { path: path.clone() },
        Fault::Newer { found } => {
            SqliteError::Newer { path: path.clone(), found, known: u32::try_from(MIGRATIONS.len()).unwrap_or(0) }
        }
        Fault::Failed(error) => failed(error.into()),
    })
}

enum Fault {
    Damaged(String),
    InUse,
    Newer { found: u32 },
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse,
            _ => Self::Failed(error),
        }
    }
}

fn try_open(options: &SqliteOptions) -> Result<Connection, Fault> {
    let mut connection = Connection::open(&options.path)?;
    connection.busy_timeout(options.busy)?;
    // Exclusive before the log is first used: then its index lies in our memory and needs no shared file.
    connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    let synchronous = match options.durability {
        Durability::PowerCut => "FULL",
        Durability::Crash => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -256)?;
    connection
        .pragma_update_and_check(None, "mmap_size", 0, |_| Ok(()))
        .or_else(|error| if error == rusqlite::Error::QueryReturnedNoRows { Ok(()) } else { Err(error) })?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // The log is written back after 4 MiB, so that what changes often wears the disk once, and then shrinks again.
    connection.pragma_update_and_check(None, "journal_size_limit", 1024 * 1024, |_| Ok(()))?;
    if let Some(pages) = options.max_pages {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Fault::Damaged(verdict));
    }
    migrate(&mut connection)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), Fault> {
    // Our own table rather than `user_version`: the file may belong to others, too.
    let known: bool = connection.query_row(
        "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = 'kubeedge_schema'",
        [],
        |row| row.get(0),
    )?;
    let version: u32 =
        if known { connection.query_row("SELECT version FROM kubeedge_schema", [], |row| row.get(0))? } else { 0 };
    let Some(steps) = MIGRATIONS.get(version as usize..) else { return Err(Fault::Newer { found: version }) };
    if !steps.is_empty() {
        let transaction = connection.transaction()?;
        for step in steps {
            transaction.execute_batch(step)?;
        }
        transaction.commit()?;
    }
    Ok(())
}

/// Renames the file and its log to the first name that is free.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mut count = 1;
    let tag = loop {
        let tag = format!(".corrupt-{count}");
        if !with(&tag).exists() {
            break tag;
        }
        count += 1;
    };
    fs::rename(path, with(&tag))?;
    for part in ["-wal", "-journal"] {
        match fs::rename(with(part), with(&format!("{tag}{part}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_file(with("-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok(with(&tag))
}
