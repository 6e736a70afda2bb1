//! Databases that one thread of one process owns.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode};

/// How long another process may hold the database while it is opened.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What an operator can do something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Another process, or another part of this one, has it open.
    InUse,
    /// It is not a database, or a damaged one.
    Damaged,
    /// It cannot be opened or written, for this reason.
    Unusable(&'static str),
}

impl Fault {
    /// What `error` tells of the database at `path`.
    pub(crate) fn of(error: &rusqlite::Error, path: &Path) -> Option<Self> {
        Some(match error.sqlite_error_code()? {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::InUse,
            ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => Self::Damaged,
            ErrorCode::CannotOpen if path.is_dir() => Self::Unusable("it is a folder"),
            ErrorCode::CannotOpen if path.parent().is_some_and(is_absent) => {
                Self::Unusable("its folder does not exist")
            }
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => Self::Unusable("it may not be opened"),
            ErrorCode::ReadOnly => Self::Unusable("it may not be written"),
            ErrorCode::DiskFull => Self::Unusable("the disk is full"),
            ErrorCode::SystemIoFailure => Self::Unusable("reading or writing it failed"),
            _ => return None,
        })
    }
}

fn is_absent(folder: &Path) -> bool {
    // A path without a folder is one in the working directory.
    !folder.as_os_str().is_empty() && !folder.exists()
}

/// Opens the database for this connection alone, so that each commit survives a power cut; in memory without a path.
pub(crate) fn connect(path: Option<&Path>) -> rusqlite::Result<Connection> {
    let connection = match path {
        Some(path) => Connection::open(path)?,
        None => Connection::open_in_memory()?,
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A second process on the same file would not see what this one keeps in memory.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // With WAL, only FULL makes each commit survive a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}
