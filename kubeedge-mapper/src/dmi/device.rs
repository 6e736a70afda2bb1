//! Devices and models between the objects of the CRDs and the messages of DMI.

mod push;

use std::{collections::BTreeMap, sync::Arc};

use kubeedge_core::{
    device::{
        ConfigData, DeviceInstance, DeviceMethod, DeviceModelSpec, DeviceProperty, DeviceSpec, InvalidDevice,
        ModelProperty, ModelRef, ProtocolConfig, StateReport, TwinField,
    },
    mapper::ValueType,
    names::{DeviceId, InvalidName, Namespace, ObjectName, PropertyName},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{any, wire};

/// Where devices of peers are that know of no namespaces (KubeEdge 1.15).
const DEFAULT_NAMESPACE: &str = "default";

/// A Device and its DeviceModel, as they are written: all that a mapper is told of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DmiDevice {
    /// The device.
    pub id: DeviceId,
    /// `spec` of the Device.
    pub spec: Arc<DeviceSpec>,
    /// `spec` of its DeviceModel.
    pub model: Arc<DeviceModelSpec>,
}

/// A model is in the namespace of its devices.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ModelId {
    pub(super) namespace: Namespace,
    pub(super) name: ObjectName,
}

/// A message that lacks what it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadMessage {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("{field} is {value:?}, which is none")]
    Word { field: &'static str, value: String },
}

impl DmiDevice {
    /// The protocol: the device's, or else that of its model.
    pub fn protocol(&self) -> &str {
        match self.spec.protocol.protocol_name.as_str() {
            "" => &self.model.protocol,
            of_device => of_device,
        }
    }

    /// The device as drivers see it. Properties of type STREAM are left out: no driver reads them as values.
    ///
    /// # Errors
    /// [`InvalidDevice`] if it cannot be used as it is written.
    pub fn instance(&self) -> Result<DeviceInstance, InvalidDevice> {
        let is_stream =
            |name: &str| self.model.properties.iter().any(|of| of.name == name && of.value_type == ValueType::Stream);
        if self.spec.properties.iter().any(|property| is_stream(&property.name)) {
            let mut spec = DeviceSpec::clone(&self.spec);
            spec.properties.retain(|property| !is_stream(&property.name));
            return DeviceInstance::merge(self.id.clone(), &spec, &self.model);
        }
        DeviceInstance::merge(self.id.clone(), &self.spec, &self.model)
    }

    /// The same with other desired values of its properties; what has none of them is desired no more.
    #[must_use]
    pub fn desiring(mut self, desired: &BTreeMap<PropertyName, String>) -> Self {
        let wanted = |name: &str| desired.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value);
        let changed = |property: &DeviceProperty| {
            let of_spec =
                property.desired.as_ref().map(|desired| desired.value.as_str()).filter(|value| !value.is_empty());
            wanted(&property.name).map(String::as_str) != of_spec
        };
        if self.spec.properties.iter().any(changed) {
            let spec = Arc::make_mut(&mut self.spec);
            for property in &mut spec.properties {
                let metadata = property.desired.take().unwrap_or_default().metadata;
                property.desired = wanted(&property.name).map(|value| TwinField { value: value.clone(), metadata });
            }
        }
        self
    }

    pub(super) fn model_id(&self) -> Option<ModelId> {
        let name = self.spec.device_model_ref.as_ref().map(|model| model.name.as_str())?;
        Some(ModelId { namespace: self.id.namespace().clone(), name: ObjectName::new(name).ok()? })
    }

    /// Each part that a Go mapper looks into is there, even if it is empty: it would crash otherwise.
    ///
    /// Upstream: `edge/pkg/devicetwin/dmicache` (the merge), `edge/pkg/devicetwin/dtcommon/util.go`.
    pub(super) fn to_wire(&self) -> wire::Device {
        let spec = &self.spec;
        let of_model: BTreeMap<_, _> =
            self.model.properties.iter().filter_map(|of| Some((of.name.as_str(), of.visitors.as_ref()?))).collect();
        let properties = spec.properties.iter().map(|property| {
            let visitors = match of_model.get(property.name.as_str()) {
                Some(of_model) => merged(of_model, &property.visitors),
                None => property.visitors.clone(),
            };
            property_to_wire(property, &visitors)
        });
        let protocol = ProtocolConfig {
            protocol_name: self.protocol().to_owned(),
            config_data: overlay(&self.model.protocol_config_data, &spec.protocol.config_data),
        };
        let report = spec.state_report.unwrap_or_default();
        wire::Device {
            name: self.id.name().to_string(),
            spec: Some(wire::DeviceSpec {
                device_model_reference: spec.device_model_ref.clone().unwrap_or_default().name,
                protocol: Some(protocol_to_wire(&protocol)),
                properties: properties.collect(),
                methods: spec.methods.iter().map(method_to_wire).collect(),
            }),
            status: Some(wire::DeviceStatus {
                twins: Vec::new(),
                report_to_cloud: report.report_to_cloud,
                report_cycle: report.report_cycle,
            }),
            namespace: self.id.namespace().to_string(),
        }
    }
}

impl ModelId {
    pub(super) fn parse(namespace: &str, name: &str) -> Result<Self, BadMessage> {
        Ok(Self { namespace: namespace_of(namespace)?, name: ObjectName::new(name)? })
    }

    pub(super) fn to_wire(&self, spec: &DeviceModelSpec) -> wire::DeviceModel {
        let properties = spec.properties.iter().map(|property| wire::ModelProperty {
            name: property.name.clone(),
            description: property.description.clone(),
            value_type: word(property.value_type),
            access_mode: word(property.access_mode),
            minimum: property.minimum.clone(),
            maximum: property.maximum.clone(),
            unit: property.unit.clone(),
        });
        wire::DeviceModel {
            name: self.name.to_string(),
            spec: Some(wire::DeviceModelSpec { properties: properties.collect(), commands: Vec::new() }),
            namespace: self.namespace.to_string(),
        }
    }
}

