//! The devices in memory, each behind its own lock, so that a slow commit of one holds up no other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kubeedge_core::names::DeviceId;

use crate::persist::Device;

/// Lock of one device. It is fair, so changes are done in the order in which they came.
pub(super) type CellLock = Arc<tokio::sync::Mutex<Cell>>;

#[derive(Debug, Default)]
pub(super) struct Cell {
    /// The device is on the node: there is a record of it. Without one, the cell is a place for the next attempt.
    pub(super) present: bool,
    /// This cell is no longer the one in the map: look there again.
    pub(super) gone: bool,
    /// A commit was begun and its end is not known: the store knows better.
    pub(super) uncertain: bool,
    pub(super) device: Device,
}

#[derive(Debug, Default)]
pub(super) struct Cells(Mutex<BTreeMap<DeviceId, CellLock>>);

impl Cells {
    fn map(&self) -> MutexGuard<'_, BTreeMap<DeviceId, CellLock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn load(&self, id: DeviceId, device: Device) {
        let cell = Cell { present: true, device, ..Cell::default() };
        self.map().insert(id, Arc::new(tokio::sync::Mutex::new(cell)));
    }

    pub(super) fn find(&self, id: &DeviceId) -> Option<CellLock> {
        self.map().get(id).cloned()
    }

    pub(super) fn find_or_insert(&self, id: &DeviceId) -> CellLock {
        Arc::clone(self.map().entry(id.clone()).or_default())
    }

    /// Takes a device out. Its cell is locked by the caller, so whoever waits for it sees that it is gone.
    pub(super) fn discard(&self, id: &DeviceId, cell: &mut Cell) {
        cell.gone = true;
        self.map().remove(id);
    }

    /// Of all devices, some of which may be coming or going.
    pub(super) fn ids(&self) -> Vec<DeviceId> {
        self.map().keys().cloned().collect()
    }
}
