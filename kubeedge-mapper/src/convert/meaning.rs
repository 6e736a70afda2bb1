use kubeedge_core::mapper::{DriverError, Value, ValueType};

use super::{ConvertError, Limits, coerce, text};
use crate::settings::Settings;

/// Bits in a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BitField {
    /// The lowest of them, from 0.
    pub first: u8,
    /// How many, 1 to 63.
    pub count: u8,
}

impl BitField {
    fn most(self) -> i64 {
        (1_i64 << self.count) - 1
    }

    fn of(self, whole: i64) -> i64 {
        (whole >> self.first) & self.most()
    }

    /// `whole` with these bits set to `field`.
    ///
    /// # Errors
    /// [`ConvertError::NoRoom`] if `field` has more bits.
    pub fn put(self, whole: i64, field: i64) -> Result<i64, ConvertError> {
        if field < 0 || field > self.most() {
            return Err(ConvertError::NoRoom { value: field.to_string(), room: format!("{} bits", self.count) });
        }
        Ok(whole & !(self.most() << self.first) | field << self.first)
    }
}

/// What the value that a device has means: bits of it, scaled and moved, or names for it.
///
/// Settings of a visitor, for every driver that reads them:
///
/// | key | meaning | default |
/// |---|---|---|
/// | `bit` | the one bit, from 0, of the number of the device that counts | all |
/// | `bits` | the bits that count, lowest and highest: `4-7` | all |
/// | `mask` | the same as a number with these bits set, also `0xF0`; no gaps | all |
/// | `scale` | what the number is multiplied by; 0 means none | 1 |
/// | `valueOffset` | what is added after that | 0 |
/// | `enum` | names: `0=off,1=on`, or an object; the left side is what the device has | none |
/// | `min`, `max` | least and greatest value that is written | none |
///
/// A number without a name is its own text; only names are written. `bit`, `bits`, `mask`, `valueOffset` and `enum` are
/// ours. Upstream: `temperature-sensor-demo/modbus` of kubeedge/examples (`scale`, `min`, `max`).
#[derive(Clone, Debug, PartialEq)]
pub struct Meaning {
    /// The bits that count; `None` for all.
    pub bits: Option<BitField>,
    /// What the number is multiplied by; not zero.
    pub scale: f64,
    /// What is added to the product.
    pub offset: f64,
    /// Text of the device, and text of the property.
    pub names: Vec<(String, String)>,
    /// What may be written.
    pub limits: Limits,
}

impl Default for Meaning {
    /// A value means itself.
    fn default() -> Self {
        Self { bits: None, scale: 1.0, offset: 0.0, names: Vec::new(), limits: Limits::default() }
    }
}

impl Meaning {
    /// Reads the settings of a visitor.
    ///
    /// # Errors
    /// [`DriverError::Config`] names the setting.
    pub fn read(settings: Settings<'_>) -> Result<Self, DriverError> {
        Ok(Self {
            bits: bits(settings)?,
            scale: settings.number("scale")?.filter(|scale| *scale != 0.0).unwrap_or(1.0),
            offset: settings.number("valueOffset")?.unwrap_or(0.0),
            names: settings.pairs("enum")?,
            limits: Limits { minimum: settings.number("min")?, maximum: settings.number("max")? },
        })
    }

    fn is_scaled(&self) -> bool {
        (self.scale - 1.0).abs() > f64::EPSILON || self.offset != 0.0
    }

    /// The value of the property, for what the device has.
    ///
    /// # Errors
    /// [`ConvertError`] if a number is needed and there is none.
    pub fn decode(&self, raw: Value) -> Result<Value, ConvertError> {
        let mut value = raw;
        if let Some(field) = self.bits {
            let part = field.of(whole(value)?);
            let is_flag = field.count == 1 && self.names.is_empty();
            value = if is_flag { Value::Bool(part == 1) } else { Value::Int(part) };
        }
        if self.is_scaled() {
            value = self.scaled(&value)?;
        }
        if self.names.is_empty() {
            return Ok(value);
        }
        let raw = plain(&value)?;
        let name = self.names.iter().find(|(of_device, _)| *of_device == raw).map(|(_, name)| name.clone());
        Ok(Value::Text(name.unwrap_or(raw)))
    }

