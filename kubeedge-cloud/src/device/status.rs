//! DeviceStatus objects: one for each Device, owned by it.

mod make;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::Client;
use kubeedge_core::{
    answer::ApiStatus,
    names::{DeviceId, SharedClock, Uid},
    resource::{ObjectPath, ResourceType},
};
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use self::{make::make, write::Shape};
use super::board::Board;
use crate::{
    hub::HubHandle,
    sync::{Followed, Truth},
};

/// Objects that are made at a time.
const AT_A_TIME: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);
/// Until an object that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Makes DeviceStatus objects, and writes them.
pub(super) struct Statuses {
    client: Client,
    truth: Truth,
    hub: HubHandle,
    clock: SharedClock,
    /// The Devices whose object may be missing.
    wanted: Mutex<BTreeMap<DeviceId, Uid>>,
    /// The Devices whose object is known to have been there.
    made: Mutex<BTreeMap<DeviceId, Uid>>,
    wake: Notify,
    board: Mutex<Board>,
    /// The properties of Devices that report.
    shapes: Mutex<HashMap<DeviceId, Arc<Shape>>>,
    reported: Notify,
}

impl Statuses {
    /// Each is written at most once per `interval`.
    pub(super) fn new(client: Client, truth: Truth, hub: HubHandle, clock: SharedClock, interval: Duration) -> Self {
        Self {
            client,
            truth,
            hub,
            clock,
            wanted: Mutex::default(),
            made: Mutex::default(),
            wake: Notify::new(),
            board: Mutex::new(Board::new(interval)),
            shapes: Mutex::default(),
            reported: Notify::new(),
        }
    }

    /// Sees to it that each device has its object.
    pub(super) fn follow(&self, followed: Followed<'_>) {
        match followed {
            Followed::Applied(path) => {
                let uid = self.truth.placement().uid(path).cloned();
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
                    self.forget(&device);
                }
            }
            Followed::Listed => {
                let there: BTreeSet<_> =
                    self.truth.placement().paths(&ResourceType::Device).filter_map(device_of).collect();
                lock(&self.made).retain(|device, _| there.contains(device));
                lock(&self.wanted).retain(|device, _| there.contains(device));
                let gone = |device: &&DeviceId| !there.contains(device);
                let gone: Vec<DeviceId> = lock(&self.board).devices().filter(gone).cloned().collect();
                for device in gone {
                    self.forget(&device);
                }
            }
        }
    }

    /// Whoever still waits for a write is told that there is nothing to write to.
    fn forget(&self, device: &DeviceId) {
        lock(&self.shapes).remove(device);
        let waiting = lock(&self.board).forget(device);
        if let Some(batch) = waiting {
            self.answer(&batch, Err(not_found(device)));
        }
    }

    /// Makes what is missing, and writes what is reported, for ever. Failures are tried again.
    pub(super) async fn run(&self) {
        tokio::join!(self.make_missing(), self.write_reported());
    }

    async fn make_missing(&self) {
        let mut jobs = JoinSet::new();
        // One for each device at most.
        let mut later = JoinSet::new();
        loop {
            while jobs.len() < AT_A_TIME {
                let Some((device, uid)) = lock(&self.wanted).pop_first() else { break };
                let client = self.client.clone();
                jobs.spawn(async move {
                    let made = match timeout(PATIENCE, make(&client, &device, &uid)).await {
                        Ok(made) => made.map_err(|err| err.to_string()),
                        Err(_) => Err("no answer in time".to_owned()),
                    };
                    (device, uid, made)
                });
            }
            tokio::select! {
                biased;
                Some(Ok((device, uid, made))) = jobs.join_next() => match made {
                    Ok(known) => {
                        // Under this lock, so that a deletion that comes now takes it away again.
                        let placement = self.truth.placement();
                        if placement.uid(&path_of(&device)) == Some(&uid) {
                            lock(&self.made).insert(device.clone(), uid);
                            lock(&self.board).learn(&device, known);
                        }
                    }
                    Err(err) => {
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
}

pub(super) fn not_found(device: &DeviceId) -> ApiStatus {
    ApiStatus::failure(404, "NotFound", format!("device {device} not found"))
}

pub(super) fn path_of(device: &DeviceId) -> ObjectPath {
    ObjectPath {
        namespace: Some(device.namespace().clone()),
        kind: ResourceType::Device,
        name: Some(device.name().clone()),
    }
}

fn device_of(path: &ObjectPath) -> Option<DeviceId> {
    Some(DeviceId::new(path.namespace.clone()?, path.name.clone()?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
