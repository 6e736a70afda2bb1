//! Devices, their models, and what is known of their state. The contents are those of [`kubeedge_core::device`].

use kubeedge_core::device::{DeviceModelSpec, DeviceSpec, DeviceStatusStatus, StateReport};
use serde::{Deserialize, Serialize};

use super::resource::custom_resource;

custom_resource! {
    /// A device at an edge node. Its status is an older place of [`DeviceSpec::state_report`], not a state.
    Device { spec: DeviceSpec, status: StateReport }
    NamespaceResourceScope "devices.kubeedge.io" "v1beta1" "devices"
}

custom_resource! {
    /// What devices of one make have in common. Has no status.
    DeviceModel { spec: DeviceModelSpec, status: NoSpec }
    NamespaceResourceScope "devices.kubeedge.io" "v1beta1" "devicemodels"
}

custom_resource! {
    /// What the edge has reported of the device of the same namespace and name.
    ///
    /// There is no status subresource: the status is written with the object.
    DeviceStatus { spec: NoSpec, status: DeviceStatusStatus }
    NamespaceResourceScope "devices.kubeedge.io" "v1beta1" "devicestatuses"
}

/// A part that a kind has for form's sake only: an empty object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoSpec {}
