//! A change from its lock to its last reader: reduce, commit, remember, publish, notify.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use kubeedge_core::{
    meta::{MetaError, MetaWrite},
    names::{DeviceId, MessageId, PropertyName, UnixMillis},
    topic::DeviceTopic,
    twin::{Delta, TwinError, TwinEvent},
};
use tokio::sync::OwnedMutexGuard;

use super::{Shared, cells::Cell};
use crate::{
    payload,
    persist::{self, Device},
    reduce::{Change, Reduced, Transition, Written, reduce},
    state::{SpecProperty, TwinState},
};

/// Where a change comes from: decides who is answered, and how.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// A part of the node, by a call.
    Node,
    /// An application, by a request with that event id. It is answered even if it changes nothing.
    Application(&'a str),
    /// The cloud, with an event id if it came with one. There is no result, only a document.
    Cloud(Option<&'a str>),
}

/// What is published about a change.
struct News {
    written: BTreeMap<PropertyName, Written>,
    document: BTreeMap<PropertyName, Transition>,
    delta: Delta,
    /// The state of the device, if it was told.
    state: Option<Bytes>,
}

/// What a change does to the store.
struct Effects {
    /// The device afterwards, if it is to be stored.
    next: Option<Device>,
    tell_twin: bool,
    tell_state: bool,
}

fn store_error(error: MetaError) -> TwinError {
    match error {
        MetaError::Busy => TwinError::Busy,
        MetaError::TimedOut => TwinError::TimedOut,
        other => TwinError::Failed(other.into()),
    }
}

impl Shared {
    /// Locks the device; `None` if it is not on the node.
    pub(super) async fn lock(&self, id: &DeviceId) -> Result<Option<OwnedMutexGuard<Cell>>, TwinError> {
        while let Some(found) = self.cells.find(id) {
            let mut cell = found.lock_owned().await;
            if !cell.gone {
                self.make_certain(id, &mut cell).await?;
                return Ok(cell.present.then_some(cell));
            }
        }
        Ok(None)
    }

    async fn lock_or_create(&self, id: &DeviceId) -> Result<OwnedMutexGuard<Cell>, TwinError> {
        loop {
            let mut cell = self.cells.find_or_insert(id).lock_owned().await;
            if !cell.gone {
                self.make_certain(id, &mut cell).await?;
                return Ok(cell);
            }
        }
    }

    /// Asks the store how the last commit ended, if nobody waited for its end.
    async fn make_certain(&self, id: &DeviceId, cell: &mut Cell) -> Result<(), TwinError> {
        if !cell.uncertain {
            return Ok(());
        }
        let record = self.store.get(persist::key(id)).await.map_err(store_error)?;
        let stored = record.map(|record| persist::load(&record)).transpose();
        let stored = stored.map_err(|error| TwinError::Failed(error.into()))?;
        cell.uncertain = false;
        let was = cell.present.then(|| std::mem::take(&mut cell.device));
        cell.present = stored.is_some();
        cell.device = stored.unwrap_or_default();
        match (was, cell.present) {
            (Some(was), true) => {
                let (before, now) = (&was.twin.properties, &cell.device.twin.properties);
                let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
                let changed: Vec<_> = names.filter(|name| before.get(*name) != now.get(*name)).cloned().collect();
                if was.twin != cell.device.twin {
                    self.notify(id, &cell.device.twin, changed);
                }
            }
            (Some(was), false) => self.announce_removal(id, &was.description),
            (None, true) => self.announce(id, &cell.device.description),
            (None, false) => {}
        }
        Ok(())
    }

    /// Applies a change; resolved when it is durable.
    pub(super) async fn apply(&self, id: &DeviceId, change: Change, origin: Origin<'_>) -> Result<Delta, TwinError> {
        let mut cell = self.lock(id).await?.ok_or_else(|| TwinError::UnknownDevice(id.clone()))?;
        let now = self.clock.now();
        let reduced = reduce(&cell.device.twin, change, now)?;
        if matches!(origin, Origin::Node) && !reduced.is_changed() {
            return Ok(reduced.delta);
        }
        let Reduced { twin, changed, written, document, delta, tell_twin, tell_state, .. } = reduced;
        let next = match twin {
            Cow::Owned(twin) => {
                let description = cell.device.description.clone();
                Some(Device { description, has_object: cell.device.has_object, twin })
            }
            Cow::Borrowed(_) => None,
        };
        let is_changed = next.is_some();
        let state = self.settle(id, &mut cell, Effects { next, tell_twin, tell_state }, now).await?;
        let twin = &cell.device.twin;
        let news = News { written, document, delta, state };
        self.publish(id, twin, &news, origin, now);
        if is_changed {
            self.notify(id, twin, changed.into_iter().collect());
        }
        Ok(news.delta)
    }

    /// Makes sure that the device is on the node; tells whether it is new.
    pub(super) async fn admit(
        &self,
        id: &DeviceId,
        description: Option<&str>,
        spec: Option<BTreeMap<PropertyName, SpecProperty>>,
    ) -> Result<bool, TwinError> {
        let mut cell = self.lock_or_create(id).await?;
        let now = self.clock.now();
        let has_object = cell.device.has_object || spec.is_some();
        let description = description.unwrap_or(&cell.device.description).to_owned();
        let change = Change::Spec(spec.unwrap_or_else(|| cell.device.twin.spec.clone()));
        let reduced = reduce(&cell.device.twin, change, now)?;
        for rejected in &reduced.refused {
            tracing::warn!(device = %id, reason = %rejected, "part of a Device is left out of its twin");
        }
        let is_new = !cell.present;
        let as_it_was = description == cell.device.description && has_object == cell.device.has_object;
        if !is_new && as_it_was && !reduced.is_changed() {
            return Ok(false);
        }
        let Reduced { twin, changed, written, document, delta, tell_twin, tell_state, .. } = reduced;
        let next = Some(Device { description, has_object, twin: twin.into_owned() });
        let state = self.settle(id, &mut cell, Effects { next, tell_twin, tell_state }, now).await?;
        cell.present = true;
        if is_new {
            self.announce(id, &cell.device.description);
        }
        if !changed.is_empty() {
            let news = News { written, document, delta, state };
            self.publish(id, &cell.device.twin, &news, Origin::Cloud(None), now);
            self.notify(id, &cell.device.twin, changed.into_iter().collect());
        }
        Ok(is_new)
    }

    /// Forgets a device; tells whether it was there. One with a Device object goes only if `even_with_object`.
    pub(super) async fn dismiss(&self, id: DeviceId, even_with_object: bool) -> Result<bool, TwinError> {
        let Some(mut cell) = self.lock(&id).await? else { return Ok(false) };
        if cell.device.has_object && !even_with_object {
            return Ok(false);
        }
        self.commit(&mut cell, persist::remove(&id)).await?;
        self.cells.discard(&id, &mut cell);
        self.announce_removal(&id, &cell.device.description);
        Ok(true)
    }

    /// Stores the next device and what the cloud has to know, all or nothing; memory follows the store.
    async fn settle(
        &self,
        id: &DeviceId,
        cell: &mut Cell,
        effects: Effects,
        now: UnixMillis,
    ) -> Result<Option<Bytes>, TwinError> {
        let device = effects.next.as_ref().unwrap_or(&cell.device);
        let mut writes = Vec::with_capacity(3);
        if let Some(next) = &effects.next {
            writes.push(persist::store(id, next).map_err(store_error)?);
        }
        if effects.tell_twin {
            writes.push(persist::tell_twin(id, &device.twin, now).map_err(store_error)?);
        }
        let event_id = MessageId::random();
        let state = effects.tell_state.then(|| payload::device_state(event_id.as_str(), now, id, &device.twin));
        if let Some(state) = &state {
            writes.push(persist::tell_state(id, state, now));
        }
        self.commit(cell, writes).await?;
        if let Some(next) = effects.next {
            cell.device = next;
        }
        Ok(state)
    }

    async fn commit(&self, cell: &mut Cell, writes: Vec<MetaWrite>) -> Result<(), TwinError> {
        if writes.is_empty() {
            return Ok(());
        }
        // Stays so if this future is dropped while the store works.
        cell.uncertain = true;
        let outcome = self.store.commit(writes).await;
        cell.uncertain = outcome.as_ref().is_err_and(|error| !error.changed_nothing());
        outcome.map(drop).map_err(store_error)
    }

    /// In upstream's order: result, document, delta.
    fn publish(&self, id: &DeviceId, twin: &TwinState, news: &News, origin: Origin<'_>, now: UnixMillis) {
        if let Some(state) = &news.state {
            self.leave(&DeviceTopic::StateUpdateResult(id.clone()), state.clone());
            return;
        }
        let fresh = MessageId::random();
        let event_id = match origin {
            Origin::Application(event_id) | Origin::Cloud(Some(event_id)) => event_id,
            Origin::Node | Origin::Cloud(None) => fresh.as_str(),
        };
        if !matches!(origin, Origin::Cloud(_)) {
            let result = payload::twin_written(event_id, now, twin, &news.written);
            self.leave(&DeviceTopic::TwinUpdateResult(id.clone()), result);
        }
        if !news.document.is_empty() {
            let document = payload::twin_document(event_id, now, &news.document);
            self.leave(&DeviceTopic::TwinUpdateDocument(id.clone()), document);
        }
        if !news.delta.is_empty() {
            let delta = payload::twin_delta(MessageId::random().as_str(), now, twin, &news.delta);
            self.leave(&DeviceTopic::TwinUpdateDelta(id.clone()), delta);
        }
    }

    fn announce(&self, id: &DeviceId, description: &str) {
        let device = payload::Device::announced(id, description);
        self.leave_membership(Some(device), None);
    }

    fn announce_removal(&self, id: &DeviceId, description: &str) {
        let device = payload::Device::announced(id, description);
        self.leave_membership(None, Some(device));
        // Nobody watching is fine, here and below.
        let _ = self.events.send(TwinEvent::Removed(id.clone()));
    }

    fn leave_membership(&self, added: Option<payload::Device<'_>>, removed: Option<payload::Device<'_>>) {
        let body = payload::membership_updated(MessageId::random().as_str(), self.clock.now(), added, removed);
        self.leave(&DeviceTopic::MembershipUpdated(self.node.clone()), body);
    }

    /// Leaves a publication in the lane of its device.
    pub(super) fn leave(&self, topic: &DeviceTopic, payload: Bytes) {
        let lane = match topic {
            DeviceTopic::TwinGetResult(id)
            | DeviceTopic::TwinUpdateResult(id)
            | DeviceTopic::TwinUpdateDocument(id)
            | DeviceTopic::TwinUpdateDelta(id)
            | DeviceTopic::StateUpdateResult(id) => Some(id.clone()),
            _ => None,
        };
        self.outgoing.push(lane, topic, payload);
    }

    fn notify(&self, id: &DeviceId, twin: &TwinState, changed: Vec<PropertyName>) {
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(TwinEvent::Changed { twin: twin.to_twin(id.clone()), changed });
        }
    }
}
