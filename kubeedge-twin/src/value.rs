//! What may stand in a twin: keys, types, values, and how much of it.

use crate::reduce::Rejected;

/// Longest name of a property, in bytes.
///
/// Upstream: `edge/pkg/devicetwin/dtcommon` (`ValidateTwinKey`).
pub const MAX_KEY_LEN: usize = 128;
/// Longest value, in bytes.
pub const MAX_VALUE_LEN: usize = 64 * 1024;
/// Most properties of a device.
pub const MAX_PROPERTIES: usize = 1024;
/// Most bytes of all names and values of a device together.
pub const MAX_TWIN_LEN: usize = 512 * 1024;
/// Deleted properties of a device that are remembered; the oldest is forgotten first.
pub const MAX_TOMBSTONES: usize = 64;

/// Type of values whose writer told none.
pub(crate) const DEFAULT_TYPE: &str = "string";
/// The word that upstream puts in place of the type of a deleted property.
pub(crate) const DELETED_TYPE: &str = "deleted";

/// Longest word for the state of a device.
const MAX_STATE_LEN: usize = 64;

/// `^[a-zA-Z0-9-_.,:/@#]{1,128}$`, as upstream demands.
pub(crate) fn check_key(key: &str) -> Result<(), Rejected> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.,:/@#".contains(&byte);
    if !key.is_empty() && key.len() <= MAX_KEY_LEN && key.bytes().all(allowed) {
        return Ok(());
    }
    Err(Rejected::Key { property: key.chars().take(MAX_KEY_LEN).collect() })
}

/// Whether the word is a type that values can have. The empty word means the default.
pub(crate) fn check_type(property: &str, word: &str) -> Result<(), Rejected> {
    match word {
        "" | "string" | "int" | "integer" | "float" | "double" | "boolean" | "bytes" | DELETED_TYPE => Ok(()),
        _ => {
            let word = word.chars().take(MAX_KEY_LEN).collect();
            Err(Rejected::Type { property: property.to_owned(), word })
        }
    }
}

/// Whether `value` is one of `value_type`.
///
/// Upstream: `edge/pkg/devicetwin/dtcommon` (`ValidateValue`).
pub(crate) fn check_value(property: &str, value_type: &str, value: &str) -> Result<(), Rejected> {
    let refuse = |reason| Err(Rejected::Value { property: property.to_owned(), reason });
    // A tab or an end of line is harmless and common in text; other control characters are noise of a broken line.
    let printable = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    if value.len() > MAX_VALUE_LEN {
        return refuse("the value is longer than 65536 bytes");
    }
    if !value.chars().all(printable) {
        return refuse("the value has characters that cannot be printed");
    }
    match value_type {
        "int" | "integer" if value.parse::<i64>().is_err() => refuse("the value is not int or integer"),
        "float" | "double" if value.parse::<f64>().is_err() => refuse("the value is not float"),
        "boolean" if value != "true" && value != "false" => refuse("the bool value must be true or false"),
        _ => Ok(()),
    }
}

/// A word of a vendor may be any short printable text.
pub(crate) fn check_state(word: &str) -> Result<(), Rejected> {
    if !word.is_empty() && word.len() <= MAX_STATE_LEN && !word.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Rejected::State { word: word.chars().take(MAX_STATE_LEN).collect() })
}

/// Whether two values mean the same. Numbers count as numbers: a device that answers `46.0` has reached `46`.
pub(crate) fn agree(value_type: &str, one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    match value_type {
        "int" | "integer" => matches!((one.parse::<i64>(), other.parse::<i64>()), (Ok(one), Ok(other)) if one == other),
        "float" | "double" => match (one.parse::<f64>(), other.parse::<f64>()) {
            (Ok(one), Ok(other)) => one.total_cmp(&other).is_eq(),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_upstream() {
        for good in ["temperature", "a-b_c.d,e:f/g@h#i", "0", &"k".repeat(128)] {
            assert!(check_key(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "ä", "a+b", "a\n", &"k".repeat(129)] {
            assert!(check_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_must_be_of_their_type() {
        let ok = |value_type, value| check_value("p", value_type, value).is_ok();
        assert!(ok("int", "-5") && ok("integer", "9223372036854775807"));
        assert!(!ok("int", "five") && !ok("int", "1.5") && !ok("int", ""));
        assert!(ok("float", "1e-3") && ok("double", "21") && !ok("float", "warm"));
        assert!(ok("boolean", "true") && !ok("boolean", "True"));
        assert!(ok("bytes", "aGVsbG8=") && ok("", "x"));
    }

    #[test]
    fn any_printable_text_is_a_value_up_to_the_limit() {
        assert!(check_value("p", "string", "21 °C, {\"unit\": \"%\"}\n").is_ok());
        assert!(check_value("p", "string", "a\0b").is_err());
        assert!(check_value("p", "string", &"x".repeat(MAX_VALUE_LEN)).is_ok());
        assert!(check_value("p", "string", &"x".repeat(MAX_VALUE_LEN + 1)).is_err());
    }

    #[test]
    fn numbers_agree_as_numbers_and_text_as_text() {
        assert!(agree("float", "46", "46.0") && agree("int", "7", "+7"));
        assert!(!agree("string", "46", "46.0") && !agree("float", "46", "46.1"));
    }
}
