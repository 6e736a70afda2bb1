//! Devices and their models: the specs of the CRDs, and the merged view that drivers get.
//!
//! Upstream: `staging/src/github.com/kubeedge/api/apis/devices/v1beta1`.

pub mod command;
mod instance;
mod older;
pub mod push;
mod validate;

use serde::{Deserialize, Serialize};

pub use self::{
    instance::{DeviceInstance, InvalidDevice, PropertyInstance},
    older::{Converted, device_from_v1alpha2, is_older_device, is_older_model, model_from_v1alpha2},
    push::PushMethod,
    validate::{Problem, Why, read_device, read_model, validate, validate_model},
};
use crate::mapper::ValueType;

/// Settings in the words of a protocol: a JSON object.
pub type ConfigData = serde_json::Map<String, serde_json::Value>;

/// API group of the device kinds.
pub const GROUP: &str = "devices.kubeedge.io";
/// API version of the device kinds.
pub const VERSION: &str = "v1beta1";

/// `spec` of a Device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceSpec {
    /// The model; without one the device cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_model_ref: Option<ModelRef>,
    /// The node that the device hangs on; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// The protocol, and its settings for the device as a whole.
    pub protocol: ProtocolConfig,
    /// The properties in use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<DeviceProperty>,
    /// Commands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<DeviceMethod>,
    /// Whether and how often the state is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_report: Option<StateReport>,
}

/// Reference to a DeviceModel in the namespace of the Device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// A protocol and its settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProtocolConfig {
    /// Name of the protocol, spelled as the mapper registers it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol_name: String,
    /// Settings.
    #[serde(skip_serializing_if = "ConfigData::is_empty", deserialize_with = "null_is_default")]
    pub config_data: ConfigData,
}

/// A property of a Device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceProperty {
    /// Its name in the model.
    pub name: String,
    /// The value that it should have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<TwinField>,
    /// Where it is found on the device.
    pub visitors: ProtocolConfig,
    /// Milliseconds between reports; 0 means the mapper's default.
    #[serde(skip_serializing_if = "is_zero")]
    pub report_cycle: i64,
    /// Milliseconds between reads; 0 means the mapper's default.
    #[serde(skip_serializing_if = "is_zero")]
    pub collect_cycle: i64,
    /// Whether it is reported to the cloud.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub report_to_cloud: bool,
    /// Where else values go; carried as it is, see [`PushMethod`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_method: Option<serde_json::Value>,
}

/// A value with metadata, as the CRDs have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinField {
    /// The value as text.
    #[serde(default)]
    pub value: String,
    /// `type`, `timestamp` and what else somebody wrote.
    #[serde(
        default,
        skip_serializing_if = "std::collections::BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// A command of a Device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceMethod {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Properties that it writes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub property_names: Vec<String>,
}

/// How the state of a Device is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateReport {
    /// Whether at all.
    pub report_to_cloud: bool,
    /// Milliseconds between reports; 0 means the mapper's default.
    pub report_cycle: i64,
}

/// `spec` of a DeviceModel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceModelSpec {
    /// The protocol.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Settings of the protocol that devices start from.
    #[serde(skip_serializing_if = "ConfigData::is_empty", deserialize_with = "null_is_default")]
    pub protocol_config_data: ConfigData,
    /// The properties.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<ModelProperty>,
}

/// A property of a DeviceModel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelProperty {
    /// Its name.
    pub name: String,
    /// What it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Type of its values.
    #[serde(rename = "type")]
    pub value_type: ValueType,
    /// Whether it can be written.
    pub access_mode: AccessMode,
    /// Least value, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub minimum: String,
    /// Greatest value, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub maximum: String,
    /// Unit, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Visitor settings that devices start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visitors: Option<ProtocolConfig>,
}

/// Whether a property can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AccessMode {
    /// Only read.
    #[default]
    ReadOnly,
    /// Read and written.
    ReadWrite,
}

/// `status` of a DeviceStatus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceStatusStatus {
    /// Values per property.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub twins: Vec<StatusTwin>,
    /// The state as last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When the device was last online, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_online_time: Option<String>,
}

/// Values of one property in a DeviceStatus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusTwin {
    /// The property.
    pub property_name: String,
    /// The value that the device has.
    pub reported: TwinField,
    /// The desired value that the device has seen.
    pub observed_desired: TwinField,
}

/// State of a device.
///
/// Upstream: `edge/pkg/devicetwin/dtcommon` (accepted states).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
#[non_exhaustive]
pub enum DeviceState {
    /// It answers.
    Online,
    /// It does not answer.
    Offline,
    /// It is well.
    Ok,
    /// Nobody knows.
    Unknown,
    /// It says that it is not well.
    Unhealthy,
    /// Mappers say this of a line that is down; upstream drops it.
    Disconnected,
    /// A word of a vendor.
    Other(String),
}

impl DeviceState {
    /// The word of it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Unhealthy => "unhealthy",
            Self::Disconnected => "disconnected",
            Self::Other(word) => word,
        }
    }

    /// Whether the device could be reached.
    pub fn is_reachable(&self) -> bool {
        matches!(self, Self::Online | Self::Ok)
    }
}

impl From<String> for DeviceState {
    fn from(word: String) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "online" => Self::Online,
            "offline" => Self::Offline,
            "ok" => Self::Ok,
            "unknown" => Self::Unknown,
            "unhealthy" => Self::Unhealthy,
            "disconnected" => Self::Disconnected,
            _ => Self::Other(word),
        }
    }
}

impl From<DeviceState> for String {
    fn from(state: DeviceState) -> Self {
        state.as_str().to_owned()
    }
}

/// Go programs write `null` for an empty map.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}
