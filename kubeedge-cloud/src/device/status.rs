//! DeviceStatus objects: one for each Device, owned by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use kubeedge_core::{
    answer::ApiStatus,
    device::DeviceStatusStatus,
    names::{DeviceId, Uid},
    resource::{ObjectPath, ResourceType},
};
use serde_json::json;
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use crate::{
    crds::DeviceStatus,
    object::{NodeObject, unavailable},
    sync::{Followed, Truth},
};

/// Objects that are made at a time.
const AT_A_TIME: usize = 8;
/// Writes of a status that others change at the same time.
const ATTEMPTS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(30);
/// Until an object that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Makes DeviceStatus objects, and writes them.
pub(super) struct Statuses {
    client: Client,
    /// The Devices whose object may be missing.
    wanted: Mutex<BTreeMap<DeviceId, Uid>>,
    /// The Devices whose object is known to have been there.
    made: Mutex<BTreeMap<DeviceId, Uid>>,
    wake: Notify,
}

impl Statuses {
    pub(super) fn new(client: Client) -> Self {
        Self { client, wanted: Mutex::default(), made: Mutex::default(), wake: Notify::new() }
    }

    /// Sees to it that each device has its object.
    pub(super) fn follow(&self, followed: Followed<'_>, truth: &Truth) {
        match followed {
            Followed::Applied(path) => {
                let uid = truth.placement().uid(path).cloned();
                if let Some((device, uid)) = device_of(path).zip(uid)
                    && lock(&self.made).get(&device) != Some(&uid)
                {
                    lock(&self.wanted).insert(device, uid);
                    self.wake.notify_one();
                }
            }
            Followed::Deleted(path) => {
                if let Some(device) = device_of(path) {
                    lock(&self.wanted).remove(&device);
                    lock(&self.made).remove(&device);
                }
            }
            Followed::Listed => {
                let placement = truth.placement();
                let there: BTreeSet<_> = placement.paths(&ResourceType::Device).filter_map(device_of).collect();
                lock(&self.made).retain(|device, _| there.contains(device));
                lock(&self.wanted).retain(|device, _| there.contains(device));
            }
        }
    }

    /// Makes what is missing, for ever. Failures are tried again.
    pub(super) async fn run(&self) {
        let mut jobs = JoinSet::new();
        // One for each device at most.
        let mut later = JoinSet::new();
        loop {
            while jobs.len() < AT_A_TIME {
                let Some((device, uid)) = lock(&self.wanted).pop_first() else { break };
                let client = self.client.clone();
                jobs.spawn(async move {
                    let made = timeout(PATIENCE, make(&client, &device, &uid)).await;
                    let failed = match made {
                        Ok(Ok(())) => None,
                        Ok(Err(err)) => Some(err.to_string()),
                        Err(_) => Some("no answer in time".to_owned()),
                    };
                    (device, uid, failed)
                });
            }
            tokio::select! {
                biased;
                Some(Ok((device, uid, failed))) = jobs.join_next() => match failed {
                    None => { lock(&self.made).insert(device, uid); }
                    Some(err) => {
                        tracing::warn!(%device, err, "DeviceStatus not made, it will be tried again");
                        later.spawn(async move {
                            tokio::time::sleep(RETRY.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
                            (device, uid)
                        });
                    }
                },
                Some(Ok((device, uid))) = later.join_next() => {
                    lock(&self.wanted).entry(device).or_insert(uid);
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// Writes what `change` makes of the status of `device`, whose object is `owner`.
    pub(super) async fn write(
        &self,
        device: &DeviceId,
        owner: &NodeObject,
        change: impl Fn(DeviceStatusStatus) -> DeviceStatusStatus,
    ) -> Result<(), ApiStatus> {
        let api: Api<DeviceStatus> = Api::namespaced(self.client.clone(), device.namespace().as_str());
        let name = device.name().as_str();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let attempt = async {
                let Some(stored) = api.get_opt(name).await? else {
                    make(&self.client, device, &owner.uid).await?;
                    return Ok(false);
                };
                let old = stored.status.clone().unwrap_or_default();
                let new = change(old.clone());
                if new == old {
                    return Ok(true);
                }
                // The version makes it fail if somebody else has written since.
                let patch = Patch::Merge(json!({
                    "metadata": { "resourceVersion": stored.metadata.resource_version },
                    "status": {
                        "twins": new.twins, "state": new.state, "lastOnlineTime": new.last_online_time,
                    },
                }));
                match api.patch(name, &PatchParams::default(), &patch).await {
                    Ok(_) => Ok(true),
                    Err(Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(false),
                    Err(err) => Err(err),
                }
            };
            match timeout(PATIENCE, attempt).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => {}
                Ok(Err(Error::Api(status))) => {
                    return Err(ApiStatus::failure(status.code, &status.reason, &status.message));
                }
                Ok(Err(err)) => return Err(unavailable(&err)),
                Err(elapsed) => last = Some(elapsed.to_string()),
            }
        }
        let why = last.unwrap_or_else(|| "it keeps changing".to_owned());
        Err(ApiStatus::failure(503, "ServiceUnavailable", format!("status of {device} not written: {why}")))
    }
}

/// Makes the object of a device, unless there is one. One that belonged to an earlier device of that name is replaced.
async fn make(client: &Client, device: &DeviceId, uid: &Uid) -> Result<(), Error> {
    let api: Api<DeviceStatus> = Api::namespaced(client.clone(), device.namespace().as_str());
    let owner = OwnerReference {
        api_version: format!("{}/{}", kubeedge_core::device::GROUP, kubeedge_core::device::VERSION),
        kind: "Device".into(),
        name: device.name().to_string(),
        uid: uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let name = device.name().as_str();
    let metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some(device.namespace().to_string()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let object = DeviceStatus { metadata, status: Some(DeviceStatusStatus::default()), ..DeviceStatus::default() };
    let exists = match api.create(&PostParams::default(), &object).await {
        Err(Error::Api(status)) if status.is_already_exists() => api.get_opt(name).await?,
        other => return other.map(drop),
    };
    let Some(there) = exists else { return Err(Error::Api(Box::new(gone(name)))) };
    let owners = there.metadata.owner_references.unwrap_or_default();
    if owners.is_empty() || owners.iter().any(|owner| owner.uid == uid.as_str()) {
        return Ok(());
    }
    let preconditions = Some(Preconditions { uid: there.metadata.uid, resource_version: None });
    match api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
        Ok(_) => {}
        Err(Error::Api(status)) if status.is_not_found() => {}
        Err(err) => return Err(err),
    }
    api.create(&PostParams::default(), &object).await.map(drop)
}

/// It went away between two looks: try again.
fn gone(name: &str) -> kube::core::Status {
    kube::core::Status::failure(&format!("devicestatus {name} is being replaced"), "Conflict").with_code(409)
}

fn device_of(path: &ObjectPath) -> Option<DeviceId> {
    Some(DeviceId::new(path.namespace.clone()?, path.name.clone()?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
