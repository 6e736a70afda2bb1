//! The JSON of the MQTT topics and of the messages to the cloud. Only here desired and reported are called `expected`
//! and `actual`.
//!
//! Upstream: `edge/pkg/devicetwin/dttype`.

mod read;
mod write;

pub(crate) use self::{
    read::{Fields, Unreadable, event_id, property_sync, state_update, twin, twin_sync, twin_update},
    write::{
        Device, Refusal, device_state, membership_result, membership_updated, refusal, twin_delta, twin_document,
        twin_full, twin_result, twin_written,
    },
};
