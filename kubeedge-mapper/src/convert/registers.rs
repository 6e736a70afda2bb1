use kubeedge_core::mapper::Value;

use super::ConvertError;

/// What the bits of registers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegisterKind {
    /// Whole number from zero up, of 1, 2 or 4 registers.
    Unsigned,
    /// Whole number in two's complement, of 1, 2 or 4 registers.
    Signed,
    /// IEEE 754 number, of 2 or 4 registers.
    Float,
    /// One register, zero or not.
    Boolean,
    /// UTF-8, padded with zero bytes.
    Text,
    /// Bytes as they are.
    Bytes,
}

/// How a value lies in 16-bit registers.
///
/// The most significant register comes first and each register is big-endian, as the Modbus specification has it;
/// `swap_registers` reverses the order of registers, `swap_bytes` the two bytes in each.
///
/// Upstream: `mappers/modbus` of mappers-go (order of the swaps).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegisterFormat {
    /// What the bits mean.
    pub kind: RegisterKind,
    /// How many registers there are.
    pub registers: u16,
    /// Whether the two bytes of each register are exchanged. Setting `isSwap`.
    pub swap_bytes: bool,
    /// Whether the least significant register comes first. Setting `isRegisterSwap`.
    pub swap_registers: bool,
}

impl RegisterFormat {
    /// `registers` registers of `kind`, with nothing swapped.
    pub fn new(kind: RegisterKind, registers: u16) -> Self {
        Self { kind, registers, swap_bytes: false, swap_registers: false }
    }

    /// Whether such a value can lie in so many registers.
    ///
    /// # Errors
    /// [`ConvertError::Registers`] says how many there can be.
    pub fn check(&self) -> Result<(), ConvertError> {
        let (possible, wanted) = match self.kind {
            RegisterKind::Unsigned | RegisterKind::Signed => {
                (matches!(self.registers, 1 | 2 | 4), "a whole number: 1, 2 or 4 can")
            }
            RegisterKind::Float => (matches!(self.registers, 2 | 4), "a floating-point number: 2 or 4 can"),
            RegisterKind::Boolean => (self.registers == 1, "a truth value: 1 can"),
            RegisterKind::Text | RegisterKind::Bytes => (self.registers > 0, "text or bytes: 1 or more can"),
        };
        if possible { Ok(()) } else { Err(ConvertError::Registers { count: self.registers.into(), wanted }) }
    }

    /// The value in `words`.
    ///
    /// # Errors
    /// [`ConvertError`] if the words are not as many as the format says, or hold no such value.
    pub fn decode(&self, words: &[u16]) -> Result<Value, ConvertError> {
        self.check()?;
        if words.len() != usize::from(self.registers) {
            return Err(ConvertError::Registers { count: words.len(), wanted: "the value: not as many as asked for" });
        }
        let bytes = self.bytes_of(words);
        match self.kind {
            RegisterKind::Unsigned => whole_number(bytes.iter().fold(0, |sum, byte| sum << 8 | i128::from(*byte))),
            RegisterKind::Signed => {
                let unsigned = bytes.iter().fold(0, |sum, byte| sum << 8 | i128::from(*byte));
                let bits = self.bits();
                whole_number(if unsigned >> (bits - 1) == 0 { unsigned } else { unsigned - (1 << bits) })
            }
            RegisterKind::Float => Ok(Value::Float(float_of(&bytes))),
            RegisterKind::Boolean => Ok(Value::Bool(bytes.iter().any(|byte| *byte != 0))),
            RegisterKind::Bytes => Ok(Value::Bytes(bytes)),
            RegisterKind::Text => match String::from_utf8(bytes) {
                Ok(text) => Ok(Value::Text(text.trim_end_matches('\0').to_owned())),
                Err(_) => Err(ConvertError::Mismatch { found: "bytes that are no UTF-8", wanted: "text" }),
            },
        }
    }

