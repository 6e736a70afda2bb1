//! Nodes that have everything connect again.

use std::time::Duration;

use kubeedge_core::service::BoxError;
use tokio::time::{Instant, sleep};

use super::Stage;
use crate::{driver::Driver, fleet::names, options::ObjectOptions, relay::Relay};

/// For the cloud to write down what was acknowledged last.
const AWAY: Duration = Duration::from_secs(2);

pub(crate) async fn play(stage: &Stage, objects: ObjectOptions) -> Result<(), BoxError> {
    let options = &stage.options;
    let nodes = names(options, options.first, options.nodes)?;
    let driver = Driver::prepare(stage.client()?, nodes, objects).await?;
    let relay = Relay::start(options.cloud.clone()).await?;
    let fleet = stage.fleet_at(relay.address().to_string(), options.first, options.nodes).await?;
    for visit in ["first", "again"] {
        let (before, bytes) = (fleet.tally().counts(), relay.bytes());
        let start = Instant::now();
        fleet.connect();
        let connected = fleet.connected(options.patience).await;
        let settled = fleet.quiet(options.quiet, options.patience).await.duration_since(start);
        let counts = fleet.tally().counts().since(&before);
        let per_node = |count: u64| {
            f64::from(u32::try_from(count).unwrap_or(u32::MAX))
                / f64::from(u32::try_from(fleet.size()).unwrap_or(u32::MAX))
        };
        stage
            .report("reconnect")
            .with("visit", visit)
            .with("connected", connected)
            .with("objects_per_node", driver.messages() / fleet.size().max(1))
            .number("settled_seconds", settled.as_secs_f64())
            .number("messages_per_node", per_node(counts.messages()))
            .number("content_bytes_per_node", per_node(counts.bytes))
            .number("wire_bytes_up_per_node", per_node(relay.bytes().0 - bytes.0))
            .number("wire_bytes_down_per_node", per_node(relay.bytes().1 - bytes.1))
            .with("counts", counts)
            .with("failures", fleet.tally().failures())
            .print();
        fleet.disconnect(options.patience).await;
        sleep(AWAY).await;
    }
    fleet.end().await;
    if objects.keep { Ok(()) } else { driver.clean().await }
}
