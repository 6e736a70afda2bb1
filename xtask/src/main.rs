//! Chores of the workspace. `cargo xtask size` builds the release binaries and measures what they take.

use std::{
    env,
    process::{Command, ExitCode},
};

const USAGE: &str =
    "usage: cargo xtask size    build edgecore and cloudcore for release, print size, memory and start time";

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some("size") {
        return size();
    }
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Runs the footprint example over the release binaries, as that one knows how to start them.
fn size() -> ExitCode {
    let bins = ["--bin", "cloudcore", "--bin", "edgecore", "--bin", "footprint"];
    let built = cargo(&["build", "--release", "--package", "kubeedge-examples"], &bins);
    if !built {
        return ExitCode::FAILURE;
    }
    let measured = cargo(&["run", "--quiet", "--release", "--package", "kubeedge-examples", "--bin", "footprint"], &[]);
    if measured { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cargo(args: &[&str], more: &[&str]) -> bool {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    match Command::new(program).args(args).args(more).status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("cannot run cargo: {error}");
            false
        }
    }
}
