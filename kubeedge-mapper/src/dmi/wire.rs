//! The messages of package `v1beta1`, by the numbers of their fields. Messages of the same fields share a type: the wire
//! carries no names.
//!
//! Upstream: `staging/src/github.com/kubeedge/api/apis/dmi/v1beta1`.

mod push;

use std::collections::BTreeMap;

use prost::Message;

pub(super) use self::push::*;

/// A mapper announces itself.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct MapperRegisterRequest {
    #[prost(bool, tag = "1")]
    pub(in crate::dmi) with_data: bool,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) mapper: Option<MapperInfo>,
}

/// What the mapper has to look after.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct MapperRegisterResponse {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::dmi) model_list: Vec<DeviceModel>,
    #[prost(message, repeated, tag = "2")]
    pub(in crate::dmi) device_list: Vec<Device>,
}

/// A mapper; `address` is the path of its socket.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct MapperInfo {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) name: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) version: String,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) api_version: String,
    #[prost(string, tag = "4")]
    pub(in crate::dmi) protocol: String,
    #[prost(bytes = "vec", tag = "5")]
    pub(in crate::dmi) address: Vec<u8>,
    #[prost(string, tag = "6")]
    pub(in crate::dmi) state: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DeviceModel {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) spec: Option<DeviceModelSpec>,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DeviceModelSpec {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::dmi) properties: Vec<ModelProperty>,
    #[prost(message, repeated, tag = "2")]
    pub(in crate::dmi) commands: Vec<DeviceCommand>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct ModelProperty {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) name: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) description: String,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) value_type: String,
    #[prost(string, tag = "4")]
    pub(in crate::dmi) access_mode: String,
    #[prost(string, tag = "5")]
    pub(in crate::dmi) minimum: String,
    #[prost(string, tag = "6")]
    pub(in crate::dmi) maximum: String,
    #[prost(string, tag = "7")]
    pub(in crate::dmi) unit: String,
}

/// Nothing uses it; here so that it survives.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DeviceCommand {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) name: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) url: String,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) method: String,
    #[prost(string, repeated, tag = "4")]
    pub(in crate::dmi) status_code: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub(in crate::dmi) parameters: Vec<String>,
    #[prost(bytes = "vec", tag = "6")]
    pub(in crate::dmi) response: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Device {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) spec: Option<DeviceSpec>,
    #[prost(message, optional, tag = "3")]
    pub(in crate::dmi) status: Option<DeviceStatus>,
    #[prost(string, tag = "4")]
    pub(in crate::dmi) namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DeviceSpec {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) device_model_reference: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) protocol: Option<ProtocolConfig>,
    #[prost(message, repeated, tag = "3")]
    pub(in crate::dmi) properties: Vec<DeviceProperty>,
    #[prost(message, repeated, tag = "4")]
    pub(in crate::dmi) methods: Vec<DeviceMethod>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DeviceMethod {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) name: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) description: String,
    #[prost(string, repeated, tag = "3")]
    pub(in crate::dmi) property_names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DeviceProperty {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) desired: Option<TwinProperty>,
    #[prost(message, optional, tag = "3")]
    pub(in crate::dmi) visitors: Option<ProtocolConfig>,
    #[prost(int64, tag = "4")]
    pub(in crate::dmi) report_cycle: i64,
    #[prost(int64, tag = "5")]
    pub(in crate::dmi) collect_cycle: i64,
    #[prost(bool, tag = "6")]
    pub(in crate::dmi) report_to_cloud: bool,
    #[prost(message, optional, tag = "7")]
    pub(in crate::dmi) push_method: Option<PushMethod>,
}

/// Also `VisitorConfig`, which has the same fields.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct ProtocolConfig {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) protocol_name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) config_data: Option<CustomizedValue>,
}

/// Also `AnomalyDetection`, which has the same field.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct CustomizedValue {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(in crate::dmi) data: BTreeMap<String, Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Any {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::dmi) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DeviceStatus {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::dmi) twins: Vec<Twin>,
    #[prost(bool, tag = "2")]
    pub(in crate::dmi) report_to_cloud: bool,
    #[prost(int64, tag = "3")]
    pub(in crate::dmi) report_cycle: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Twin {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) property_name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) observed_desired: Option<TwinProperty>,
    #[prost(message, optional, tag = "3")]
    pub(in crate::dmi) reported: Option<TwinProperty>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct TwinProperty {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) value: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(in crate::dmi) metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct ReportDeviceStatusRequest {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) device_name: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) reported_device: Option<DeviceStatus>,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) device_namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct ReportDeviceStatesRequest {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) device_name: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) device_namespace: String,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) state: String,
}

/// `RegisterDeviceRequest`, `UpdateDeviceRequest` and `GetDeviceResponse`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DeviceRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::dmi) device: Option<Device>,
}

/// `RegisterDeviceResponse`, `RemoveDeviceRequest` and `GetDeviceRequest`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DeviceName {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) device_name: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) device_namespace: String,
}

/// `CreateDeviceModelRequest` and `UpdateDeviceModelRequest`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct ModelRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::dmi) model: Option<DeviceModel>,
}

/// `CreateDeviceModelResponse` and `RemoveDeviceModelRequest`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct ModelName {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) name: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) namespace: String,
}

/// Each response without fields.
#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Empty {}
