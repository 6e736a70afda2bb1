//! Many devices are made at once, reach their nodes, and report.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Error, Resource,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use kubeedge_cloud::crds::{Device, DeviceModel, DeviceStatus};
use kubeedge_core::{
    device::{DeviceModelSpec, DeviceProperty, DeviceSpec, ModelProperty, ModelRef, ProtocolConfig},
    service::BoxError,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::Stage;
use crate::{driver::NAMESPACE, fleet::names, options::DeviceOptions, uplink::PROPERTY};

const MODEL: &str = "fleet";
/// How often it is looked at whether all is there.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) async fn play(stage: &Stage, devices: DeviceOptions) -> Result<(), BoxError> {
    let options = &stage.options;
    let client = stage.client()?;
    let nodes = names(options, options.first, options.nodes)?;
    prepare(&client).await?;
    let statuses = Statuses::watch(client.clone());
    let fleet = stage.reporting(options.first, options.nodes, devices.every).await?;
    fleet.connect();
    let connected = fleet.connected(options.patience).await;
    fleet.quiet(options.quiet, options.patience).await;

    let (before, server, start) = (fleet.tally().counts(), stage.server()?, Instant::now());
    let api: Api<Device> = Api::namespaced(client.clone(), NAMESPACE);
    let made = (0..devices.devices).map(|number| {
        let node = nodes[number % nodes.len()].as_str();
        create(&api, device(number, node))
    });
    stream::iter(made).buffer_unordered(devices.writers.max(1)).try_collect::<()>().await?;
    let written = start.elapsed();
    // Each node has the model, too.
    let expected = (devices.devices + nodes.len().min(devices.devices)) as u64;
    let known = fleet.until(options.patience, |counts| counts.since(&before).new >= expected).await;
    let known_after = fleet.tally().last_activity().duration_since(start);
    let end = Instant::now() + options.patience;
    while statuses.names() < devices.devices && Instant::now() < end {
        sleep(LOOK).await;
    }
    let there_after = start.elapsed();
    let created = stage.server()?;

    let _earlier = fleet.tally().answered.take();
    let (counts, writes, begin) = (fleet.tally().counts(), statuses.writes(), Instant::now());
    sleep(devices.hold).await;
    let (counts, writes) = (fleet.tally().counts().since(&counts), statuses.writes() - writes);
    let seconds = begin.elapsed().as_secs_f64();
    let per_second = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds;

    let mut report = stage
        .report("devices")
        .with("devices", devices.devices)
        .with("connected", connected)
        .number("write_seconds", written.as_secs_f64())
        .with("all_known", known)
        .number("known_seconds", known_after.as_secs_f64())
        .with("statuses", statuses.names())
        .number("statuses_seconds", there_after.as_secs_f64())
        .number("confirmed_per_second", per_second(counts.answers))
        .number("status_writes_per_second", per_second(writes))
        .with("report_to_confirmation_ms", fleet.tally().answered.take());
    if let (Some(server), Some(created), Some(now)) = (server, created, stage.server()?) {
        report = report
            .with("server_before", server)
            .with("server_created", created)
            .with("server_now", now)
            .number("server_cpu_percent", 100.0 * now.cpu_since(&created).as_secs_f64() / seconds);
    }
    report.with("counts", fleet.tally().counts()).with("failures", fleet.tally().failures()).print();
    fleet.end().await;
    if devices.keep { Ok(()) } else { clean(&client).await }
}

async fn prepare(client: &Client) -> Result<(), BoxError> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.into());
    create(&Api::all(client.clone()), namespace).await?;
    let mut model = DeviceModel::default();
    model.metadata.name = Some(MODEL.into());
    let visitors = Some(ProtocolConfig { protocol_name: MODEL.into(), ..ProtocolConfig::default() });
    let property = ModelProperty { name: PROPERTY.into(), visitors, ..ModelProperty::default() };
    model.spec = DeviceModelSpec { protocol: MODEL.into(), properties: vec![property], ..DeviceModelSpec::default() };
    Ok(create(&Api::namespaced(client.clone(), NAMESPACE), model).await?)
}

async fn clean(client: &Client) -> Result<(), BoxError> {
    let (now, all) = (DeleteParams::default(), ListParams::default());
    Api::<Device>::namespaced(client.clone(), NAMESPACE).delete_collection(&now, &all).await?;
    Api::<DeviceModel>::namespaced(client.clone(), NAMESPACE).delete_collection(&now, &all).await?;
    Ok(())
}

fn device(number: usize, node: &str) -> Device {
    let mut device = Device::default();
    device.metadata.name = Some(format!("device-{number:05}"));
    let property = DeviceProperty { name: PROPERTY.into(), ..DeviceProperty::default() };
    device.spec = DeviceSpec {
        device_model_ref: Some(ModelRef { name: MODEL.into() }),
        node_name: node.into(),
        properties: vec![property],
        ..DeviceSpec::default()
    };
    device
}

async fn create<K>(api: &Api<K>, object: K) -> Result<(), Error>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    match api.create(&PostParams::default(), &object).await {
        Err(Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

/// The DeviceStatus objects that there are, and how often they were written.
struct Statuses {
    seen: Arc<Mutex<(HashSet<String>, u64)>>,
    watching: JoinHandle<()>,
}

impl Statuses {
    fn watch(client: Client) -> Self {
        let seen: Arc<Mutex<(HashSet<String>, u64)>> = Arc::default();
        let known = seen.clone();
        let watching = tokio::spawn(async move {
            let api: Api<DeviceStatus> = Api::namespaced(client, NAMESPACE);
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(watcher::Event::Apply(status) | watcher::Event::InitApply(status)) => {
                        known.0.extend(status.metadata.name);
                        known.1 += 1;
                    }
                    Ok(watcher::Event::Delete(status)) => {
                        known.0.remove(&status.metadata.name.unwrap_or_default());
                    }
                    _ => {}
                }
            }
        });
        Self { seen, watching }
    }

    fn names(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    fn writes(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl Drop for Statuses {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