/// The visitors of the model carry the protocol; each setting is the device's, or else the model's.
fn merged(of_model: &ProtocolConfig, of_device: &ProtocolConfig) -> ProtocolConfig {
    let name = if of_model.protocol_name.is_empty() { &of_device.protocol_name } else { &of_model.protocol_name };
    ProtocolConfig { protocol_name: name.clone(), config_data: overlay(&of_model.config_data, &of_device.config_data) }
}

fn overlay(base: &ConfigData, over: &ConfigData) -> ConfigData {
    let mut all = base.clone();
    all.extend(over.clone());
    all
}

fn property_to_wire(property: &DeviceProperty, visitors: &ProtocolConfig) -> wire::DeviceProperty {
    wire::DeviceProperty {
        name: property.name.clone(),
        desired: Some(field_to_wire(property.desired.as_ref())),
        visitors: Some(protocol_to_wire(visitors)),
        // Mappers do not agree on the unit, so the number is carried as it is.
        report_cycle: property.report_cycle,
        collect_cycle: property.collect_cycle,
        report_to_cloud: property.report_to_cloud,
        push_method: property.push_method.as_ref().and_then(push::from_json),
    }
}

fn field_to_wire(field: Option<&TwinField>) -> wire::TwinProperty {
    let field = field.cloned().unwrap_or_default();
    wire::TwinProperty { value: field.value, metadata: field.metadata }
}

fn protocol_to_wire(protocol: &ProtocolConfig) -> wire::ProtocolConfig {
    wire::ProtocolConfig {
        protocol_name: protocol.protocol_name.clone(),
        config_data: Some(any::from_config(&protocol.config_data)),
    }
}

fn method_to_wire(method: &DeviceMethod) -> wire::DeviceMethod {
    wire::DeviceMethod {
        name: method.name.clone(),
        description: method.description.clone(),
        property_names: method.property_names.clone(),
    }
}

pub(super) fn device_from_wire(device: Option<wire::Device>) -> Result<(DeviceId, DeviceSpec), BadMessage> {
    let device = device.ok_or(BadMessage::Missing("device"))?;
    let id = device_id(&device.namespace, &device.name)?;
    let spec = device.spec.ok_or(BadMessage::Missing("device.spec"))?;
    let status = device.status.unwrap_or_default();
    let state_report = StateReport { report_to_cloud: status.report_to_cloud, report_cycle: status.report_cycle };
    let spec = DeviceSpec {
        device_model_ref: Some(ModelRef { name: spec.device_model_reference }),
        protocol: protocol_from_wire(spec.protocol.ok_or(BadMessage::Missing("device.spec.protocol"))?),
        properties: spec.properties.into_iter().map(property_from_wire).collect(),
        methods: spec.methods.into_iter().map(method_from_wire).collect(),
        state_report: (state_report != StateReport::default()).then_some(state_report),
        ..DeviceSpec::default()
    };
    Ok((id, spec))
}

pub(super) fn model_from_wire(model: Option<wire::DeviceModel>) -> Result<(ModelId, DeviceModelSpec), BadMessage> {
    let model = model.ok_or(BadMessage::Missing("model"))?;
    let id = ModelId::parse(&model.namespace, &model.name)?;
    let spec = model.spec.ok_or(BadMessage::Missing("model.spec"))?;
    let properties = spec.properties.into_iter().map(|property| {
        Ok(ModelProperty {
            value_type: parse_word("type", property.value_type)?,
            access_mode: parse_word("accessMode", property.access_mode)?,
            name: property.name,
            description: property.description,
            minimum: property.minimum,
            maximum: property.maximum,
            unit: property.unit,
            visitors: None,
        })
    });
    let properties = properties.collect::<Result<_, BadMessage>>()?;
    Ok((id, DeviceModelSpec { properties, ..DeviceModelSpec::default() }))
}

pub(super) fn device_id(namespace: &str, name: &str) -> Result<DeviceId, BadMessage> {
    Ok(DeviceId::new(namespace_of(namespace)?, ObjectName::new(name)?))
}

fn namespace_of(text: &str) -> Result<Namespace, InvalidName> {
    Namespace::new(if text.is_empty() { DEFAULT_NAMESPACE } else { text })
}

fn property_from_wire(property: wire::DeviceProperty) -> DeviceProperty {
    let desired = property.desired.unwrap_or_default();
    let desired = TwinField { value: desired.value, metadata: desired.metadata };
    DeviceProperty {
        name: property.name,
        desired: (desired != TwinField::default()).then_some(desired),
        visitors: protocol_from_wire(property.visitors.unwrap_or_default()),
        report_cycle: property.report_cycle,
        collect_cycle: property.collect_cycle,
        report_to_cloud: property.report_to_cloud,
        push_method: property.push_method.as_ref().map(push::to_json),
    }
}

fn protocol_from_wire(protocol: wire::ProtocolConfig) -> ProtocolConfig {
    ProtocolConfig { protocol_name: protocol.protocol_name, config_data: any::to_config(protocol.config_data.as_ref()) }
}

fn method_from_wire(method: wire::DeviceMethod) -> DeviceMethod {
    DeviceMethod { name: method.name, description: method.description, property_names: method.property_names }
}

/// Types and access modes are spelled as in the CRDs.
fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

fn parse_word<T: DeserializeOwned + Default>(field: &'static str, word: String) -> Result<T, BadMessage> {
    if word.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_value(Value::String(word.clone())).map_err(|_| BadMessage::Word { field, value: word })
}
