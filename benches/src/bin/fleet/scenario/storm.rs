//! All connect as fast as they may, and perhaps stay.

use std::time::Duration;

use kubeedge_core::service::BoxError;
use tokio::time::{Instant, sleep};

use super::Stage;
use crate::edge::Manner;

/// For the memory of the cloud to settle after all are gone.
const AFTERWARDS: Duration = Duration::from_secs(5);

pub(crate) async fn play(stage: &Stage, hold: Option<Duration>) -> Result<(), BoxError> {
    let options = &stage.options;
    let fleet = stage.fleet(options.first, options.nodes, Manner::Good, Duration::ZERO).await?;
    let before = stage.server()?;
    let start = Instant::now();
    fleet.connect();
    let connected = fleet.connected(options.patience).await;
    let all_connected = start.elapsed();
    let handshakes = fleet.tally().handshakes.take();
    let open = stage.server()?;
    let settled = fleet.quiet(options.quiet, options.patience).await.duration_since(start);

    let dialed = fleet.tally().counts().dialed;
    let per_second = f64::from(u32::try_from(connected)?) / all_connected.as_secs_f64();
    let mut report = stage
        .report(if hold.is_some() { "idle" } else { "storm" })
        .with("connected", connected)
        .number("seconds", all_connected.as_secs_f64())
        .number("sessions_per_second", per_second)
        .number("settled_seconds", settled.as_secs_f64())
        .with("handshake_ms", handshakes);
    if let (Some(before), Some(open)) = (before, open) {
        let cpu = open.cpu_since(&before).as_secs_f64() * 1000.0 / f64::from(u32::try_from(dialed.max(1))?);
        report = report.number("server_cpu_ms_per_session", cpu);
    }
    if let Some(hold) = hold {
        let (counts, cpu) = (fleet.tally().counts(), stage.server()?);
        sleep(hold).await;
        let counts = fleet.tally().counts().since(&counts);
        report = report.with("while_idle", counts);
        if let (Some(then), Some(now)) = (cpu, stage.server()?) {
            report =
                report.number("server_cpu_percent", 100.0 * now.cpu_since(&then).as_secs_f64() / hold.as_secs_f64());
        }
    }
    if let (Some(before), Some(now)) = (before, stage.server()?) {
        report = report
            .with("server_before", before)
            .with("server_now", now)
            .number("kib_per_session", now.per_session(&before, fleet.size()));
    }
    report = report.with("counts", fleet.tally().counts()).with("failures", fleet.tally().failures());
    let leaving = Instant::now();
    fleet.end().await;
    report = report.number("leave_seconds", leaving.elapsed().as_secs_f64());
    if hold.is_some() {
        sleep(AFTERWARDS).await;
        report = report.with("server_after", stage.server()?);
    }
    report.print();
    Ok(())
}
