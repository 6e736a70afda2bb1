//! What there is, and what each mapper knows of it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kubeedge_core::names::DeviceId;
use tokio::sync::watch;

use super::{
    DmiConfig,
    persist::MapperRecord,
    plan::{Call, Has, Told, ToldDevice, Wanted, calls},
    reports::Reports,
};
use crate::dmi::{DmiDevice, wire};

/// Longest answer to a mapper that registers: clients in Go take no more than 4 MiB. What does not fit is told by calls.
const MAX_ANSWER: usize = 3 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: DmiConfig,
    state: Mutex<State>,
    /// Counts changes, so that lanes look again.
    changes: watch::Sender<u64>,
    pub(super) reports: Reports,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) all_set: bool,
    wanted: BTreeMap<DeviceId, Wanted>,
    /// By protocol.
    pub(super) mappers: BTreeMap<String, Mapper>,
}

/// The mapper of a protocol.
#[derive(Debug)]
pub(super) struct Mapper {
    pub(super) record: MapperRecord,
    pub(super) path: PathBuf,
    /// Counts registrations: what was asked of an earlier one says nothing of this one.
    pub(super) epoch: u64,
    pub(super) told: Told,
}

/// A mapper as its lane sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) epoch: u64,
}

impl Shared {
    pub(super) fn new(config: DmiConfig, reports: Reports) -> Self {
        Self { config, state: Mutex::default(), changes: watch::Sender::new(0), reports }
    }

    /// Nothing panics while it holds the lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn set(&self, device: DmiDevice) {
        let Some(wanted) = Wanted::new(&device) else {
            tracing::warn!(device = %device.id, "device without a model is not told to a mapper");
            self.remove(&device.id);
            return;
        };
        let before = self.lock().wanted.insert(device.id, wanted.clone());
        if before.is_none_or(|before| before != wanted) {
            self.changed();
        }
    }

    pub(super) fn remove(&self, device: &DeviceId) -> bool {
        let removed = self.lock().wanted.remove(device).is_some();
        if removed {
            self.changed();
        }
        removed
    }

    pub(super) fn all_set(&self) {
        self.lock().all_set = true;
        self.changed();
    }
}

impl State {
    fn wanted_of(&self, protocol: &str) -> BTreeMap<DeviceId, &Wanted> {
        let of = self.wanted.iter().filter(|(_, wanted)| wanted.protocol == protocol);
        of.map(|(id, wanted)| (id.clone(), wanted)).collect()
    }

    /// The only device called `name`, whatever its namespace; how many there are otherwise.
    pub(super) fn unique(&self, name: &str) -> Result<DeviceId, usize> {
        let mut found: Vec<_> = self.wanted.keys().filter(|id| id.name().as_str() == name).collect();
        match (found.pop(), found.len()) {
            (Some(only), 0) => Ok(only.clone()),
            (None, _) => Err(0),
            (Some(_), others) => Err(others + 1),
        }
    }

    /// The first call for the mapper of `protocol` that `ready` lets through.
    pub(super) fn next_call(&self, protocol: &str, ready: impl Fn(&Call) -> bool) -> Option<Call> {
        let mapper = self.mappers.get(protocol)?;
        calls(&mapper.told, &self.wanted_of(protocol), self.all_set).find(|call| ready(call))
    }

    pub(super) fn target(&self, protocol: &str) -> Option<Target> {
        self.mappers.get(protocol).map(|mapper| Target { path: mapper.path.clone(), epoch: mapper.epoch })
    }

    /// What the mapper of `protocol` was told, if it is still the one of `epoch`.
    pub(super) fn told(&mut self, protocol: &str, epoch: u64) -> Option<&mut Told> {
        self.mappers.get_mut(protocol).filter(|mapper| mapper.epoch == epoch).map(|mapper| &mut mapper.told)
    }

    /// The devices and models of `protocol`, each model once, and what a mapper has after it was told of them.
    pub(super) fn answer(&self, protocol: &str) -> (wire::MapperRegisterResponse, Told) {
        use prost::Message as _;

        let (mut answer, mut told) = (wire::MapperRegisterResponse::default(), Told::default());
        let mut size = 0;
        for (id, wanted) in self.wanted_of(protocol) {
            let is_new = !told.models.contains_key(&wanted.model_id);
            size += wanted.device.encoded_len() + 16 + if is_new { wanted.model.encoded_len() + 16 } else { 0 };
            if size > MAX_ANSWER {
                break;
            }
            if is_new {
                answer.model_list.push(wanted.model.clone());
                told.models.insert(wanted.model_id.clone(), Some(wanted.model_digest));
            }
            answer.device_list.push(wanted.device.clone());
            let has = Has::Surely(Some(wanted.digest));
            told.devices.insert(id, ToldDevice { has, model: wanted.model_id.clone() });
        }
        (answer, told)
    }
}
