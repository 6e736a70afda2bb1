use std::sync::Arc;

use async_trait::async_trait;
use kubeedge_core::{
    mapper::{Driver, DriverError, Sample, Value, ValueType, Visitor},
    names::SharedClock,
};
use tokio_modbus::{Request, Response};

use super::{
    line::Line,
    settings::{DeviceSettings, Table, VisitorSettings},
};
use crate::convert::{self, ConvertError, RegisterKind};

/// A unit on a line.
pub(super) struct ModbusDevice {
    pub(super) settings: DeviceSettings,
    pub(super) line: Arc<Line>,
    pub(super) clock: SharedClock,
}

#[async_trait]
impl Driver for ModbusDevice {
    async fn read(&self, visitor: Visitor) -> Result<Sample, DriverError> {
        let place = VisitorSettings::read(&visitor)?;
        let request = match place.table {
            Table::Coil => Request::ReadCoils(place.address, place.count),
            Table::DiscreteInput => Request::ReadDiscreteInputs(place.address, place.count),
            Table::Input => Request::ReadInputRegisters(place.address, place.count),
            Table::Holding => Request::ReadHoldingRegisters(place.address, place.count),
        };
        let response = self.exchange(request).await?;
        let at = self.clock.now();
        let value = match response {
            Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits) => of_bits(&bits, place.count),
            Response::ReadInputRegisters(words) | Response::ReadHoldingRegisters(words) => place.format.decode(&words),
            _ => return Err(DriverError::Failed("the answer is to another question".into())),
        };
        let value = value.and_then(|raw| place.meaning.decode(raw));
        let value = value.and_then(|value| convert::coerce(value, visitor.value_type));
        Ok(Sample { value: value.map_err(|why| DriverError::Failed(why.into()))?, at })
    }

    async fn write(&self, visitor: Visitor, value: Value) -> Result<(), DriverError> {
        let place = VisitorSettings::read(&visitor)?;
        let refused = |why: ConvertError| DriverError::Refused(why.to_string());
        let value = convert::coerce(value, visitor.value_type).map_err(refused)?;
        let raw = place.meaning.encode(&value).map_err(refused)?;
        match place.table {
            Table::Coil => {
                let request = match *to_bits(&raw, place.count).map_err(refused)? {
                    [bit] => Request::WriteSingleCoil(place.address, bit),
                    ref bits => Request::WriteMultipleCoils(place.address, bits.to_vec().into()),
                };
                self.exchange(request).await.map(drop)
            }
            Table::Holding => self.write_registers(&place, raw).await,
            Table::DiscreteInput | Table::Input => {
                let settings = crate::settings::Settings::new(&visitor.config);
                Err(settings.wrong("register", "only coils and holding registers can be written"))
            }
        }
    }
}

impl ModbusDevice {
    async fn exchange(&self, request: Request<'static>) -> Result<Response, DriverError> {
        self.line.hold().await.exchange(self.settings.unit, self.settings.timeout, request).await
    }

    async fn write_registers(&self, place: &VisitorSettings, raw: Value) -> Result<(), DriverError> {
        let refused = |why: ConvertError| DriverError::Refused(why.to_string());
        // A name stands for a number here, unless the registers hold text.
        let raw = match (place.format.kind, raw) {
            (RegisterKind::Text | RegisterKind::Bytes, raw) => raw,
            (_, raw @ Value::Text(_)) => convert::coerce(raw, ValueType::Double).map_err(refused)?,
            (_, raw) => raw,
        };
        let (unit, limit) = (self.settings.unit, self.settings.timeout);
        // Held over both exchanges: nobody else on this line writes the other bits in between.
        let mut turn = self.line.hold().await;
        let raw = match (place.meaning.bits, raw) {
            (Some(field), Value::Int(part)) => {
                let request = Request::ReadHoldingRegisters(place.address, place.count);
                let Response::ReadHoldingRegisters(words) = turn.exchange(unit, limit, request).await? else {
                    return Err(DriverError::Failed("the answer is to another question".into()));
                };
                let Value::Int(whole) = place.format.decode(&words).map_err(|why| DriverError::Failed(why.into()))?
                else {
                    return Err(DriverError::Refused("the registers hold no whole number".to_owned()));
                };
                Value::Int(field.put(whole, part).map_err(refused)?)
            }
            (_, raw) => raw,
        };
        let request = match *place.format.encode(&raw).map_err(refused)? {
            [word] => Request::WriteSingleRegister(place.address, word),
            ref words if words.len() > 123 => {
                return Err(DriverError::Refused("more than 123 registers cannot be written at once".to_owned()));
            }
            ref words => Request::WriteMultipleRegisters(place.address, words.to_vec().into()),
        };
        turn.exchange(unit, limit, request).await.map(drop)
    }
}

fn of_bits(bits: &[bool], count: u16) -> Result<Value, ConvertError> {
    match bits.get(..usize::from(count)) {
        Some([bit]) => Ok(Value::Bool(*bit)),
        Some(bits) => Ok(Value::Int(bits.iter().rev().fold(0, |sum, bit| sum << 1 | i64::from(*bit)))),
        None => Err(ConvertError::Registers { count: bits.len(), wanted: "the value: fewer bits than asked for" }),
    }
}

fn to_bits(value: &Value, count: u16) -> Result<Vec<bool>, ConvertError> {
    let number = match *value {
        Value::Bool(bit) => i64::from(bit),
        Value::Int(number) => number,
        // A coil behind a property of another type: any number but 0 switches it on.
        ref other => match convert::coerce(other.clone(), ValueType::Boolean)? {
            Value::Bool(bit) => i64::from(bit),
            _ => 0,
        },
    };
    if count == 1 {
        return Ok(vec![number != 0]);
    }
    if number < 0 || number >> count != 0 {
        return Err(ConvertError::NoRoom { value: number.to_string(), room: format!("{count} bits") });
    }
    Ok((0..count).map(|bit| number >> bit & 1 == 1).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bits_are_lowest_first() {
        assert_eq!(of_bits(&[true, false, true, true, true], 4), Ok(Value::Int(0b1101)));
        assert_eq!(to_bits(&Value::Int(0b1101), 4), Ok(vec![true, false, true, true]));
        assert_eq!(of_bits(&[true, false], 1), Ok(Value::Bool(true)));
        assert_eq!(to_bits(&Value::Float(0.0), 1), Ok(vec![false]));
        assert!(to_bits(&Value::Int(16), 4).is_err());
        assert!(to_bits(&Value::Int(-1), 63).is_err());
        assert!(of_bits(&[], 1).is_err());
    }
}
