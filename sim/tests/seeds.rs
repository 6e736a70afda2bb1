//! Seeds: 1,000 unless the environment says otherwise.
//!
//! * `KUBEEDGE_SIM_SEEDS=20000` plays so many.
//! * `KUBEEDGE_SIM_SEED=123` plays that one and shows its history; with `KUBEEDGE_SIM_LOG=debug`, also what the parts say.

use std::fmt::Write as _;

use kubeedge_sim::{Outcome, Scenario, run};

const SEEDS: u64 = 1000;
/// Tests that share the seeds among them, for runners that run tests side by side.
const PARTS: u64 = 8;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// `KUBEEDGE_SIM_LOG=debug` shows what the parts say; by default only the history is shown.
fn tracing_level() -> tracing_subscriber::filter::LevelFilter {
    let level = std::env::var("KUBEEDGE_SIM_LOG").ok().and_then(|level| level.parse().ok());
    level.unwrap_or(tracing_subscriber::filter::LevelFilter::OFF)
}

fn complaint(seed: u64, outcome: &Outcome) -> String {
    let mut text = format!("seed {seed}:\n");
    for violation in outcome.violations.iter().take(20) {
        let _ = writeln!(text, "  {violation}");
    }
    let file = format!("{}/seed-{seed}.history", env!("CARGO_TARGET_TMPDIR"));
    let history: Vec<String> = outcome.history.iter().map(ToString::to_string).collect();
    if std::fs::write(&file, history.join("\n")).is_ok() {
        let _ = writeln!(text, "history: {file}");
    }
    let _ = writeln!(text, "replay: KUBEEDGE_SIM_SEED={seed} cargo test -p kubeedge-sim --test seeds -- --nocapture");
    text
}

fn play(part: u64) {
    let replay = from_environment("KUBEEDGE_SIM_SEED");
    let count = from_environment("KUBEEDGE_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds = replay.map_or(0..count, |seed| seed..seed + 1).filter(|seed| seed % PARTS == part);
    let mut failed = Vec::new();
    if replay.is_some() {
        let _other_test_was_faster =
            tracing_subscriber::fmt().with_max_level(tracing_level()).without_time().try_init();
    }
    for seed in seeds {
        let scenario = Scenario::draw(seed);
        let outcome = run(&scenario);
        if replay.is_some() {
            println!("{} edges, frames take up to {:?}", scenario.edges.len(), scenario.latency);
            scenario.edges.iter().enumerate().for_each(|(edge, offered)| println!("edge-{edge} offers {offered}"));
            outcome.history.iter().for_each(|entry| println!("{entry}"));
        }
        if !outcome.violations.is_empty() {
            failed.push(complaint(seed, &outcome));
        }
    }
    assert!(failed.is_empty(), "{} seeds break a promise\n{}", failed.len(), failed[..failed.len().min(5)].join("\n"));
}

macro_rules! parts {
    ($($name:ident = $part:literal),*) => {$(
        #[test]
        fn $name() {
            play($part);
        }
    )*};
}

parts!(
    promises_hold_under_faults_1_of_8 = 0,
    promises_hold_under_faults_2_of_8 = 1,
    promises_hold_under_faults_3_of_8 = 2,
    promises_hold_under_faults_4_of_8 = 3,
    promises_hold_under_faults_5_of_8 = 4,
    promises_hold_under_faults_6_of_8 = 5,
    promises_hold_under_faults_7_of_8 = 6,
    promises_hold_under_faults_8_of_8 = 7
);
