use std::time::Duration;

use kubeedge_core::{
    device::ConfigData,
    mapper::{DriverError, ValueType, Visitor},
};

use super::line::Medium;
use crate::{
    convert::{Meaning, RegisterFormat, RegisterKind},
    settings::Settings,
};

/// Settings of a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DeviceSettings {
    pub(super) medium: Medium,
    pub(super) unit: u8,
    pub(super) timeout: Duration,
}

impl DeviceSettings {
    pub(super) fn read(config: &ConfigData) -> Result<Self, DriverError> {
        let settings = Settings::new(config);
        Ok(Self {
            medium: medium(settings)?,
            unit: settings.whole("slaveID", 0, u8::MAX)?.unwrap_or(1),
            timeout: Duration::from_millis(settings.whole("timeout", 1, 60_000_u64)?.unwrap_or(1000)),
        })
    }
}

fn medium(settings: Settings<'_>) -> Result<Medium, DriverError> {
    match settings.text("communicateMode")?.map(|mode| mode.to_ascii_uppercase()).as_deref() {
        // The older generation says it by its keys.
        None if !settings.has("ip") && (settings.has("serialPort") || settings.has("serialName")) => serial(settings),
        None | Some("TCP") => Ok(Medium::Tcp {
            host: settings.text("ip")?.ok_or_else(|| settings.wrong("ip", "the address of the device is needed"))?,
            port: settings.whole("port", 1, u16::MAX)?.unwrap_or(502),
        }),
        Some("RTU") => serial(settings),
        Some(_) => Err(settings.wrong("communicateMode", "must be TCP or RTU")),
    }
}

#[cfg(feature = "modbus-rtu")]
fn serial(settings: Settings<'_>) -> Result<Medium, DriverError> {
    super::serial::SerialSettings::read(settings).map(Medium::Serial)
}

#[cfg(not(feature = "modbus-rtu"))]
fn serial(settings: Settings<'_>) -> Result<Medium, DriverError> {
    Err(settings.wrong("communicateMode", "serial lines are not in this build, use TCP"))
}

/// The four tables of a Modbus device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Coil,
    DiscreteInput,
    Input,
    Holding,
}

/// Settings of a visitor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VisitorSettings {
    pub(super) table: Table,
    pub(super) address: u16,
    /// How many registers or bits.
    pub(super) count: u16,
    /// How registers hold the value; not used for bits.
    pub(super) format: RegisterFormat,
    pub(super) meaning: Meaning,
}

impl VisitorSettings {
    pub(super) fn read(visitor: &Visitor) -> Result<Self, DriverError> {
        let settings = Settings::new(&visitor.config);
        let table = match settings.text("register")?.map(|table| table.to_ascii_lowercase()).as_deref() {
            Some("coilregister") => Table::Coil,
            Some("discreteinputregister") => Table::DiscreteInput,
            Some("inputregister") => Table::Input,
            Some("holdingregister") => Table::Holding,
            _ => {
                let reason = "must be CoilRegister, DiscreteInputRegister, InputRegister or HoldingRegister";
                return Err(settings.wrong("register", reason));
            }
        };
        let address = settings.whole("offset", 0, u16::MAX)?.unwrap_or(0);
        // Go peers write 0 for a setting that was left out.
        let limit = settings.whole("limit", 0, 125_u16)?.filter(|limit| *limit > 0);
        let format = RegisterFormat {
            swap_bytes: settings.flag("isSwap")?.unwrap_or(false),
            swap_registers: settings.flag("isRegisterSwap")?.unwrap_or(false),
            ..data_type(settings, visitor.value_type, limit)?
        };
        let count = match table {
            Table::Coil | Table::DiscreteInput => limit.unwrap_or(1),
            Table::Input | Table::Holding => {
                format.check().map_err(|why| settings.wrong("limit", why))?;
                format.registers
            }
        };
        if count > 63 && matches!(table, Table::Coil | Table::DiscreteInput) {
            return Err(settings.wrong("limit", "must be at most 63 for coils and discrete inputs"));
        }
        if u32::from(address) + u32::from(count) > 0x1_0000 {
            return Err(settings.wrong("offset", format_args!("{count} registers from here go beyond the last one")));
        }
        let meaning = Meaning::read(settings)?;
        let is_word = format.kind == RegisterKind::Unsigned && matches!(table, Table::Input | Table::Holding);
        if let Some(bits) = meaning.bits
            && (!is_word || u16::from(bits.first + bits.count) > 16 * format.registers)
        {
            let key = ["bit", "bits", "mask"].into_iter().find(|key| settings.has(key));
            return Err(settings.wrong(key.unwrap_or("bits"), "these are no unsigned registers with so many bits"));
        }
        Ok(Self { table, address, count, format, meaning })
    }
}

