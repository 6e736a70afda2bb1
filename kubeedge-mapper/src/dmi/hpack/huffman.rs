//! The Huffman code of HPACK. It is canonical, so the lengths of the codes say all (RFC 7541, appendix B).

use super::HpackError;

/// Symbols by the length of their code, in the order of their codes. The end of the string has the last code of 30 bits
/// and may not occur.
const SYMBOLS: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\
          \xe7\xef",
    ),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\
          \xdc\xf9",
    ),
    (30, b"\x0a\x0d\x16"),
];

/// Decodes a string.
pub(super) fn decode(coded: &[u8]) -> Result<Vec<u8>, HpackError> {
    // No code is shorter than five bits.
    let mut text = Vec::with_capacity(coded.len() * 8 / 5);
    let (mut code, mut bits) = (0_u32, 0_u32);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            bits += 1;
            if let Some(symbol) = symbol(code, bits) {
                text.push(symbol);
                (code, bits) = (0, 0);
            } else if bits >= 30 {
                return Err(HpackError("a string with a code that is none"));
            }
        }
    }
    // What is left is filled with ones, and less than a byte.
    if bits >= 8 || code != (1 << bits) - 1 {
        return Err(HpackError("a string that ends within a code"));
    }
    Ok(text)
}

fn symbol(code: u32, bits: u32) -> Option<u8> {
    let (mut first, mut length) = (0_u32, 0);
    for (of_length, symbols) in SYMBOLS {
        first <<= of_length - length;
        length = of_length;
        if length >= bits {
            let index = code.checked_sub(first).filter(|_| length == bits)?;
            return symbols.get(index as usize).copied();
        }
        first += u32::try_from(symbols.len()).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn strings_of_the_rfc_are_read() {
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&coded).unwrap(), b"www.example.com");
        assert_eq!(decode(&[0xae, 0xc3, 0x77, 0x1a, 0x4b]).unwrap(), b"private");
        assert_eq!(decode(&[]).unwrap(), b"");
    }

    #[test]
    fn each_symbol_has_a_code_and_each_code_a_symbol() {
        let (mut code, mut length, mut seen) = (0_u32, 0, Vec::new());
        for (of_length, symbols) in SYMBOLS {
            code <<= of_length - length;
            length = of_length;
            for expected in symbols {
                assert_eq!(symbol(code, length), Some(*expected));
                seen.push(*expected);
                code += 1;
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
        assert_eq!(code, (1 << 30) - 1, "only the end of the string is left");
    }

    #[test]
    fn damaged_strings_are_errors() {
        assert!(decode(&[0xff, 0xff, 0xff, 0xff]).is_err(), "the end of the string within it");
        assert!(decode(&[0xff]).is_err(), "a whole byte of filling");
        assert!(decode(&[0b0000_0000]).is_err(), "filled with zeros");
    }
}
