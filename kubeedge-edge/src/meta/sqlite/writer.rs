//! The thread that owns the file.

use std::sync::mpsc::SyncSender;

use kubeedge_core::{
    meta::{MetaError, MetaEvent, MetaKey, MetaWrite, Record, Revision, Selector},
    service::Subscription,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    open::{self, SqliteError, SqliteOptions},
    table::Table,
    upstream::Upstream,
    watchers::Watchers,
};

/// Commits that share one sync of the disk at most.
const GROUP: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, MetaError>>;

pub(super) enum Command {
    Get(MetaKey, Reply<Option<Record>>),
    List(Selector, Reply<Vec<Record>>),
    Commit(Vec<MetaWrite>, Reply<Revision>),
    Watch(Selector, Revision, Reply<Subscription<MetaEvent>>),
    ReadUpstream(Reply<Option<Upstream>>),
    Close(oneshot::Sender<()>),
}

/// Opens the file, tells `opened` how that went, and serves commands until the store is closed or dropped.
pub(super) fn run(
    options: &SqliteOptions,
    mut commands: mpsc::Receiver<Command>,
    opened: &SyncSender<Result<(), SqliteError>>,
) {
    let failed = |error: rusqlite::Error| SqliteError::Failed { path: options.path.clone(), source: error.into() };
    let connection = match open::open(options) {
        Ok(connection) => connection,
        Err(error) => return tell(opened, Err(error)),
    };
    let closed = match Table::new(&connection) {
        Ok(table) => {
            tell(opened, Ok(()));
            serve(table, &mut commands)
        }
        Err(error) => return tell(opened, Err(failed(error))),
    };
    // From here on callers are told that the store is closed.
    drop(commands);
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        tracing::warn!(%error, "log of the metadata store was not written back; that is done at the next start");
    }
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "metadata store was not closed in order");
    }
    if let Some(closed) = closed {
        let _ = closed.send(());
    }
}

fn tell(opened: &SyncSender<Result<(), SqliteError>>, outcome: Result<(), SqliteError>) {
    // Whoever opens waits for this; if the process ends meanwhile there is nobody to tell.
    let _ = opened.send(outcome);
}

/// Serves in order of arrival: what is read is what was committed before. Ends with whom to tell, if somebody asked.
fn serve(mut table: Table<'_>, commands: &mut mpsc::Receiver<Command>) -> Option<oneshot::Sender<()>> {
    let mut watchers = Watchers::default();
    let mut next = None;
    while let Some(command) = next.take().or_else(|| commands.blocking_recv()) {
        // A caller that is gone needs no answer.
        match command {
            Command::Get(key, reply) => drop(reply.send(table.get(&key))),
            Command::List(select, reply) => drop(reply.send(table.list(&select))),
            Command::Watch(select, after, reply) => {
                let missed = table.since(&select, after);
                drop(reply.send(missed.map(|missed| watchers.add(select, missed))));
            }
            Command::ReadUpstream(reply) => drop(reply.send(table.upstream())),
            Command::Commit(writes, reply) => {
                let (mut batches, mut replies) = (vec![writes], vec![reply]);
                while batches.len() < GROUP && next.is_none() {
                    match commands.try_recv() {
                        Ok(Command::Commit(writes, reply)) => {
                            batches.push(writes);
                            replies.push(reply);
                        }
                        Ok(other) => next = Some(other),
                        Err(_) => break,
                    }
                }
                for (result, reply) in table.commit(&batches).into_iter().zip(replies) {
                    let revision = result.map(|committed| {
                        watchers.tell(&committed.events);
                        committed.revision
                    });
                    drop(reply.send(revision));
                }
            }
            Command::Close(reply) => return Some(reply),
        }
    }
    None
}
