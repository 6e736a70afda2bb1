//! The ledger in a file of this machine.

mod table;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use kubeedge_core::names::NodeName;
use tokio::sync::{mpsc, oneshot};

use self::writer::Command;
use super::ledger::{LedgerEntry, LedgerError, SyncLedger};

/// Calls that may wait for the database; a further one waits for a place.
const QUEUE: usize = 1024;

/// Why a [`SqliteLedger`] cannot be opened. Damage is no reason: see [`SqliteLedger::open`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteLedgerError {
    /// Another process, or another part of this one, has it open. Each cloud needs its own.
    #[error("ledger {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened, written or moved aside.
    #[error("ledger {} cannot be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A later version of this program wrote it; nothing was touched.
    #[error("ledger {} has layout {found}, and only {known} and earlier are known", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
        /// The last layout that is known.
        known: i64,
    },
    /// The writer thread cannot be started.
    #[error("writer thread of the ledger cannot be started")]
    Thread(#[source] std::io::Error),
}

/// The ledger in a SQLite database, for a cloud that is alone with its API: other clouds do not see these records. Cheap to
/// clone; the database is closed when the last clone is dropped.
///
/// One thread owns the database. Calls wait in a bounded queue, and those that wait together share a commit. A record that
/// was answered survives the death of the process and a power cut.
#[derive(Clone)]
pub struct SqliteLedger {
    commands: mpsc::Sender<Command>,
    path: PathBuf,
}

impl SqliteLedger {
    /// Opens the database at `path`; its folder is created if it is missing.
    ///
    /// A damaged file is moved aside (`.corrupt` is added to its name, and an older one of that name is replaced), told as a
    /// warning, and an empty ledger takes its place. So is one that turns out to be damaged later. Nodes are then sent
    /// everything again, which does no harm; only what was deleted while a node was away may stay there. A single record
    /// that does not match its checksum counts as absent.
    ///
    /// # Errors
    /// [`SqliteLedgerError`], when an operator has to do something about it.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, SqliteLedgerError> {
        let path = path.as_ref().to_owned();
        let (commands, queue) = mpsc::channel(QUEUE);
        let (opened, answer) = oneshot::channel();
        writer::spawn(path.clone(), queue, opened)?;
        let unusable = |why: &str| SqliteLedgerError::Unusable { path: path.clone(), why: why.to_owned() };
        answer.await.map_err(|_| unusable("its thread has ended"))??;
        Ok(Self { commands, path })
    }

    async fn call<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> Command,
    ) -> Result<T, LedgerError> {
        let (answer, result) = oneshot::channel();
        let closed = || LedgerError::Unavailable("the ledger is closed".into());
        self.commands.send(command(answer)).await.map_err(|_| closed())?;
        result.await.map_err(|_| closed())?
    }
}

/// A dropped call may or may not take effect.
#[async_trait]
impl SyncLedger for SqliteLedger {
    async fn list(&self, node: &NodeName) -> Result<Vec<LedgerEntry>, LedgerError> {
        self.call(|answer| Command::List(node.clone(), answer)).await
    }

    async fn record(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.call(|answer| Command::Record(node.clone(), Box::new(entry.clone()), answer)).await
    }

    async fn forget(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.call(|answer| Command::Forget(node.clone(), entry.uid.clone(), answer)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeName>, LedgerError> {
        self.call(Command::Nodes).await
    }
}

impl fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLedger").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "sqlite_ledger/tests.rs"]
mod tests;