    /// What the device is to have, for a value of the property. With [`bits`](Self::bits) it is only these: see
    /// [`BitField::put`].
    ///
    /// # Errors
    /// [`ConvertError`] if the value is outside of the limits, has no name, or is no number where one is needed.
    pub fn encode(&self, value: &Value) -> Result<Value, ConvertError> {
        self.limits.check(value)?;
        let mut value = value.clone();
        if !self.names.is_empty() {
            let wanted = plain(&value)?;
            let raw = self.names.iter().find(|(_, name)| *name == wanted).map(|(raw, _)| raw.clone());
            value = Value::Text(raw.ok_or_else(|| ConvertError::malformed(&wanted, "one of the names in enum"))?);
        }
        if self.is_scaled() {
            let raw = (number(&value)? - self.offset) / self.scale;
            let near = raw.round();
            // 60.1 / 0.1 is 601, not 600.9999999999999.
            value = Value::Float(if (raw - near).abs() <= 1e-9 * raw.abs().max(1.0) { near } else { raw });
        }
        if let Some(field) = self.bits {
            let part = whole(value)?;
            field.put(0, part)?;
            value = Value::Int(part);
        }
        Ok(value)
    }

    fn scaled(&self, raw: &Value) -> Result<Value, ConvertError> {
        let value = number(raw)? * self.scale + self.offset;
        if matches!(raw, Value::Float(_)) {
            return Ok(Value::Float(value));
        }
        // A whole number of steps of 0.1 has one decimal: 3 * 0.1 is 0.3, not 0.30000000000000004.
        let decimals = |number: f64| number.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let decimals = decimals(self.scale).max(decimals(self.offset));
        Ok(Value::Float(format!("{value:.decimals$}").parse().unwrap_or(value)))
    }
}

fn whole(value: Value) -> Result<i64, ConvertError> {
    match coerce(value, ValueType::Int)? {
        Value::Int(number) => Ok(number),
        _ => Err(ConvertError::Mismatch { found: "a value", wanted: "a whole number" }),
    }
}

fn number(value: &Value) -> Result<f64, ConvertError> {
    match coerce(value.clone(), ValueType::Double)? {
        Value::Float(number) => Ok(number),
        _ => Err(ConvertError::Mismatch { found: "a value", wanted: "a number" }),
    }
}

/// The text of a value as people write it into `enum`.
fn plain(value: &Value) -> Result<String, ConvertError> {
    text::to_text(value, ValueType::String).or_else(|_| text::to_text(value, ValueType::Bytes))
}

