//! What is wrong with a device or a model. Pure, and the same at the edge, in the cloud and in the webhook.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize as _;
use serde_json::Value;

use super::{AccessMode, DeviceModelSpec, DeviceProperty, DeviceSpec, ModelProperty, ProtocolConfig};
use crate::{mapper::ValueType, names::PropertyName};

/// Characters of a value that are told.
const SHOWN: usize = 128;
/// Problems of one object that are told.
const MOST: usize = 32;

/// Something that is wrong with a Device or a DeviceModel: the field, its value and why it cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value:?}: {why}")]
pub struct Problem {
    /// The field, `spec.properties[1].desired.value` for instance.
    pub field: String,
    /// Its value, cut to 128 characters; empty if it is missing.
    pub value: String,
    /// What is wrong with it.
    pub why: Why,
}

/// Why a field cannot be what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// A Device without a model.
    #[error("a device needs a model")]
    NoModel,
    /// A Device whose model does not exist.
    #[error("there is no such DeviceModel in the namespace")]
    ModelMissing,
    /// Neither the device nor its model names a protocol.
    #[error("neither the device nor its model names a protocol")]
    NoProtocol,
    /// A name that cannot be one.
    #[error("it cannot be the name of a property")]
    Name,
    /// A name that occurs before.
    #[error("property names must be unique")]
    Duplicate,
    /// A property that the model does not have.
    #[error("the model has no such property")]
    NotInModel,
    /// A property of a method that the device does not have.
    #[error("the device has no such property")]
    NotInDevice,
    /// Nobody says where the property is found.
    #[error("neither the device nor its model has a visitor for property {0:?}")]
    NoVisitor(String),
    /// A desired value of a property that cannot be written.
    #[error("property {0:?} is ReadOnly")]
    ReadOnly(String),
    /// A value that is not of the type of its property.
    #[error("property {property:?} needs {expected}")]
    Type {
        /// The property.
        property: String,
        /// What it needs.
        expected: &'static str,
    },
    /// Less than the minimum of the property.
    #[error("the minimum of property {property:?} is {minimum}")]
    Below {
        /// The property.
        property: String,
        /// The least value, as the model has it.
        minimum: String,
    },
    /// More than the maximum of the property.
    #[error("the maximum of property {property:?} is {maximum}")]
    Above {
        /// The property.
        property: String,
        /// The greatest value, as the model has it.
        maximum: String,
    },
    /// A limit that is no number.
    #[error("a limit has to be a number")]
    Limit,
    /// A minimum above the maximum.
    #[error("the maximum is {0}, which is less")]
    Crossed(String),
    /// A type that there is not.
    #[error("a type is one of INT, FLOAT, DOUBLE, STRING, BOOLEAN, BYTES and STREAM")]
    UnknownType,
    /// An access mode that there is not.
    #[error("an access mode is ReadWrite or ReadOnly")]
    UnknownAccess,
    /// The object cannot be read at all.
    #[error("{0}")]
    Unreadable(String),
    /// A field of an older version that has no place in this one.
    #[error("{0}")]
    Older(&'static str),
}

impl Why {
    /// Whether a change of another object, the model that the device names, may set it right.
    pub fn is_about_model(&self) -> bool {
        matches!(
            self,
            Self::ModelMissing
                | Self::NoProtocol
                | Self::NotInModel
                | Self::NoVisitor(_)
                | Self::ReadOnly(_)
                | Self::Type { .. }
                | Self::Below { .. }
                | Self::Above { .. }
        )
    }
}

impl Problem {
    /// A problem of `field`.
    pub fn new(field: impl Into<String>, value: &str, why: Why) -> Self {
        Self { field: field.into(), value: value.chars().take(SHOWN).collect(), why }
    }
}

