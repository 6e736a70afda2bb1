//! The thread that owns the database.

use std::path::{Path, PathBuf};

use kubeedge_core::names::{NodeName, Uid};
use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::{SqliteLedgerError, table};
use crate::{
    sqlite::Fault,
    sync::{LedgerEntry, LedgerError},
};

/// Calls that share one commit at most.
const BATCH: usize = 128;

type Answer<T> = oneshot::Sender<Result<T, LedgerError>>;

/// A call.
pub(super) enum Command {
    List(NodeName, Answer<Vec<LedgerEntry>>),
    Nodes(Answer<Vec<NodeName>>),
    Record(NodeName, Box<LedgerEntry>, Answer<()>),
    Forget(NodeName, Uid, Answer<()>),
}

/// What came of a call.
enum Outcome {
    Entries(Vec<LedgerEntry>),
    Nodes(Vec<NodeName>),
    Done,
}

pub(super) fn spawn(
    path: PathBuf,
    commands: mpsc::Receiver<Command>,
    opened: oneshot::Sender<Result<(), SqliteLedgerError>>,
) -> Result<(), SqliteLedgerError> {
    let run = move || match table::open(&path) {
        Err(err) => drop(opened.send(Err(err))),
        Ok(connection) => {
            if opened.send(Ok(())).is_ok() {
                serve(&path, connection, commands);
            }
        }
    };
    std::thread::Builder::new().name("sync-ledger".to_owned()).spawn(run).map_err(SqliteLedgerError::Thread)?;
    Ok(())
}

/// Ends when the last handle is dropped.
fn serve(path: &Path, connection: Connection, mut commands: mpsc::Receiver<Command>) {
    let mut database = Some(connection);
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = commands.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH
            && let Ok(command) = commands.try_recv()
        {
            batch.push(command);
        }
        // After damage; what is wrong then is tried anew with each batch.
        if database.is_none() {
            database = table::open(path).inspect_err(|err| tracing::error!(%err, "ledger cannot be opened")).ok();
        }
        let outcomes = match &mut database {
            Some(connection) => run(connection, &batch),
            None => Err(rusqlite::Error::InvalidPath(path.to_owned())),
        };
        match outcomes {
            Ok(outcomes) => batch.drain(..).zip(outcomes).for_each(|(command, outcome)| command.answer(outcome)),
            Err(err) => {
                if Fault::of(&err, path) == Some(Fault::Damaged) {
                    database = None;
                }
                let why = err.to_string();
                batch.drain(..).for_each(|command| command.fail(&why));
            }
        }
    }
}

/// Carries out the calls in one transaction; after a failure none of them has taken effect.
fn run(connection: &mut Connection, batch: &[Command]) -> rusqlite::Result<Vec<Outcome>> {
    let transaction = connection.transaction()?;
    let outcomes = batch.iter().map(|command| command.run(&transaction)).collect::<rusqlite::Result<_>>()?;
    transaction.commit()?;
    Ok(outcomes)
}

impl Command {
    fn run(&self, transaction: &Transaction<'_>) -> rusqlite::Result<Outcome> {
        Ok(match self {
            Self::List(node, _) => Outcome::Entries(table::list(transaction, node)?),
            Self::Nodes(_) => Outcome::Nodes(table::nodes(transaction)?),
            Self::Record(node, entry, _) => {
                table::record(transaction, node, entry)?;
                Outcome::Done
            }
            Self::Forget(node, uid, _) => {
                table::forget(transaction, node.as_str(), uid.as_str())?;
                Outcome::Done
            }
        })
    }

    /// The caller may have gone.
    fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::List(_, answer), Outcome::Entries(entries)) => drop(answer.send(Ok(entries))),
            (Self::Nodes(answer), Outcome::Nodes(nodes)) => drop(answer.send(Ok(nodes))),
            (Self::Record(_, _, answer) | Self::Forget(_, _, answer), Outcome::Done) => drop(answer.send(Ok(()))),
            // Each outcome is that of its own call.
            (command, _) => command.fail("not an answer to this call"),
        }
    }

    fn fail(self, why: &str) {
        let failed = || LedgerError::Unavailable(why.into());
        match self {
            Self::List(_, answer) => drop(answer.send(Err(failed()))),
            Self::Nodes(answer) => drop(answer.send(Err(failed()))),
            Self::Record(_, _, answer) | Self::Forget(_, _, answer) => drop(answer.send(Err(failed()))),
        }
    }
}