fn data_type(settings: Settings<'_>, of_model: ValueType, limit: Option<u16>) -> Result<RegisterFormat, DriverError> {
    use RegisterKind::{Boolean, Bytes, Float, Signed, Text, Unsigned};
    let word = settings.text("dataType")?.map(|word| word.to_ascii_lowercase());
    // With bits or names the type of the property is not that of the registers.
    let is_code = ["bit", "bits", "mask", "enum"].into_iter().any(|key| settings.has(key));
    let of_model = if is_code { "int" } else { of_model.twin_type() };
    let (kind, registers) = match word.as_deref().unwrap_or(of_model) {
        "int" => (Unsigned, limit.unwrap_or(1)),
        "float" | "double" => match limit.unwrap_or(1) {
            1 => (Unsigned, 1),
            more => (Float, more),
        },
        "bool" | "boolean" => (Boolean, limit.unwrap_or(1)),
        "string" => (Text, limit.unwrap_or(1)),
        "bytes" => (Bytes, limit.unwrap_or(1)),
        "int16" => (Signed, 1),
        "uint16" => (Unsigned, 1),
        "int32" => (Signed, 2),
        "uint32" => (Unsigned, 2),
        "float32" => (Float, 2),
        "int64" => (Signed, 4),
        "uint64" => (Unsigned, 4),
        "float64" => (Float, 4),
        _ => {
            let reason = "must be int, float, double, boolean, string, bytes, or one with its size as int16 or float32";
            return Err(settings.wrong("dataType", reason));
        }
    };
    if limit.is_some_and(|limit| limit != registers) {
        return Err(settings.wrong("limit", format_args!("the data type has {registers} registers")));
    }
    Ok(RegisterFormat::new(kind, registers))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn device(config: &Value) -> Result<DeviceSettings, String> {
        DeviceSettings::read(config.as_object().unwrap()).map_err(|err| err.to_string())
    }

    fn visitor(value_type: ValueType, config: &Value) -> Result<VisitorSettings, String> {
        let config = config.as_object().unwrap().clone().into();
        let visitor = Visitor { property: "p".parse().unwrap(), value_type, config };
        VisitorSettings::read(&visitor).map_err(|err| err.to_string())
    }

    #[test]
    fn devices_as_the_published_examples_write_them() {
        let read = device(&json!({"communicateMode": "TCP", "slaveID": 3, "ip": "10.0.0.7", "port": "1502"})).unwrap();
        let timeout = Duration::from_secs(1);
        let medium = Medium::Tcp { host: "10.0.0.7".into(), port: 1502 };
        assert_eq!(read, DeviceSettings { medium, unit: 3, timeout });
        assert_eq!(device(&json!({"ip": "plc", "Timeout": 250})).unwrap().timeout, Duration::from_millis(250));
    }

    #[test]
    fn wrong_devices_say_what_is_wrong() {
        let err = device(&json!({"ip": "h", "port": "abc"})).unwrap_err();
        assert_eq!(err, "setting port is \"abc\": must be a whole number from 1 to 65535");
        let rtu = device(&json!({"communicateMode": "RTU", "serialName": "/dev/ttyS0"}));
        #[cfg(not(feature = "modbus-rtu"))]
        assert_eq!(rtu.unwrap_err(), "setting communicateMode is \"RTU\": serial lines are not in this build, use TCP");
        #[cfg(feature = "modbus-rtu")]
        assert!(matches!(rtu.unwrap().medium, Medium::Serial(_)));
        let err = device(&json!({"communicateMode": "UDP"})).unwrap_err();
        assert_eq!(err, "setting communicateMode is \"UDP\": must be TCP or RTU");
        assert_eq!(device(&json!({})).unwrap_err(), "setting ip is missing: the address of the device is needed");
        assert!(device(&json!({"ip": "h", "slaveID": 256})).unwrap_err().starts_with("setting slaveID is 256: "));
        assert!(device(&json!({"ip": "h", "timeout": 0})).is_err());
    }

    #[test]
    fn data_types_follow_limit_and_model() {
        let holding = |value_type, limit: u16, data_type: &str| {
            let config = json!({"register": "HoldingRegister", "offset": "4", "limit": limit, "dataType": data_type});
            visitor(value_type, &config).map(|read| (read.format.kind, read.format.registers))
        };
        assert_eq!(holding(ValueType::Int, 0, ""), Ok((RegisterKind::Unsigned, 1)));
        assert_eq!(holding(ValueType::Float, 1, "float"), Ok((RegisterKind::Unsigned, 1)));
        assert_eq!(holding(ValueType::Float, 2, ""), Ok((RegisterKind::Float, 2)));
        assert_eq!(holding(ValueType::Float, 0, "int16"), Ok((RegisterKind::Signed, 1)));
        assert_eq!(holding(ValueType::Double, 4, "Double"), Ok((RegisterKind::Float, 4)));
        assert_eq!(holding(ValueType::String, 8, ""), Ok((RegisterKind::Text, 8)));
        let err = holding(ValueType::Int, 3, "").unwrap_err();
        assert_eq!(err, "setting limit is 3: 3 registers cannot be a whole number: 1, 2 or 4 can");
        assert_eq!(
            holding(ValueType::Int, 1, "int32").unwrap_err(),
            "setting limit is 1: the data type has 2 registers"
        );
        assert!(holding(ValueType::Int, 0, "word").unwrap_err().starts_with("setting dataType is \"word\": "));
    }

    #[test]
    fn wrong_visitors_say_what_is_wrong() {
        let err = visitor(ValueType::Int, &json!({"register": "Coils"})).unwrap_err();
        assert!(err.starts_with("setting register is \"Coils\": must be CoilRegister"), "{err}");
        let beyond = json!({"register": "InputRegister", "offset": 65535, "limit": 2});
        assert!(visitor(ValueType::Int, &beyond).unwrap_err().contains("beyond the last one"));
        let edge = json!({"register": "inputregister", "offset": 65534, "limit": 2});
        assert_eq!(visitor(ValueType::Int, &edge).unwrap().count, 2);
        let bits = json!({"register": "CoilRegister", "limit": 64});
        assert!(visitor(ValueType::Int, &bits).unwrap_err().contains("at most 63"));
    }

    #[test]
    fn bits_need_registers_that_have_them() {
        let place = |over: &Value| {
            let mut config = json!({"register": "HoldingRegister"});
            config.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
            visitor(ValueType::Boolean, &config)
        };
        assert_eq!(place(&json!({"bit": 15})).unwrap().format, RegisterFormat::new(RegisterKind::Unsigned, 1));
        assert!(place(&json!({"bit": 16, "limit": 2})).is_ok());
        let err = place(&json!({"bit": 16})).unwrap_err();
        assert_eq!(err, "setting bit is 16: these are no unsigned registers with so many bits");
        assert!(place(&json!({"bits": "0-3", "dataType": "int16"})).is_err());
        assert!(place(&json!({"bit": 0, "register": "CoilRegister"})).is_err());
    }
}
