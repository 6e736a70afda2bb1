//! Conversion between the values of devices and the text of twins. Pure: no device, no clock.
//!
//! | type | text | from the device |
//! |---|---|---|
//! | `INT` | decimal digits | whole numbers; fractions are cut off; `true` is 1 |
//! | `FLOAT` | shortest decimal of single precision | numbers |
//! | `DOUBLE` | shortest decimal of double precision | numbers |
//! | `STRING` | as it is | text; numbers and truth values as their text |
//! | `BOOLEAN` | `true` or `false` | truth values; numbers other than 0 are `true` |
//! | `BYTES` | base64, standard alphabet, padded | bytes; text as UTF-8 |
//! | `STREAM` | none | none |
//!
//! Numbers never have an exponent (`0.00001`, not `1e-5`), and `-0` is `0`, so equal values have equal texts.

mod limits;
mod meaning;
mod registers;
mod text;

pub use self::{
    limits::Limits,
    meaning::{BitField, Meaning},
    registers::{RegisterFormat, RegisterKind},
    text::{canonical, coerce, parse, to_text},
};

/// A value that cannot be what is asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// A text that is no value of the type.
    #[error("{text:?} is not {expected}")]
    Malformed {
        /// The text, cut to 128 characters.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A value of the wrong kind.
    #[error("{found} cannot be {wanted}")]
    Mismatch {
        /// What there is.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// Less than the minimum.
    #[error("{value} is below the minimum {minimum}")]
    Below {
        /// The value.
        value: f64,
        /// The least that is allowed.
        minimum: f64,
    },
    /// More than the maximum.
    #[error("{value} is above the maximum {maximum}")]
    Above {
        /// The value.
        value: f64,
        /// The most that is allowed.
        maximum: f64,
    },
    /// More than the place for it holds.
    #[error("{value} does not fit into {room}")]
    NoRoom {
        /// The value, or its size.
        value: String,
        /// What there is room for.
        room: String,
    },
    /// Registers that cannot hold such a value, or not as many as asked for.
    #[error("{count} registers cannot be {wanted}")]
    Registers {
        /// How many there are.
        count: usize,
        /// What is needed.
        wanted: &'static str,
    },
}

impl ConvertError {
    fn malformed(text: &str, expected: &'static str) -> Self {
        // Desired values come from outside and may be long.
        Self::Malformed { text: text.chars().take(128).collect(), expected }
    }
}