/// What is wrong with a device: at most 32 problems, in the order of the fields. `model` is the one that it names, if that
/// exists.
///
/// Upstream: `cloud/pkg/admissioncontroller/admit_device.go`, which looks for duplicate names only.
pub fn validate(device: &DeviceSpec, model: Option<&DeviceModelSpec>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let name = device.device_model_ref.as_ref().map_or("", |model| &model.name);
    if name.is_empty() {
        problems.push(Problem::new("spec.deviceModelRef.name", name, Why::NoModel));
    } else if model.is_none() {
        problems.push(Problem::new("spec.deviceModelRef.name", name, Why::ModelMissing));
    }
    let model = model.filter(|_| !name.is_empty());
    if device.protocol.protocol_name.is_empty() && model.is_some_and(|model| model.protocol.is_empty()) {
        problems.push(Problem::new("spec.protocol.protocolName", "", Why::NoProtocol));
    }
    problems.extend(names(device.properties.iter().map(|property| &*property.name)));
    for (index, property) in device.properties.iter().enumerate() {
        if let Some(model) = model {
            problems.extend(property_problems(index, property, model));
        }
    }
    let known: BTreeSet<&str> = device.properties.iter().map(|property| &*property.name).collect();
    for (index, method) in device.methods.iter().enumerate() {
        for (at, name) in method.property_names.iter().enumerate().filter(|(_, name)| !known.contains(&***name)) {
            let field = format!("spec.methods[{index}].propertyNames[{at}]");
            problems.push(Problem::new(field, name, Why::NotInDevice));
        }
    }
    problems.truncate(MOST);
    problems
}

/// What is wrong with a model: at most 32 problems, in the order of the fields.
///
/// Upstream: `cloud/pkg/admissioncontroller/admit_devicemodel.go`, which looks for duplicate names only.
pub fn validate_model(model: &DeviceModelSpec) -> Vec<Problem> {
    let mut problems = names(model.properties.iter().map(|property| &*property.name));
    for (index, property) in model.properties.iter().enumerate().filter(|(_, property)| is_number(property)) {
        let field = |name: &str| format!("spec.properties[{index}].{name}");
        let (minimum, maximum) = (limit(&property.minimum), limit(&property.maximum));
        for (name, text, limit) in [("minimum", &property.minimum, &minimum), ("maximum", &property.maximum, &maximum)]
        {
            if limit.is_err() {
                problems.push(Problem::new(field(name), text, Why::Limit));
            }
        }
        if let (Ok(Some(minimum)), Ok(Some(maximum))) = (minimum, maximum)
            && minimum > maximum
        {
            let why = Why::Crossed(property.maximum.clone());
            problems.push(Problem::new(field("minimum"), &property.minimum, why));
        }
    }
    problems.truncate(MOST);
    problems
}

/// Reads the `spec` of a DeviceModel as JSON.
///
/// # Errors
/// The [`Problem`]s that keep it from being read: types and access modes that there are not, each with its field, or what
/// else is wrong.
pub fn read_model(spec: &Value) -> Result<DeviceModelSpec, Vec<Problem>> {
    DeviceModelSpec::deserialize(spec).map_err(|err| {
        let mut problems = Vec::new();
        for (index, property) in spec["properties"].as_array().into_iter().flatten().enumerate() {
            let value_type = &property["type"];
            if !value_type.is_null() && ValueType::deserialize(value_type).is_err() {
                problems.push(unknown(index, "type", value_type, Why::UnknownType));
            }
            let access = &property["accessMode"];
            if !access.is_null() && AccessMode::deserialize(access).is_err() {
                problems.push(unknown(index, "accessMode", access, Why::UnknownAccess));
            }
        }
        if problems.is_empty() {
            problems.push(Problem::new("spec", "", Why::Unreadable(err.to_string())));
        }
        problems.truncate(MOST);
        problems
    })
}

/// Reads the `spec` of a Device as JSON.
///
/// # Errors
/// The [`Problem`] that keeps it from being read.
pub fn read_device(spec: &Value) -> Result<DeviceSpec, Vec<Problem>> {
    DeviceSpec::deserialize(spec).map_err(|err| vec![Problem::new("spec", "", Why::Unreadable(err.to_string()))])
}

