//! Writing what nodes report of their devices.

use std::{collections::BTreeSet, sync::Arc};

use kube::{
    Api, Client, Error,
    api::{Patch, PatchParams},
};
use kubeedge_core::{
    answer::{Answer, ApiStatus},
    device::DeviceSpec,
    message::{Content, Message},
    names::{DeviceId, MessageId, NodeName, ResourceVersion, Uid},
    resource::Resource,
    words::{Group, Operation, Source},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{PATIENCE, Statuses, lock, make::look, not_found, path_of};
use crate::{
    crds::DeviceStatus,
    device::{
        board::{Batch, Job, Known},
        report::Changes,
    },
    hub::{Downlink, HubHandle},
    object::NodeObject,
};

/// Writes that are under way at a time. More would only wait in the API.
const WRITES: usize = 16;
/// Attempts at an object that others change at the same time, before there is a pause.
const ATTEMPTS: u32 = 5;

/// What a Device says about its reports.
#[derive(Debug)]
pub(super) struct Shape {
    uid: Uid,
    version: Option<ResourceVersion>,
    properties: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Device {
    #[serde(default)]
    spec: DeviceSpec,
}

/// What became of a write.
enum Outcome {
    /// It is durable.
    Written(Known),
    /// It will never work.
    Refused(ApiStatus),
    /// To be tried again.
    Failed(String),
}

impl Statuses {
    /// Takes a report, to be confirmed when the write that holds it is durable. `report` makes changes of it, given the
    /// properties that count. What changes nothing need not be written: then it is `false`.
    pub(in crate::device) fn report(
        &self,
        (node, message): (&NodeName, &MessageId),
        device: &DeviceId,
        report: impl FnOnce(&BTreeSet<String>) -> Changes,
    ) -> Result<bool, ApiStatus> {
        let shape = self.shape(node, device)?;
        let changes = report(&shape.properties);
        if changes == Changes::default() {
            return Ok(false);
        }
        let batch = Batch { node: node.clone(), reports: vec![message.clone()], changes };
        lock(&self.board).put(device, batch, Instant::now());
        self.reported.notify_one();
        Ok(true)
    }

    /// The Device, if it is there and bound to the node.
    fn shape(&self, node: &NodeName, device: &DeviceId) -> Result<Arc<Shape>, ApiStatus> {
        let path = path_of(device);
        let object = {
            let placement = self.truth.placement();
            if placement.uid(&path).is_none() {
                return Err(not_found(device));
            }
            if !placement.needs(node, &path) {
                let message = format!("device {device} is forbidden to node {node}: it is not bound to the node");
                return Err(ApiStatus::failure(403, "Forbidden", message));
            }
            // Without contents, it is being fetched.
            placement.object(&path).ok_or_else(|| unavailable(format!("device {device} is not yet known")))?
        };
        let known = lock(&self.shapes).get(device).cloned();
        if let Some(known) = known.filter(|known| known.uid == object.uid && known.version == object.version) {
            return Ok(known);
        }
        let shape = Arc::new(Shape::of(&object));
        lock(&self.shapes).insert(device.clone(), shape.clone());
        Ok(shape)
    }

    pub(super) async fn write_reported(&self) {
        let mut jobs = JoinSet::new();
        loop {
            while jobs.len() < WRITES {
                let Some(job) = lock(&self.board).take(Instant::now()) else { break };
                match self.shape(&job.batch.node, &job.device) {
                    Ok(shape) => {
                        let (client, hub) = (self.client.clone(), self.hub.clone());
                        jobs.spawn(async move {
                            let outcome = write(&client, &hub, &job, &shape).await;
                            (job, outcome)
                        });
                    }
                    Err(status) if status.code >= 500 => self.land(&job, Outcome::Failed(status.message)),
                    Err(status) => self.land(&job, Outcome::Refused(status)),
                }
            }
            let due = if jobs.len() < WRITES { lock(&self.board).due() } else { None };
            tokio::select! {
                biased;
                Some(Ok((job, outcome))) = jobs.join_next() => self.land(&job, outcome),
                () = self.reported.notified() => {}
                () = wait(due) => {}
            }
        }
    }

    fn land(&self, job: &Job, outcome: Outcome) {
        let (device, node, now) = (&job.device, &job.batch.node, Instant::now());
        match outcome {
            Outcome::Written(known) => {
                lock(&self.board).written(job, known, now);
                self.answer(&job.batch, Ok(()));
            }
            Outcome::Refused(status) => {
                tracing::warn!(%node, %device, message = status.message, "reports refused");
                lock(&self.board).given_up(job, now);
                self.answer(&job.batch, Err(status));
            }
            // The node may be another instance's by now, and that one may write younger reports. The node sends again
            // what was not confirmed.
            Outcome::Failed(why) if self.hub.session(node).is_none() => {
                tracing::debug!(%node, %device, why, "reports of a node that is gone not written");
                lock(&self.board).given_up(job, now);
            }
            Outcome::Failed(why) => {
                tracing::warn!(%node, %device, why, "reports not written, they will be tried again");
                lock(&self.board).failed(job, now);
            }
        }
    }

    /// Confirms reports, or refuses them.
    pub(super) fn answer(&self, batch: &Batch, written: Result<(), ApiStatus>) {
        let content = match written {
            Ok(()) => Content::ok(),
            Err(status) => Answer::Refused(status).to_bare().unwrap_or_default(),
        };
        for report in &batch.reports {
            let (now, group) = (self.clock.now(), Group::Twin);
            let answer =
                Message::new(now, Source::DeviceController, group, Operation::Response, Resource::TwinConfirmation);
            let answer = answer.answering(report).content(content.clone());
            let _absent = self.hub.send(&batch.node, Downlink::Answer(answer));
        }
    }
}

impl Shape {
    fn of(object: &NodeObject) -> Self {
        // A Device that cannot be read has no properties that count.
        let spec = object.content.parse::<Device>().map(|device| device.spec).unwrap_or_default();
        let properties = spec.properties.into_iter().map(|property| property.name).collect();
        Self { uid: object.uid.clone(), version: object.version, properties }
    }
}

async fn write(client: &Client, hub: &HubHandle, job: &Job, shape: &Shape) -> Outcome {
    match timeout(PATIENCE, attempts(client, hub, job, shape)).await {
        Ok(Ok(Some(known))) => Outcome::Written(known),
        Ok(Ok(None)) => Outcome::Failed("it keeps changing".into()),
        Ok(Err(Error::Api(status))) if matches!(status.code, 400 | 413 | 422) => {
            Outcome::Refused(ApiStatus::failure(status.code, &status.reason, &status.message))
        }
        Ok(Err(err)) => Outcome::Failed(err.to_string()),
        Err(_) => Outcome::Failed("no answer in time".into()),
    }
}

/// Writes, starting from what is known of the object; whenever somebody else has changed it, from what it is now.
async fn attempts(client: &Client, hub: &HubHandle, job: &Job, shape: &Shape) -> Result<Option<Known>, Error> {
    let api: Api<DeviceStatus> = Api::namespaced(client.clone(), job.device.namespace().as_str());
    let mut known = job.known.as_deref().filter(|known| known.owner == shape.uid).cloned();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 && hub.session(&job.batch.node).is_none() {
            break;
        }
        let known = match known.take() {
            Some(known) => known,
            None => look(client, &job.device, &shape.uid).await?,
        };
        let status = job.batch.changes.apply(known.status.clone(), &shape.properties);
        if status == known.status {
            return Ok(Some(known));
        }
        // The version makes it fail if somebody else has written since.
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": known.version },
            "status": { "twins": status.twins, "state": status.state, "lastOnlineTime": status.last_online_time },
        }));
        match api.patch(job.device.name().as_str(), &PatchParams::default(), &patch).await {
            Ok(written) => {
                let version = written.metadata.resource_version.unwrap_or_default();
                return Ok(Some(Known { version, status, ..known }));
            }
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(None)
}

fn unavailable(message: String) -> ApiStatus {
    ApiStatus::failure(503, "ServiceUnavailable", message)
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
