//! Objects are written, and arrive at the nodes that need them.

use std::{collections::HashSet, time::Duration};

use kubeedge_core::service::BoxError;
use tokio::time::{Instant, sleep};

use super::Stage;
use crate::{
    driver::{Driver, NAMESPACE, Writes},
    edge::Manner,
    fleet::{Fleet, names},
    ledger::{Acknowledged, Ledger},
    options::ObjectOptions,
    samples::Samples,
};

/// How often the ledger is looked at.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn play(stage: &Stage, objects: ObjectOptions, rounds: usize) -> Result<(), BoxError> {
    let options = &stage.options;
    let client = stage.client()?;
    let nodes = names(options, options.first, options.nodes)?;
    let driver = Driver::prepare(client.clone(), nodes, objects).await?;
    let ledger = Ledger::watch(client, NAMESPACE).await;
    let fleet = stage.fleet(options.first, options.nodes, Manner::Good, Duration::ZERO).await?;
    fleet.connect();
    let connected = fleet.connected(options.patience).await;
    fleet.quiet(options.quiet, options.patience).await;
    for round in 0..rounds {
        let _earlier = (ledger.take(), fleet.tally().delivered.take());
        play_round(stage, &driver, &ledger, &fleet, round, connected).await?;
    }
    fleet.end().await;
    if objects.keep { Ok(()) } else { driver.clean().await }
}

async fn play_round(
    stage: &Stage,
    driver: &Driver,
    ledger: &Ledger,
    fleet: &Fleet,
    round: usize,
    connected: u64,
) -> Result<(), BoxError> {
    let (expected, tally) = (driver.messages(), fleet.tally());
    let (before, server) = (tally.counts(), stage.server()?);
    let start = Instant::now();
    let writes = driver.round().await?;
    let written = start.elapsed();
    let all = fleet.until(stage.options.patience, |counts| counts.since(&before).new >= expected as u64).await;
    // An object that came late counts with the time at which it came.
    let delivered = tally.last_activity().duration_since(start);
    let durable = until_durable(ledger, &writes, expected, stage.options.patience).await;
    let counts = tally.counts().since(&before);

    let per_second = |count: u64, time: Duration| {
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / time.as_secs_f64().max(f64::EPSILON)
    };
    let nodes = f64::from(u32::try_from(fleet.size())?);
    let durable_time = durable.last.map_or(Duration::ZERO, |last| last.duration_since(start));
    let mut report = stage
        .report("downlink")
        .with("round", round)
        .with("connected", connected)
        .with("expected", expected)
        .with("delivered", counts.new)
        .with("all_delivered", all)
        .number("write_seconds", written.as_secs_f64())
        .number("deliver_seconds", delivered.as_secs_f64())
        .number("delivered_per_second", per_second(counts.new, delivered))
        .number("delivered_per_second_and_node", per_second(counts.new, delivered) / nodes)
        .with("write_to_edge_ms", tally.delivered.take())
        .with("durable", durable.records.len())
        .number("durable_seconds", durable_time.as_secs_f64())
        .number("durable_per_second", per_second(durable.records.len() as u64, durable_time))
        .with("write_to_durable_ms", durable.latencies.take());
    if let (Some(before), Some(now)) = (server, stage.server()?) {
        let cpu = now.cpu_since(&before).as_secs_f64() * 1e6 / f64::from(u32::try_from(expected.max(1))?);
        report = report.number("server_cpu_us_per_message", cpu).with("server_now", now);
    }
    report.with("counts", counts).with("failures", tally.failures()).print();
    Ok(())
}

#[derive(Default)]
struct Durable {
    records: HashSet<String>,
    latencies: Samples,
    last: Option<Instant>,
}

/// Waits until so many records of this round are written.
async fn until_durable(ledger: &Ledger, writes: &Writes, expected: usize, patience: Duration) -> Durable {
    let (end, mut durable) = (Instant::now() + patience, Durable::default());
    loop {
        for Acknowledged { record, object, version, at } in ledger.take() {
            if let Some(begun) = writes.get(&(object, version))
                && durable.records.insert(record)
            {
                durable.latencies.add(at.duration_since(*begun));
                durable.last = durable.last.max(Some(at));
            }
        }
        if durable.records.len() >= expected || Instant::now() >= end {
            return durable;
        }
        sleep(LOOK).await;
    }
}
