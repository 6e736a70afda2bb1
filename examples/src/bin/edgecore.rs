//! The edge part of KubeEdge: an assembly of the public parts of `kubeedge-edge`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use kubeedge_edge::config::{EdgeCore, EdgeCoreConfig};
use kubeedge_examples::cli;

#[derive(Parser)]
#[command(about = "The edge part of KubeEdge")]
struct Args {
    /// File with the configuration
    #[arg(long, default_value = "/etc/kubeedge/config/edgecore.yaml")]
    config: PathBuf,
    /// Number for the log level verbosity
    #[arg(long, short, default_value_t = 0)]
    v: u8,
}

// One thread: the agent waits more than it works, and each thread costs memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    cli::log(args.v);
    cli::exit_code("edgecore", run(&args).await)
}

async fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let (config, warnings) = EdgeCoreConfig::load(&args.config)?;
    for warning in warnings {
        tracing::warn!(file = %args.config.display(), "{warning}");
    }
    let edge = EdgeCore::from_config(&config)?.start().await?;
    let stopped = tokio::select! {
        asked = cli::asked_to_end() => asked.map_err(Into::into),
        why = edge.stopped() => Err(why.into()),
    };
    edge.shutdown(Duration::from_secs(2)).await?;
    stopped
}
