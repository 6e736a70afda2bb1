//! Requests of applications.

use bytes::Bytes;
use kubeedge_core::{names::DeviceId, topic::DeviceTopic, twin::TwinError};

use super::{Shared, apply::Origin, outgoing::Lane};
use crate::{
    payload::{self, Refusal, Unreadable},
    reduce::Change,
    state::TwinState,
};

/// Bytes of an unreadable body that are shown to its sender.
const SHOWN: usize = 256;

const NOT_THERE: &str = "update rejected due to the device is not existed";

/// The lane of a request; `None` if the topic is none of ours to serve.
pub(super) fn lane(topic: &DeviceTopic) -> Option<Lane> {
    match topic {
        DeviceTopic::TwinGet(id)
        | DeviceTopic::TwinUpdate(id)
        | DeviceTopic::TwinCloudUpdated(id)
        | DeviceTopic::StateUpdate(id) => Some(Some(id.clone())),
        DeviceTopic::MembershipGet(_) => Some(None),
        // What we publish ourselves, among others.
        _ => None,
    }
}

impl Shared {
    /// Serves one request; whatever comes of it is left for publication.
    pub(super) async fn serve(&self, topic: DeviceTopic, body: &[u8]) {
        match topic {
            DeviceTopic::TwinGet(id) => {
                let answer = self.twin_get(&id, body).await;
                self.answer(&DeviceTopic::TwinGetResult(id), answer);
            }
            DeviceTopic::TwinUpdate(id) => {
                if let Err(refusal) = self.twin_update(&id, body).await {
                    self.answer(&DeviceTopic::TwinUpdateResult(id), Err(refusal));
                }
            }
            DeviceTopic::TwinCloudUpdated(id) => {
                if let Err(refusal) = self.cloud_updated(&id, body).await {
                    self.answer(&DeviceTopic::TwinUpdateResult(id), Err(refusal));
                }
            }
            DeviceTopic::StateUpdate(id) => {
                if let Err(refusal) = self.state_update(&id, body).await {
                    self.answer(&DeviceTopic::StateUpdateResult(id), Err(refusal));
                }
            }
            // The node in the topic does not matter, as upstream has it: there is one node on this bus.
            DeviceTopic::MembershipGet(_) => {
                let answer = self.membership_get(body).await;
                self.answer(&DeviceTopic::MembershipGetResult(self.node.clone()), answer);
            }
            _ => {}
        }
    }

    fn answer(&self, topic: &DeviceTopic, answer: Result<Bytes, Refusal>) {
        let answer = answer.unwrap_or_else(|refusal| {
            if refusal.code == 500 {
                tracing::warn!(%topic, reason = refusal.reason, "request failed");
            }
            payload::refusal(self.clock.now(), &refusal)
        });
        self.leave(topic, answer);
    }

    async fn twin_get(&self, id: &DeviceId, body: &[u8]) -> Result<Bytes, Refusal> {
        let event_id = payload::event_id(body).map_err(|error| unreadable("twin info", body, &error))?;
        match self.lock(id).await.map_err(|error| failed(&event_id, &error, ""))? {
            Some(cell) => Ok(payload::twin_result(&event_id, self.clock.now(), &cell.device.twin)),
            None => Err(Refusal::new(&event_id, 404, format!("Device {id} not found while getting twin"))),
        }
    }

    async fn twin_update(&self, id: &DeviceId, body: &[u8]) -> Result<(), Refusal> {
        let (event_id, update) = payload::twin_update(body)?;
        let applied = self.apply(id, Change::Update(update), Origin::Application(&event_id)).await;
        applied.map(drop).map_err(|error| failed(&event_id, &error, NOT_THERE))
    }

    async fn cloud_updated(&self, id: &DeviceId, body: &[u8]) -> Result<(), Refusal> {
        let (event_id, sync) = payload::twin_sync(body)?;
        let applied = self.apply(id, Change::CloudSync(sync), Origin::Cloud(Some(&event_id))).await;
        applied.map(drop).map_err(|error| failed(&event_id, &error, NOT_THERE))
    }

    async fn state_update(&self, id: &DeviceId, body: &[u8]) -> Result<(), Refusal> {
        let (event_id, state) = payload::state_update(body)?;
        let applied = self.apply(id, Change::UpdateState(state), Origin::Application(&event_id)).await;
        applied.map(drop).map_err(|error| failed(&event_id, &error, NOT_THERE))
    }

    async fn membership_get(&self, body: &[u8]) -> Result<Bytes, Refusal> {
        let event_id = payload::event_id(body).map_err(|error| unreadable("get membership info", body, &error))?;
        let mut members = Vec::new();
        for id in self.cells.ids() {
            if let Some(cell) = self.lock(&id).await.map_err(|error| failed(&event_id, &error, ""))? {
                let TwinState { state, last_online, .. } = &cell.device.twin;
                members.push((id, cell.device.description.clone(), state.clone(), *last_online));
            }
        }
        let devices = members.iter().map(|(id, description, state, last_online)| {
            payload::Device::with_state(id, description, state.as_ref(), *last_online)
        });
        let devices: Vec<_> = devices.collect();
        Ok(payload::membership_result(&event_id, self.clock.now(), &devices))
    }
}

fn unreadable(what: &str, body: &[u8], error: &Unreadable) -> Refusal {
    let shown = String::from_utf8_lossy(body.get(..SHOWN).unwrap_or(body));
    Refusal::bad_request("", format!("Unmarshal {what} {shown} failed , err: {error}"))
}

fn failed(event_id: &str, error: &TwinError, not_there: &str) -> Refusal {
    match error {
        TwinError::UnknownDevice(_) => Refusal::new(event_id, 404, not_there),
        TwinError::Invalid { reason, .. } => Refusal::bad_request(event_id, reason),
        other => {
            let cause = std::error::Error::source(other).map(|cause| format!(": {cause}")).unwrap_or_default();
            Refusal::new(event_id, 500, format!("{other}{cause}"))
        }
    }
}
