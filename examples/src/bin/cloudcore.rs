//! The cloud part of KubeEdge: an assembly of the public parts of `kubeedge-cloud`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use kubeedge_cloud::{cloud::CloudCore, config::CloudCoreConfig};
use kubeedge_examples::cli;

#[derive(Parser)]
#[command(about = "The cloud part of KubeEdge")]
struct Args {
    /// File with the configuration
    #[arg(long, default_value = "/etc/kubeedge/config/cloudcore.yaml")]
    config: PathBuf,
    /// Number for the log level verbosity
    #[arg(long, short, default_value_t = 0)]
    v: u8,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    cli::log(args.v);
    cli::raise_open_files();
    cli::exit_code("cloudcore", run(&args).await)
}

async fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let (config, warnings) = CloudCoreConfig::load(&args.config)?;
    for warning in warnings {
        tracing::warn!(file = %args.config.display(), "{warning}");
    }
    let cloud = CloudCore::from_config(&config).spawn().await?;
    tracing::info!(websocket = %cloud.websocket_addr(), https = %cloud.https_addr(), "cloudcore is up");
    let stopped = tokio::select! {
        asked = cli::asked_to_end() => asked.map_err(Into::into),
        why = cloud.stopped() => Err(why.into()),
    };
    cloud.shutdown(Duration::from_secs(2)).await;
    stopped
}
