//! `fleet`: thousands of light edges in one process, to measure a cloud with.

mod credentials;
mod driver;
mod edge;
mod fleet;
mod gate;
mod ledger;
mod options;
mod probe;
mod process;
mod relay;
mod report;
mod samples;
mod scenario;
mod shelf;
mod tally;
mod uplink;

use std::process::ExitCode;

use clap::Parser as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use kubeedge_core::service::BoxError;

use self::{
    options::{FleetOptions, Options},
    scenario::Stage,
};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("fleet: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), BoxError> {
    let client = client(&options.fleet).await?;
    let stage = Stage::open(options.fleet, client).await?;
    scenario::play(&stage, options.scenario).await
}

async fn client(options: &FleetOptions) -> Result<Option<Client>, BoxError> {
    let Some(path) = &options.kubeconfig else { return Ok(None) };
    let file = Kubeconfig::read_from(path)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Some(Client::try_from(config)?))
}