fn unknown(index: usize, field: &str, value: &Value, why: Why) -> Problem {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Problem::new(format!("spec.properties[{index}].{field}"), &text, why)
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Problem> {
    let mut seen = BTreeSet::new();
    let problem = |(index, name): (usize, &'a str)| {
        let field = format!("spec.properties[{index}].name");
        if PropertyName::new(name).is_err() {
            Some(Problem::new(field, name, Why::Name))
        } else if seen.insert(name) {
            None
        } else {
            Some(Problem::new(field, name, Why::Duplicate))
        }
    };
    names.enumerate().filter_map(problem).collect()
}

fn property_problems(index: usize, property: &DeviceProperty, model: &DeviceModelSpec) -> Vec<Problem> {
    let field = |name: &str| format!("spec.properties[{index}].{name}");
    let name = &property.name;
    let Some(declared) = model.properties.iter().find(|declared| declared.name == *name) else {
        return vec![Problem::new(field("name"), name, Why::NotInModel)];
    };
    let mut problems = Vec::new();
    if is_blank(&property.visitors) && declared.visitors.as_ref().is_none_or(is_blank) {
        problems.push(Problem::new(field("visitors"), "", Why::NoVisitor(name.clone())));
    }
    // Go senders always emit the member, empty if the user left it out.
    let desired = property.desired.as_ref().map(|desired| &*desired.value).filter(|value| !value.is_empty());
    if let Some((value, why)) = desired.and_then(|value| Some((value, refusal(value, declared)?))) {
        problems.push(Problem::new(field("desired.value"), value, why));
    }
    problems
}

fn is_blank(visitor: &ProtocolConfig) -> bool {
    visitor.protocol_name.is_empty() && visitor.config_data.is_empty()
}

/// Why a property cannot take a value.
fn refusal(value: &str, declared: &ModelProperty) -> Option<Why> {
    let property = declared.name.clone();
    if declared.access_mode == AccessMode::ReadOnly {
        return Some(Why::ReadOnly(property));
    }
    let number = match declared.value_type {
        ValueType::Int if value.parse::<i64>().is_err() => {
            return Some(Why::Type { property, expected: "a whole number of 64 bits" });
        }
        ValueType::Int | ValueType::Float | ValueType::Double => value.parse::<f64>().ok().filter(|it| it.is_finite()),
        ValueType::Boolean => {
            // What Go's `strconv.ParseBool` takes.
            let known = matches!(&*value.to_ascii_lowercase(), "true" | "t" | "1" | "false" | "f" | "0");
            return (!known).then_some(Why::Type { property, expected: "true or false" });
        }
        ValueType::Bytes => {
            let known = STANDARD.decode(value).is_ok();
            return (!known).then_some(Why::Type { property, expected: "base64" });
        }
        ValueType::Stream => return Some(Why::Type { property, expected: "no value, as it is a stream" }),
        ValueType::String => return None,
    };
    let Some(number) = number else { return Some(Why::Type { property, expected: "a finite number" }) };
    if limit(&declared.minimum).ok().flatten().is_some_and(|minimum| number < minimum) {
        return Some(Why::Below { property, minimum: declared.minimum.clone() });
    }
    if limit(&declared.maximum).ok().flatten().is_some_and(|maximum| number > maximum) {
        return Some(Why::Above { property, maximum: declared.maximum.clone() });
    }
    None
}

fn is_number(property: &ModelProperty) -> bool {
    matches!(property.value_type, ValueType::Int | ValueType::Float | ValueType::Double)
}

/// A limit; an empty text is none.
fn limit(text: &str) -> Result<Option<f64>, ()> {
    match text.trim() {
        "" => Ok(None),
        text => text.parse::<f64>().ok().filter(|number| !number.is_nan()).map(Some).ok_or(()),
    }
}

#[cfg(test)]
#[path = "validate/tests.rs"]
mod tests;
