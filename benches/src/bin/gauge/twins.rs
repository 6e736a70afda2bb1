//! Twin updates of applications.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kubeedge_core::service::BoxError;
use rumqttc::{AsyncClient, Event, Incoming, MqttOptions, QoS};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use crate::{node::Node, samples::Samples};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Devices
    #[arg(long, default_value_t = 100)]
    devices: usize,
    /// Updates, one after the other, whose time is measured
    #[arg(long, default_value_t = 2000)]
    rounds: usize,
    /// Clients that then publish side by side
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Updates of each that have no result yet, at most
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Seconds for which they do
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(crate) async fn run(options: Options) -> Result<(), BoxError> {
    let properties = json!([{"name": "level", "type": "INT", "accessMode": "ReadWrite"}]);
    let model = ("tank".to_owned(), json!({"protocol": "none", "properties": properties}));
    let device = |number: usize| -> (String, Value) {
        let spec = json!({"deviceModelRef": {"name": "tank"}, "nodeName": crate::node::NODE,
            "protocol": {"protocolName": "none"}, "properties": [{"name": "level"}]});
        (format!("tank-{number}"), spec)
    };
    let devices: Vec<_> = (0..options.devices).map(device).collect();
    let node = Node::start(&[model], &devices).await?;
    while node.edge.device_twins().devices().await?.len() < options.devices {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let samples = Samples::default();
    let (client, mut results) = connect(node.mqtt, "rounds", "default/tank-0").await?;
    for round in 0..options.rounds {
        let begin = Instant::now();
        client.publish(topic("tank-0"), QoS::AtLeastOnce, false, update(round)).await?;
        timeout(Duration::from_secs(10), results.recv()).await?.ok_or("the broker is gone")?;
        samples.add(begin.elapsed());
    }
    let round_trip = samples.take();

    let mut tasks = JoinSet::new();
    let end = Instant::now() + Duration::from_secs(options.seconds);
    for number in 0..options.clients {
        let own: Vec<_> = (number..options.devices).step_by(options.clients).map(|at| format!("tank-{at}")).collect();
        let (mqtt, window) = (node.mqtt, options.window);
        tasks.spawn(async move { flood(mqtt, number, own, window, end).await });
    }
    let begin = Instant::now();
    let mut done = 0_u64;
    while let Some(finished) = tasks.join_next().await {
        done += finished??;
    }
    let seconds = begin.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = done as f64 / seconds;
    println!(
        "{}",
        json!({"scenario": "twins", "devices": options.devices, "round_trip_ms": round_trip,
            "updates": done, "durable_per_second": rate})
    );
    Ok(())
}

fn topic(device: &str) -> String {
    format!("$hw/events/device/default/{device}/twin/update")
}

fn update(value: usize) -> String {
    json!({"event_id": value.to_string(), "twin": {"level": {"actual": {"value": value.to_string()}}}}).to_string()
}

/// A client, and a word for each result that it hears.
async fn connect(port: u16, name: &str, devices: &str) -> Result<(AsyncClient, mpsc::Receiver<()>), BoxError> {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(30)).set_inflight(1000);
    let (client, mut events) = AsyncClient::new(options, 1000);
    let (heard, results) = mpsc::channel(10_000);
    client.subscribe(format!("$hw/events/device/{devices}/twin/update/result"), QoS::AtMostOnce).await?;
    let (subscribed, ready) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut subscribed = Some(subscribed);
        while let Ok(event) = events.poll().await {
            match event {
                Event::Incoming(Incoming::SubAck(_)) => drop(subscribed.take().map(|ready| ready.send(()))),
                Event::Incoming(Incoming::Publish(_)) if heard.send(()).await.is_err() => return,
                _ => {}
            }
        }
    });
    ready.await?;
    Ok((client, results))
}

/// Updates the devices in turn until `end`; tells how many results came.
async fn flood(port: u16, number: usize, devices: Vec<String>, window: usize, end: Instant) -> Result<u64, BoxError> {
    let free = Arc::new(Semaphore::new(window));
    let mut listeners = JoinSet::new();
    let mut client = None;
    for (at, device) in devices.iter().enumerate() {
        let (own, mut results) = connect(port, &format!("flood-{number}-{at}"), &format!("default/{device}")).await?;
        client.get_or_insert(own);
        let free = Arc::clone(&free);
        listeners.spawn(async move {
            while results.recv().await.is_some() {
                free.add_permits(1);
            }
        });
    }
    let client = client.ok_or("more clients than devices")?;
    let mut sent = 0;
    while Instant::now() < end {
        let Ok(Ok(permit)) = timeout(Duration::from_secs(10), free.acquire()).await else { break };
        permit.forget();
        let device = &devices[sent % devices.len()];
        client.publish(topic(device), QoS::AtLeastOnce, false, update(sent)).await?;
        sent += 1;
    }
    // All of them, or it was not durable.
    let whole = u32::try_from(window)?;
    timeout(Duration::from_secs(30), free.acquire_many(whole)).await??.forget();
    Ok(sent as u64)
}
