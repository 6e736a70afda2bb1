//! The readers of payloads, which are nobody's business but the fuzz targets'.

use kubeedge_core::message::Content;

use crate::{membership, payload};

/// Reads `body` as each payload that there is.
pub fn read(body: &[u8]) {
    let _ = payload::event_id(body);
    let _ = payload::twin_update(body);
    let _ = payload::twin_sync(body);
    let _ = payload::state_update(body);
    if let Ok(raw) = serde_json::from_slice(body) {
        let _ = membership::members(&Content::raw(raw), ["added_devices", "removed_devices"]);
    }
}