    /// The words for `value`.
    ///
    /// # Errors
    /// [`ConvertError`] if the value is not of the kind, or does not fit.
    pub fn encode(&self, value: &Value) -> Result<Vec<u16>, ConvertError> {
        self.check()?;
        let room = 2 * usize::from(self.registers);
        let bytes = match (self.kind, value) {
            (RegisterKind::Unsigned | RegisterKind::Signed, value) => {
                self.whole(value)?.to_be_bytes()[16 - room..].to_vec()
            }
            (RegisterKind::Float, value) => self.float(value)?,
            (RegisterKind::Boolean, Value::Bool(flag)) => vec![0, u8::from(*flag)],
            (RegisterKind::Boolean, Value::Int(number)) => vec![0, u8::from(*number != 0)],
            (RegisterKind::Text, Value::Text(text)) if text.len() <= room => {
                let mut bytes = text.clone().into_bytes();
                bytes.resize(room, 0);
                bytes
            }
            (RegisterKind::Text, Value::Text(text)) => {
                return Err(no_room(format!("text of {} bytes", text.len()), room));
            }
            (RegisterKind::Bytes, Value::Bytes(bytes)) if bytes.len() == room => bytes.clone(),
            (RegisterKind::Bytes, Value::Bytes(bytes)) => {
                return Err(no_room(format!("a row of {} bytes", bytes.len()), room));
            }
            (RegisterKind::Boolean, _) => return Err(ConvertError::Mismatch { found: "a value", wanted: "BOOLEAN" }),
            (RegisterKind::Text, _) => return Err(ConvertError::Mismatch { found: "a value", wanted: "STRING" }),
            (RegisterKind::Bytes, _) => return Err(ConvertError::Mismatch { found: "a value", wanted: "BYTES" }),
        };
        Ok(self.words_of(&bytes))
    }

    fn bits(self) -> u32 {
        16 * u32::from(self.registers)
    }

    fn bytes_of(self, words: &[u16]) -> Vec<u8> {
        let bytes = |word: &u16| if self.swap_bytes { word.to_le_bytes() } else { word.to_be_bytes() };
        if self.swap_registers {
            words.iter().rev().flat_map(bytes).collect()
        } else {
            words.iter().flat_map(bytes).collect()
        }
    }

    fn words_of(self, bytes: &[u8]) -> Vec<u16> {
        let mut words: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .map(|word| if self.swap_bytes { word.swap_bytes() } else { word })
            .collect();
        if self.swap_registers {
            words.reverse();
        }
        words
    }

    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and the range is checked after it")]
    fn whole(self, value: &Value) -> Result<i128, ConvertError> {
        let raw = match value {
            Value::Int(number) => i128::from(*number),
            value => number(value)?.round() as i128,
        };
        let (least, most) = match self.kind {
            RegisterKind::Signed => (-(1_i128 << (self.bits() - 1)), (1_i128 << (self.bits() - 1)) - 1),
            _ => (0, (1_i128 << self.bits()) - 1),
        };
        if (least..=most).contains(&raw) {
            Ok(raw)
        } else {
            Err(ConvertError::NoRoom { value: raw.to_string(), room: format!("{least}..={most}") })
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "single precision is what the device has")]
    fn float(self, value: &Value) -> Result<Vec<u8>, ConvertError> {
        let number = number(value)?;
        let (bytes, fits) = if self.registers == 2 {
            ((number as f32).to_be_bytes().to_vec(), (number as f32).is_finite())
        } else {
            (number.to_be_bytes().to_vec(), number.is_finite())
        };
        if fits { Ok(bytes) } else { Err(no_room(number.to_string(), bytes.len())) }
    }
}

fn whole_number(raw: i128) -> Result<Value, ConvertError> {
    let no_room = |_| ConvertError::NoRoom { value: raw.to_string(), room: "63 bits and a sign".to_owned() };
    i64::try_from(raw).map(Value::Int).map_err(no_room)
}

#[expect(clippy::cast_precision_loss, reason = "that is what a floating-point register holds")]
fn number(value: &Value) -> Result<f64, ConvertError> {
    match value {
        Value::Int(number) => Ok(*number as f64),
        Value::Float(number) if number.is_finite() => Ok(*number),
        Value::Bool(flag) => Ok(f64::from(u8::from(*flag))),
        Value::Float(_) => Err(ConvertError::Mismatch { found: "a number that is not finite", wanted: "registers" }),
        _ => Err(ConvertError::Mismatch { found: "text or bytes", wanted: "a number" }),
    }
}

fn float_of(bytes: &[u8]) -> f64 {
    if let Ok(double) = bytes.try_into() {
        return f64::from_be_bytes(double);
    }
    let single = bytes.try_into().map_or(f32::NAN, f32::from_be_bytes);
    // The decimal that a person would write: 21.3, not 21.299999237060547.
    single.to_string().parse().unwrap_or_else(|_| f64::from(single))
}

