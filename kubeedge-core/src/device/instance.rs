//! A device merged with its model: all that a driver needs to know.

use std::{sync::Arc, time::Duration};

use serde::Deserialize as _;

use super::{AccessMode, ConfigData, DeviceModelSpec, DeviceProperty, DeviceSpec, ModelProperty, PushMethod};
use crate::{
    mapper::{ValueType, Visitor},
    names::{DeviceId, PropertyName},
};

/// A device that cannot be used as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDevice {
    /// `spec.deviceModelRef` names no model.
    #[error("device {0} has no spec.deviceModelRef.name")]
    NoModel(DeviceId),
    /// `spec.protocol.protocolName` is missing here and in the model.
    #[error("device {0} has no spec.protocol.protocolName")]
    NoProtocol(DeviceId),
    /// A property has a name that cannot be one, or one that occurs twice.
    #[error("device {device} has property {name:?} {why}")]
    Property {
        /// The device.
        device: DeviceId,
        /// The property as written.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// A property of a device merged with its model.
#[derive(Clone, Debug, PartialEq)]
pub struct PropertyInstance {
    /// Where and as what it is found.
    pub visitor: Visitor,
    /// Whether it can be written.
    pub access: AccessMode,
    /// The value that it should have, if somebody said so.
    pub desired: Option<String>,
    /// Time between reads; `None` for the mapper's default.
    pub collect_cycle: Option<Duration>,
    /// Time between reports; `None` for the mapper's default.
    pub report_cycle: Option<Duration>,
    /// Whether it is reported to the cloud.
    pub report_to_cloud: bool,
    /// Least value, as text; empty for none.
    pub minimum: String,
    /// Greatest value, as text; empty for none.
    pub maximum: String,
    /// Where else values go. One that cannot be read counts as none, and is logged.
    pub push: Option<Arc<PushMethod>>,
}

/// A device merged with its model.
///
/// Upstream: `edge/pkg/devicetwin/dmicache` (the merge).
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInstance {
    /// The device.
    pub id: DeviceId,
    /// The protocol.
    pub protocol: String,
    /// Settings of the protocol: the model's, overlaid key by key with the device's.
    pub config: Arc<ConfigData>,
    /// The properties in use.
    pub properties: Vec<PropertyInstance>,
    /// Whether the state is reported to the cloud.
    pub report_state: bool,
    /// Time between reports of the state; `None` for the mapper's default.
    pub state_cycle: Option<Duration>,
}

impl DeviceInstance {
    /// Merges a device with its model.
    ///
    /// # Errors
    /// [`InvalidDevice`] names the device, the field and the value.
    pub fn merge(id: DeviceId, device: &DeviceSpec, model: &DeviceModelSpec) -> Result<Self, InvalidDevice> {
        if device.device_model_ref.as_ref().is_none_or(|model| model.name.is_empty()) {
            return Err(InvalidDevice::NoModel(id));
        }
        let protocol = match (device.protocol.protocol_name.as_str(), model.protocol.as_str()) {
            ("", "") => return Err(InvalidDevice::NoProtocol(id)),
            ("", of_model) => of_model.to_owned(),
            (of_device, _) => of_device.to_owned(),
        };
        let config = overlay(&model.protocol_config_data, &device.protocol.config_data).into();
        let mut properties: Vec<PropertyInstance> = Vec::with_capacity(device.properties.len());
        for property in &device.properties {
            let merged = property_instance(&id, property, model)?;
            if properties.iter().any(|other| other.visitor.property == merged.visitor.property) {
                let (device, name) = (id, property.name.clone());
                return Err(InvalidDevice::Property { device, name, why: "more than once" });
            }
            properties.push(merged);
        }
        let report = device.state_report.unwrap_or_default();
        Ok(Self {
            id,
            protocol,
            config,
            properties,
            report_state: report.report_to_cloud,
            state_cycle: millis(report.report_cycle),
        })
    }

    /// The property called `name`.
    pub fn property(&self, name: &PropertyName) -> Option<&PropertyInstance> {
        self.properties.iter().find(|property| property.visitor.property == *name)
    }
}

fn property_instance(
    id: &DeviceId,
    property: &DeviceProperty,
    model: &DeviceModelSpec,
) -> Result<PropertyInstance, InvalidDevice> {
    let invalid = |why| InvalidDevice::Property { device: id.clone(), name: property.name.clone(), why };
    let name = PropertyName::new(&property.name).map_err(|_| invalid("with no usable name"))?;
    let declared: &ModelProperty = model
        .properties
        .iter()
        .find(|declared| declared.name == property.name)
        .ok_or_else(|| invalid("that its model does not have"))?;
    if declared.value_type == ValueType::Stream {
        return Err(invalid("of type STREAM, which is not read as a value"));
    }
    let of_model = declared.visitors.as_ref().map(|visitors| &visitors.config_data);
    let config = match of_model {
        Some(of_model) => overlay(of_model, &property.visitors.config_data),
        None => property.visitors.config_data.clone(),
    };
    Ok(PropertyInstance {
        visitor: Visitor { property: name, value_type: declared.value_type, config: config.into() },
        access: declared.access_mode,
        // Go senders always emit the member, empty if the user left it out.
        desired: property.desired.as_ref().map(|desired| desired.value.clone()).filter(|value| !value.is_empty()),
        collect_cycle: millis(property.collect_cycle),
        report_cycle: millis(property.report_cycle),
        report_to_cloud: property.report_to_cloud,
        minimum: declared.minimum.clone(),
        maximum: declared.maximum.clone(),
        push: push_method(id, property),
    })
}

fn push_method(id: &DeviceId, property: &DeviceProperty) -> Option<Arc<PushMethod>> {
    match PushMethod::deserialize(property.push_method.as_ref()?) {
        Ok(method) => Some(Arc::new(method)),
        Err(error) => {
            // The device itself is as good as it was.
            tracing::warn!(device = %id, property = property.name, %error, "pushMethod cannot be read, nothing is pushed");
            None
        }
    }
}

fn overlay(base: &ConfigData, over: &ConfigData) -> ConfigData {
    let mut merged = base.clone();
    merged.extend(over.iter().map(|(key, value)| (key.clone(), value.clone())));
    merged
}

fn millis(count: i64) -> Option<Duration> {
    u64::try_from(count).ok().filter(|count| *count > 0).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn merge(device: serde_json::Value) -> Result<DeviceInstance, InvalidDevice> {
        let model = serde_json::from_value(json!({
            "protocol": "modbus", "protocolConfigData": {"timeout": 1000, "slaveID": 9},
            "properties": [{"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly",
                "visitors": {"protocolName": "modbus", "configData": {"register": "HoldingRegister", "offset": 1}}}]
        }))
        .unwrap();
        let device = serde_json::from_value(device).unwrap();
        DeviceInstance::merge("default/boiler".parse().unwrap(), &device, &model)
    }

    #[test]
    fn settings_of_the_device_win_key_by_key() {
        let merged = merge(json!({
            "deviceModelRef": {"name": "boiler"}, "protocol": {"configData": {"slaveID": 1}},
            "properties": [{"name": "temperature", "visitors": {"configData": {"offset": 2}}, "collectCycle": 500,
                "pushMethod": {"mqtt": {"address": "tcp://h:1883", "topic": "t"}}}]
        }))
        .unwrap();
        assert_eq!(merged.protocol, "modbus");
        assert_eq!((&merged.config["timeout"], &merged.config["slaveID"]), (&json!(1000), &json!(1)));
        let property = &merged.properties[0];
        assert_eq!(property.visitor.config["register"], "HoldingRegister");
        assert_eq!(property.visitor.config["offset"], 2);
        assert_eq!(property.collect_cycle, Some(Duration::from_millis(500)));
        assert_eq!(property.push.as_ref().unwrap().fields(), ["mqtt"]);
    }

    #[test]
    fn what_crashed_go_is_a_clear_error() {
        let no_model = merge(json!({"protocol": {"protocolName": "modbus"}})).unwrap_err();
        assert_eq!(no_model.to_string(), "device default/boiler has no spec.deviceModelRef.name");
        let twice = merge(json!({"deviceModelRef": {"name": "boiler"},
            "properties": [{"name": "temperature"}, {"name": "temperature"}]}))
        .unwrap_err();
        assert_eq!(twice.to_string(), "device default/boiler has property \"temperature\" more than once");
        let unknown = merge(json!({"deviceModelRef": {"name": "boiler"}, "properties": [{"name": "x"}]})).unwrap_err();
        assert!(unknown.to_string().contains("that its model does not have"));
    }
}
