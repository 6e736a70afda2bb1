use std::sync::Arc;

use kubeedge_core::device::DeviceInstance;

/// What a device task has to go by; it always sees the newest.
#[derive(Clone, Debug)]
pub(super) struct Directive {
    pub(super) instance: Arc<DeviceInstance>,
    /// Counts the times that the twin has to be read again.
    pub(super) twin_changes: u64,
}