fn no_room(value: String, bytes: usize) -> ConvertError {
    ConvertError::NoRoom { value, room: format!("{bytes} bytes") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn orders_of_bytes_and_registers() {
        let plain = RegisterFormat::new(RegisterKind::Unsigned, 2);
        assert_eq!(plain.decode(&[0x0102, 0x0304]), Ok(Value::Int(0x0102_0304)));
        let bytes = RegisterFormat { swap_bytes: true, ..plain };
        assert_eq!(bytes.decode(&[0x0102, 0x0304]), Ok(Value::Int(0x0201_0403)));
        let registers = RegisterFormat { swap_registers: true, ..plain };
        assert_eq!(registers.decode(&[0x0102, 0x0304]), Ok(Value::Int(0x0304_0102)));
        let both = RegisterFormat { swap_bytes: true, swap_registers: true, ..plain };
        assert_eq!(both.decode(&[0x0102, 0x0304]), Ok(Value::Int(0x0403_0201)));
    }

    #[test]
    fn known_floats_and_signs() {
        assert_eq!(RegisterFormat::new(RegisterKind::Float, 2).decode(&[0x41AA, 0x6666]), Ok(Value::Float(21.3)));
        assert_eq!(RegisterFormat::new(RegisterKind::Signed, 1).decode(&[0xFFF6]), Ok(Value::Int(-10)));
        assert_eq!(RegisterFormat::new(RegisterKind::Unsigned, 1).decode(&[0xFFF6]), Ok(Value::Int(65526)));
        assert_eq!(RegisterFormat::new(RegisterKind::Signed, 4).decode(&[0x8000, 0, 0, 0]), Ok(Value::Int(i64::MIN)));
        assert!(RegisterFormat::new(RegisterKind::Unsigned, 4).decode(&[0x8000, 0, 0, 0]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let word = RegisterFormat::new(RegisterKind::Unsigned, 1);
        assert_eq!(word.encode(&Value::Int(65_536)).unwrap_err().to_string(), "65536 does not fit into 0..=65535");
        assert_eq!(word.encode(&Value::Int(-1)).unwrap_err().to_string(), "-1 does not fit into 0..=65535");
        assert!(word.encode(&Value::Float(1e300)).is_err());
        assert!(word.encode(&Value::Text("1".into())).is_err());
        assert!(word.decode(&[1, 2]).is_err());
        assert!(RegisterFormat::new(RegisterKind::Float, 2).encode(&Value::Float(1e300)).is_err());
        let text = RegisterFormat::new(RegisterKind::Text, 2);
        assert_eq!(text.encode(&Value::Text("abc".into())), Ok(vec![0x6162, 0x6300]));
        let err = text.encode(&Value::Text("abcde".into())).unwrap_err();
        assert_eq!(err.to_string(), "text of 5 bytes does not fit into 4 bytes");
        assert!(text.decode(&[0xFFFF, 0xFFFF]).is_err());
        let three = RegisterFormat::new(RegisterKind::Signed, 3);
        assert_eq!(three.check().unwrap_err().to_string(), "3 registers cannot be a whole number: 1, 2 or 4 can");
    }

    fn format(kind: RegisterKind, registers: u16) -> impl Strategy<Value = RegisterFormat> {
        (any::<bool>(), any::<bool>()).prop_map(move |(swap_bytes, swap_registers)| RegisterFormat {
            swap_bytes,
            swap_registers,
            ..RegisterFormat::new(kind, registers)
        })
    }

    proptest! {
        #[test]
        fn whole_numbers_come_back(word: u16, double: i32, quad: i64,
            one in format(RegisterKind::Unsigned, 1), two in format(RegisterKind::Signed, 2),
            four in format(RegisterKind::Signed, 4)) {
            for (format, value) in [(one, i64::from(word)), (two, i64::from(double)), (four, quad)] {
                prop_assert_eq!(format.decode(&format.encode(&Value::Int(value)).unwrap()), Ok(Value::Int(value)));
            }
        }

        #[test]
        fn floats_come_back(single in prop::num::f32::NORMAL, double in prop::num::f64::NORMAL,
            two in format(RegisterKind::Float, 2), four in format(RegisterKind::Float, 4)) {
            let decimal: f64 = single.to_string().parse().unwrap();
            prop_assert_eq!(two.decode(&two.encode(&Value::Float(decimal)).unwrap()), Ok(Value::Float(decimal)));
            prop_assert_eq!(four.decode(&four.encode(&Value::Float(double)).unwrap()), Ok(Value::Float(double)));
        }

        #[test]
        fn text_and_bytes_come_back(text in "[a-zA-Z0-9 äß]{0,6}", bytes: [u8; 16],
            of_text in format(RegisterKind::Text, 12), of_bytes in format(RegisterKind::Bytes, 8)) {
            let value = Value::Text(text);
            prop_assert_eq!(of_text.decode(&of_text.encode(&value).unwrap()), Ok(value));
            let value = Value::Bytes(bytes.to_vec());
            prop_assert_eq!(of_bytes.decode(&of_bytes.encode(&value).unwrap()), Ok(value));
        }

        #[test]
        fn no_words_panic(words: Vec<u16>, registers in 0_u16..6) {
            for kind in [RegisterKind::Unsigned, RegisterKind::Signed, RegisterKind::Float, RegisterKind::Boolean,
                RegisterKind::Text, RegisterKind::Bytes] {
                let _ = RegisterFormat::new(kind, registers).decode(&words);
            }
        }
    }
}
