//! The state of a twin, as it is kept in memory and on disk.

use std::collections::BTreeMap;

use kubeedge_core::{
    device::DeviceState,
    names::{DeviceId, PropertyName, UnixMillis},
    twin::{Twin, TwinProperty, TwinVersion},
};
use serde::{Deserialize, Serialize};

/// All that is known of a device: its properties, its state, and what its spec said last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TwinState {
    /// State as last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeviceState>,
    /// When the device was last online; empty while it is not, as upstream has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_online: Option<UnixMillis>,
    /// Properties with their values.
    pub properties: BTreeMap<PropertyName, TwinProperty>,
    /// Deleted properties: their versions must not start over, and the cloud must learn of the deletion.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub deleted: BTreeMap<PropertyName, Tombstone>,
    /// What the Device object says of its properties, as last applied.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub spec: BTreeMap<PropertyName, SpecProperty>,
}

/// What is left of a deleted property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Versions of the desired value.
    pub desired_version: TwinVersion,
    /// Versions of the reported value.
    pub reported_version: TwinVersion,
    /// When it was deleted.
    pub at: UnixMillis,
}

/// What a Device object and its model say of a property.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecProperty {
    /// Type of its values in the words of the twin wire.
    pub value_type: String,
    /// The desired value, if the spec has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
}

impl TwinState {
    /// The twin as the seam shows it: without what was deleted.
    pub fn to_twin(&self, device: DeviceId) -> Twin {
        Twin { device, state: self.state.clone(), properties: self.properties.clone() }
    }
}
