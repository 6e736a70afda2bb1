//! What the binaries have in common: they own the process, so log subscriber and signals are theirs.

use std::{io::IsTerminal as _, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;

use crate::one_line;

/// Lets the process open as many files and sockets as the system allows it to, as Go programs do: the soft limit is for
/// programs of old that could not count beyond it.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, "limit of open files stays as it is");
    }
}

/// Installs the log subscriber: lines on standard error, more of them with each step of `verbosity` (as klog's `--v`).
pub fn log(verbosity: u8) {
    let level = match verbosity {
        0 | 1 => Level::INFO,
        2..=4 => Level::DEBUG,
        _ => Level::TRACE,
    };
    log_at(level);
}

/// Installs the log subscriber at `level`.
pub fn log_at(level: Level) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Resolves when the process is asked to end.
///
/// # Errors
/// When the signals cannot be watched.
pub async fn asked_to_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

/// How the program `name` ends: a failure is told on standard error, in a line.
pub fn exit_code(name: &str, outcome: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", one_line(&*error));
            ExitCode::FAILURE
        }
    }
}
