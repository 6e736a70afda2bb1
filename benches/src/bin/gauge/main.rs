//! Measures an edge node with devices: `gauge --help`.

mod node;
mod polls;
#[path = "../fleet/process.rs"]
mod process;
#[path = "../fleet/samples.rs"]
mod samples;
mod server;
mod twins;

use clap::{Parser, Subcommand};
use kubeedge_core::service::BoxError;

/// Measures an edge node with devices, without a cloud: its store is SQLite on a disk, its broker and its drivers are the
/// real ones. Prints one JSON object.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Twin updates over MQTT: time from update to result, and how many are durable per second
    Twins(twins::Options),
    /// Modbus registers that are polled: CPU time and memory of this process, which is the agent
    Polls(polls::Options),
    /// The Modbus server of `polls`, in a process of its own
    Server(server::Options),
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    match Options::parse().scenario {
        Scenario::Twins(options) => twins::run(options).await,
        Scenario::Polls(options) => polls::run(options).await,
        Scenario::Server(options) => server::run(options).await,
    }
}