fn bits(settings: Settings<'_>) -> Result<Option<BitField>, DriverError> {
    if let Some(first) = settings.whole("bit", 0, 62)? {
        return Ok(Some(BitField { first, count: 1 }));
    }
    if let Some(text) = settings.text("bits")? {
        let ends = text.split_once('-').unwrap_or((&text, &text));
        let ends = (ends.0.trim().parse::<u8>(), ends.1.trim().parse::<u8>());
        return match ends {
            (Ok(first), Ok(last)) if first <= last && last <= 62 => {
                Ok(Some(BitField { first, count: last - first + 1 }))
            }
            _ => Err(settings.wrong("bits", "must be the lowest and the highest bit, as in 4-7, up to 62")),
        };
    }
    let Some(text) = settings.text("mask")? else { return Ok(None) };
    let mask = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    let shifted = mask.as_ref().map_or(0, |mask| mask.checked_shr(mask.trailing_zeros()).unwrap_or(0));
    match mask {
        Ok(mask) if shifted != 0 && shifted & (shifted + 1) == 0 && mask >> 63 == 0 => {
            let (first, count) = (mask.trailing_zeros(), mask.count_ones());
            Ok(Some(BitField { first: u8::try_from(first).unwrap_or(0), count: u8::try_from(count).unwrap_or(1) }))
        }
        _ => Err(settings.wrong("mask", "must be a number whose bits have no gaps, as in 0xF0")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn meaning(config: &serde_json::Value) -> Result<Meaning, String> {
        let config = config.as_object().unwrap().clone();
        Meaning::read(Settings::new(&config)).map_err(|error| error.to_string())
    }

    #[test]
    fn scaled_values_are_decimals() {
        let tenth = meaning(&json!({"scale": 0.1})).unwrap();
        assert_eq!(tenth.decode(Value::Int(3)), Ok(Value::Float(0.3)));
        assert_eq!(tenth.decode(Value::Int(-1)), Ok(Value::Float(-0.1)));
        assert_eq!(tenth.encode(&Value::Float(0.3)), Ok(Value::Float(3.0)));
        assert_eq!(tenth.encode(&Value::Int(60)), Ok(Value::Float(600.0)));
        assert_eq!(tenth.decode(Value::Text("215".into())), Ok(Value::Float(21.5)));
        let kelvin = meaning(&json!({"scale": "0.1", "valueOffset": "-273.15"})).unwrap();
        assert_eq!(kelvin.decode(Value::Int(2982)), Ok(Value::Float(25.05)));
        assert_eq!(kelvin.encode(&Value::Float(25.05)), Ok(Value::Float(2982.0)));
        assert_eq!(meaning(&json!({"scale": 0})).unwrap(), Meaning::default(), "as Go peers write what is left out");
    }

    #[test]
    fn bits_are_taken_out_and_put_back() {
        let bit = meaning(&json!({"bit": 3})).unwrap();
        assert_eq!(bit.decode(Value::Int(0b1000)), Ok(Value::Bool(true)));
        assert_eq!(bit.decode(Value::Int(0b0111)), Ok(Value::Bool(false)));
        let field = BitField { first: 4, count: 4 };
        for config in [json!({"bits": "4-7"}), json!({"mask": "0xF0"}), json!({"mask": 240})] {
            let nibble = meaning(&config).unwrap();
            assert_eq!(nibble.bits, Some(field), "{config}");
            assert_eq!(nibble.decode(Value::Int(0xABCD)), Ok(Value::Int(0xC)));
            assert_eq!(nibble.encode(&Value::Int(5)), Ok(Value::Int(5)));
            assert!(nibble.encode(&Value::Int(16)).is_err());
        }
        assert_eq!(field.put(0xABCD, 5), Ok(0xAB5D));
        assert_eq!(meaning(&json!({"bits": "5"})).unwrap().bits, Some(BitField { first: 5, count: 1 }));
        for wrong in [json!({"mask": "0xF1"}), json!({"mask": 0}), json!({"bits": "7-4"}), json!({"bit": 63})] {
            assert!(meaning(&wrong).unwrap_err().starts_with("setting "), "{wrong}");
        }
    }

    #[test]
    fn names_stand_for_what_the_device_has() {
        let mode = meaning(&json!({"enum": "0=off, 1=auto,2=on"})).unwrap();
        assert_eq!(mode, meaning(&json!({"enum": {"0": "off", "1": "auto", "2": "on"}})).unwrap());
        assert_eq!(mode.decode(Value::Int(1)), Ok(Value::Text("auto".into())));
        assert_eq!(mode.decode(Value::Int(7)), Ok(Value::Text("7".into())), "no name, and nothing is lost");
        assert_eq!(mode.encode(&Value::Text("on".into())), Ok(Value::Text("2".into())));
        let unknown = mode.encode(&Value::Text("7".into())).unwrap_err();
        assert_eq!(unknown.to_string(), "\"7\" is not one of the names in enum");
        let switch = meaning(&json!({"enum": "ON=true,OFF=false"})).unwrap();
        assert_eq!(switch.decode(Value::Text("ON".into())), Ok(Value::Text("true".into())));
        assert_eq!(switch.encode(&Value::Bool(false)), Ok(Value::Text("OFF".into())));
        let flag = meaning(&json!({"bit": 0, "enum": "0=closed,1=open"})).unwrap();
        assert_eq!(flag.decode(Value::Int(1)), Ok(Value::Text("open".into())));
        assert_eq!(flag.encode(&Value::Text("open".into())), Ok(Value::Int(1)));
        assert!(meaning(&json!({"enum": "on"})).unwrap_err().starts_with("setting enum is \"on\""));
    }

    #[test]
    fn limits_are_those_of_the_value() {
        let celsius = meaning(&json!({"scale": 0.1, "min": 5, "max": 80})).unwrap();
        assert!(celsius.encode(&Value::Float(80.5)).is_err());
        assert_eq!(celsius.encode(&Value::Float(80.0)), Ok(Value::Float(800.0)));
    }

    proptest! {
        #[test]
        fn scaled_numbers_come_back(raw in -1_000_000_i64..1_000_000, offset in -1000_i32..1000,
            scale in prop::sample::select(vec![0.001, 0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 10.0, -0.1])) {
            let meaning = Meaning { scale, offset: f64::from(offset) / 4.0, ..Meaning::default() };
            let back = meaning.encode(&meaning.decode(Value::Int(raw)).unwrap()).unwrap();
            prop_assert_eq!(whole(back), Ok(raw));
        }

        #[test]
        fn bits_come_back_and_leave_the_others(whole: i64, first in 0_u8..62, count in 1_u8..62, part: i64) {
            let field = BitField { first, count: count.min(63 - first) };
            let part = part & field.most();
            let changed = field.put(whole, part).unwrap();
            prop_assert_eq!(field.of(changed), part);
            prop_assert_eq!(field.put(changed, field.of(whole)).unwrap(), whole);
        }

        #[test]
        fn no_value_panics(text: String, whole: i64, float: f64, first in 0_u8..62) {
            let meanings = [
                Meaning { bits: Some(BitField { first, count: 1 }), ..Meaning::default() },
                Meaning { scale: 0.1, offset: float, names: vec![("1".into(), "on".into())], ..Meaning::default() },
            ];
            for value in [Value::Text(text), Value::Int(whole), Value::Float(float), Value::Bytes(vec![255])] {
                for meaning in &meanings {
                    let _ = (meaning.decode(value.clone()), meaning.encode(&value));
                }
            }
        }
    }
}
