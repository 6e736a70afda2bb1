//! Some peers do harm; what do the others notice?

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::SinkExt as _;
use kubeedge_core::{
    service::BoxError,
    transport::{CloudEndpoint, Transport as _},
};
use kubeedge_edge::hub::WebSocket;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, lookup_host},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Stage;
use crate::{
    driver::Driver,
    edge::Manner,
    fleet::{Fleet, names},
    options::{HostileOptions, ObjectOptions},
    samples::{Quantiles, Samples},
};

/// Between two pings of a good node.
const PING: Duration = Duration::from_millis(500);
/// Between two visitors.
const VISIT: Duration = Duration::from_millis(100);
/// Between two connections of one half-open peer.
const ANEW: Duration = Duration::from_millis(100);
/// For the cloud to answer the close of a visitor's link.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a half-open peer says: the head of a TLS record, and nothing after it.
const BEGIN: [u8; 5] = [0x16, 0x03, 0x01, 0x02, 0x00];

/// What good nodes see.
struct Seen {
    ping: Quantiles,
    dial: Quantiles,
    failed: u64,
    delivery: Quantiles,
}

pub(crate) async fn play(stage: &Stage, hostile: HostileOptions, objects: ObjectOptions) -> Result<(), BoxError> {
    let options = &stage.options;
    let bad = options.first + options.nodes;
    // The last one visits.
    let all = names(options, options.first, options.nodes + 2 * hostile.mute + 1)?;
    let driver = match &stage.client {
        Some(client) => Some(Arc::new(Driver::prepare(client.clone(), all, objects).await?)),
        None => None,
    };
    let good = stage.fleet(options.first, options.nodes, Manner::Good, PING).await?;
    good.connect();
    good.connected(options.patience).await;
    good.quiet(Duration::from_millis(200), Duration::from_secs(2)).await;
    let visitor = stage.websocket(bad + 2 * hostile.mute).await?;
    let writing = write_on(driver.clone(), &hostile);

    let calm = watch(stage, &good, &visitor, &hostile).await;
    let before = stage.server()?;
    let deaf = stage.fleet(bad, hostile.mute, Manner::NeverReads, Duration::ZERO).await?;
    let silent = stage.fleet(bad + hostile.mute, hostile.mute, Manner::NeverAcknowledges, Duration::ZERO).await?;
    for fleet in [&deaf, &silent] {
        fleet.connect();
        fleet.connected(options.patience).await;
    }
    let stop = CancellationToken::new();
    let half_open = half_open(stage, &hostile, &stop).await?;
    let attacked = watch(stage, &good, &visitor, &hostile).await;
    let during = stage.server()?;

    let ratio = |then: f64, now: f64| now / then.max(0.001);
    stage
        .report("hostile")
        .with("never_read", deaf.tally().counts().connected)
        .with("never_acknowledge", silent.tally().counts().connected)
        .with("half_open", hostile.half_open)
        .with("ping_ms_calm", calm.ping)
        .with("ping_ms_attacked", attacked.ping)
        .number("ping_p50_ratio", ratio(calm.ping.p50, attacked.ping.p50))
        .number("ping_p99_ratio", ratio(calm.ping.p99, attacked.ping.p99))
        .with("dial_ms_calm", calm.dial)
        .with("dial_ms_attacked", attacked.dial)
        .with("dials_failed", (calm.failed, attacked.failed))
        .number("dial_p50_ratio", ratio(calm.dial.p50, attacked.dial.p50))
        .with("delivery_ms_calm", calm.delivery)
        .with("delivery_ms_attacked", attacked.delivery)
        .number("delivery_p50_ratio", ratio(calm.delivery.p50, attacked.delivery.p50))
        .with("server_calm", before)
        .with("server_attacked", during)
        .with("counts", good.tally().counts())
        .with("failures", good.tally().failures())
        .print();
    stop.cancel();
    writing.cancel();
    half_open.wait().await;
    for fleet in [good, deaf, silent] {
        fleet.end().await;
    }
    match driver {
        Some(driver) if !objects.keep => driver.clean().await,
        _ => Ok(()),
    }
}

/// Writes objects for all nodes until it is cancelled.
fn write_on(driver: Option<Arc<Driver>>, hostile: &HostileOptions) -> CancellationToken {
    let (stop, pause) = (CancellationToken::new(), Duration::from_secs_f64(1.0 / hostile.writes.max(0.01)));
    if let Some(driver) = driver {
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            for object in 0.. {
                if let Err(error) = driver.write(object).await {
                    eprintln!("object not written: {error}");
                }
                sleep(pause).await;
            }
        }));
    }
    stop
}

/// What good nodes see for a while: pings of their sessions, objects, and a visitor who connects again and again.
async fn watch(stage: &Stage, good: &Fleet, visitor: &(WebSocket, CloudEndpoint), hostile: &HostileOptions) -> Seen {
    let _earlier = (good.tally().answered.take(), good.tally().delivered.take());
    let (dials, mut failed, end) = (Samples::default(), 0, Instant::now() + hostile.watch);
    while Instant::now() < end {
        let start = Instant::now();
        match tokio::time::timeout(stage.options.patience, visitor.0.dial(visitor.1.clone())).await {
            Ok(Ok(mut link)) => {
                dials.add(start.elapsed());
                let _closed = tokio::time::timeout(FAREWELL, link.close()).await;
            }
            _ => failed += 1,
        }
        sleep(VISIT).await;
    }
    let tally = good.tally();
    Seen { ping: tally.answered.take(), dial: dials.take(), failed, delivery: tally.delivered.take() }
}

/// Peers that begin a handshake and never go on. When the cloud hangs up, they come again.
async fn half_open(stage: &Stage, hostile: &HostileOptions, stop: &CancellationToken) -> Result<TaskTracker, BoxError> {
    let cloud = lookup_host(stage.options.cloud.clone()).await?.next().ok_or("the cloud has no address")?;
    let peers = TaskTracker::new();
    for _ in 0..hostile.half_open {
        let source = hostile.hostile_source;
        peers.spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                // Whatever becomes of it, the next one follows.
                let _ = linger(cloud, source).await;
                sleep(ANEW).await;
            }
        }));
    }
    peers.close();
    Ok(peers)
}

async fn linger(cloud: std::net::SocketAddr, source: IpAddr) -> std::io::Result<()> {
    let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((source, 0).into())?;
    let mut stream = socket.connect(cloud).await?;
    stream.write_all(&BEGIN).await?;
    let mut byte = [0];
    stream.read(&mut byte).await.map(drop)
}
