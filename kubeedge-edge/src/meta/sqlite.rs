mod open;
mod table;
mod upstream;
mod watchers;
mod writer;

use std::path::Path;

use async_trait::async_trait;
use kubeedge_core::{
    meta::{MetaError, MetaEvent, MetaKey, MetaStore, MetaWrite, Record, Revision, Selector},
    names::UnixMillis,
    service::{BoxError, Subscription, WatchSlots},
};
use tokio::sync::{mpsc, oneshot};

pub use self::open::{Durability, SqliteError, SqliteOptions};
use self::writer::Command;

/// Requests that wait for the thread of the store; more of them wait in their callers.
const QUEUE: usize = 64;
/// Watches that may be open at a time.
const WATCHES: usize = 256;

/// A metadata store in one SQLite file, served by a thread of its own. Clones share it.
///
/// * What was acknowledged survives a power cut (unless [`Durability`] says otherwise). Commits that come together
///   share one sync of the disk, each still all or nothing.
/// * A full disk is [`MetaError::Full`]: what is stored stays readable, and deletions are tried all the same.
/// * A damaged file is found when it is opened, moved aside as `<name>.corrupt-<n>`, told as an error event, and an
///   empty store takes its place. A damage found later fails the calls that meet it.
/// * The file belongs to one store at a time; nobody else can open it meanwhile.
/// * Memory: 256 KiB of pages, and what waits in queues: 64 requests, and 256 changes of 4 MiB in all
///   per watch.
/// * A watch that starts in the past gets only the newest write of each record, and [`MetaEvent::Lagged`] first if
///   deletions since then are not known any more (they are for the last 1024 since the file was opened).
///
/// The thread ends when the last clone is dropped; [`SqliteStore::close`] waits for it.
///
/// Tables of other programs in the same file, such as those of upstream, are left alone.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    commands: mpsc::Sender<Command>,
    slots: WatchSlots,
}

impl SqliteStore {
    /// Opens or creates the store in `path`. Reads the whole file to check it, so it takes some milliseconds; may be
    /// called inside and outside of a runtime.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SqliteError> {
        Self::open_with(SqliteOptions::new(path))
    }

    /// As [`SqliteStore::open`], with other settings.
    pub fn open_with(options: SqliteOptions) -> Result<Self, SqliteError> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let path = options.path.clone();
        let failed = |source: BoxError| SqliteError::Failed { path: path.clone(), source };
        let (opened, outcome) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("kubeedge-meta".into())
            .stack_size(512 * 1024)
            .spawn(move || writer::run(&options, queue, &opened))
            .map_err(|error| failed(error.into()))?;
        outcome.recv().map_err(|error| failed(error.into()))??;
        Ok(Self { commands, slots: WatchSlots::new(WATCHES) })
    }

    /// Writes the log back into the file and closes it; every later call on any clone is [`MetaError::Closed`].
    ///
    /// # Cancel safety
    /// The store closes even if the future is dropped once it was polled.
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).await.is_ok() {
            // An error means that the thread has ended, which is what we wait for.
            let _ = closed.await;
        }
    }

    /// Takes over what an EdgeCore in Go has left in the same file: the objects that the cloud has sent it, and the twins of
    /// its devices, of which the cloud is told. Gives how many records that were.
    ///
    /// It is done once, as the first thing in a new store: later calls do nothing. The tables of EdgeCore stay as they are,
    /// so there is a way back. Not taken over are tokens of service accounts, which are asked for anew, and what is about
    /// routes of the cloud's rules.
    ///
    /// # Errors
    /// Those of the store; nothing was taken over then.
    ///
    /// # Cancel safety
    /// All is taken over, or nothing.
    pub async fn import_upstream(&self, now: UnixMillis) -> Result<usize, MetaError> {
        let Some(found) = self.call(Command::ReadUpstream).await? else { return Ok(0) };
        let writes = found.into_writes(now)?;
        let count = writes.len();
        if count > 0 {
            self.commit(writes).await?;
        }
        Ok(count)
    }

    async fn call<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, MetaError>>) -> Command,
    ) -> Result<T, MetaError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| MetaError::Closed)?;
        answer.await.map_err(|_| MetaError::Closed)?
    }
}

#[async_trait]
impl MetaStore for SqliteStore {
    async fn get(&self, key: MetaKey) -> Result<Option<Record>, MetaError> {
        self.call(|reply| Command::Get(key, reply)).await
    }

    async fn list(&self, select: Selector) -> Result<Vec<Record>, MetaError> {
        self.call(|reply| Command::List(select, reply)).await
    }

    async fn commit(&self, writes: Vec<MetaWrite>) -> Result<Revision, MetaError> {
        self.call(|reply| Command::Commit(writes, reply)).await
    }

    async fn watch(&self, select: Selector, after: Revision) -> Result<Subscription<MetaEvent>, MetaError> {
        let slot = self.slots.take().ok_or(MetaError::Busy)?;
        let watching = self.call(|reply| Command::Watch(select, after, reply)).await?;
        Ok(watching.holding(slot))
    }
}
