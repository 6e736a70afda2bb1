//! One command: a cloud, an edge node, a Modbus device and a workload, working together.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use kubeedge_examples::{
    cli,
    quickstart::{Ended, Options, Screen, StepFailed, Tour},
};
use tracing::Level;

#[derive(Parser)]
#[command(about = "A cloud, an edge node, a Modbus device and a workload in one process")]
struct Args {
    /// Folder of the data [default: a fresh temporary folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder with boiler.yaml and greeter.yaml [default: those of examples/manifests, built in]
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// End after the tour: 0 if every step was seen to work
    #[arg(long)]
    once: bool,
    /// Log what the parts do
    #[arg(long, short)]
    verbose: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    cli::log_at(if args.verbose { Level::INFO } else { Level::ERROR });
    let options = Options { data: args.data, manifests: args.manifests };
    let screen = Screen::stdout();
    let tour = tokio::select! {
        tour = Tour::start(&options) => tour,
        _ = cli::asked_to_end() => return ExitCode::FAILURE,
    };
    let mut tour = match tour {
        Ok(tour) => tour,
        Err(failed) => return failure(screen, &failed),
    };
    let walked = tokio::select! {
        walked = tour.walk(&options) => Some(walked),
        _ = cli::asked_to_end() => None,
    };
    if !args.once && matches!(walked, Some(Ok(_))) {
        tour.suggest();
        screen.title("It stays up until Ctrl-C.");
        // Without signals there is nobody to wait for.
        let _ = cli::asked_to_end().await;
    }
    tour.stop().await;
    match walked {
        Some(Ok(Ended { took })) => {
            screen.title(&format!("quickstart: ok in {:.1} s", took.as_secs_f64()));
            ExitCode::SUCCESS
        }
        Some(Err(failed)) => failure(screen, &failed),
        None => ExitCode::FAILURE,
    }
}

fn failure(screen: Screen, failed: &StepFailed) -> ExitCode {
    screen.failure(&format!("quickstart: {failed}"));
    ExitCode::FAILURE
}
