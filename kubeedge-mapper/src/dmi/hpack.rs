//! Header compression of HTTP/2 (RFC 7541): all of the decoder, and an encoder that compresses nothing.

mod huffman;
mod table;

use bytes::{BufMut as _, Bytes, BytesMut};

pub(super) use self::table::Field;
use self::table::Table;

/// A header block that cannot be decoded: the connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header block has {0}")]
pub(super) struct HpackError(pub(super) &'static str);

/// Most bytes of names and values of one block, with 32 more per field as the RFC counts.
const MAX_LIST: usize = 64 * 1024;

/// Decodes the header blocks of a connection, in their order.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    table: Table,
}

impl Decoder {
    /// The fields of `block`.
    ///
    /// # Errors
    /// [`HpackError`]; then no further block can be decoded.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, HpackError> {
        let mut rest = block;
        let mut fields = Vec::new();
        let mut size = 0;
        while let Some(first) = rest.first().copied() {
            let field = match first {
                0x80.. => self.table.get(integer(&mut rest, 7)?)?,
                0x40.. => {
                    let field = self.literal(&mut rest, 6)?;
                    self.table.insert(field.clone());
                    field
                }
                0x20.. => {
                    if !fields.is_empty() {
                        return Err(HpackError("a change of the table that is not at its begin"));
                    }
                    self.table.resize(integer(&mut rest, 5)?)?;
                    continue;
                }
                // Not indexed, or never to be.
                _ => self.literal(&mut rest, 4)?,
            };
            size += field.size();
            if size > MAX_LIST {
                return Err(HpackError("too many bytes of headers"));
            }
            fields.push(field);
        }
        Ok(fields)
    }

    fn literal(&self, rest: &mut &[u8], prefix: u8) -> Result<Field, HpackError> {
        let name = match integer(rest, prefix)? {
            0 => string(rest)?,
            index => self.table.get(index)?.name,
        };
        Ok(Field { name, value: string(rest)? })
    }
}

/// Writes a field in a way that touches no table of the reader.
pub(super) fn encode(field: &Field, block: &mut BytesMut) {
    block.put_u8(0);
    for text in [&field.name, &field.value] {
        put_integer(text.len(), block);
        block.put_slice(text);
    }
}

fn put_integer(number: usize, block: &mut BytesMut) {
    let Some(mut rest) = number.checked_sub(0x7f) else {
        return block.put_uint(number as u64, 1);
    };
    block.put_u8(0x7f);
    while rest >= 0x80 {
        block.put_uint((rest & 0x7f | 0x80) as u64, 1);
        rest >>= 7;
    }
    block.put_uint(rest as u64, 1);
}

fn byte(rest: &mut &[u8]) -> Result<u8, HpackError> {
    let (first, others) = rest.split_first().ok_or(HpackError("no end"))?;
    *rest = others;
    Ok(*first)
}

fn integer(rest: &mut &[u8], prefix: u8) -> Result<usize, HpackError> {
    let mask = u8::MAX >> (8 - prefix);
    let first = byte(rest)? & mask;
    let mut number = usize::from(first);
    if first < mask {
        return Ok(number);
    }
    // Nothing here is longer than a block, and no block has more than 32 bits of length.
    for shift in [0, 7, 14, 21] {
        let next = byte(rest)?;
        number += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(HpackError("a number that is too large"))
}

fn string(rest: &mut &[u8]) -> Result<Bytes, HpackError> {
    let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(rest, 7)?;
    let (text, others) = rest.split_at_checked(length).ok_or(HpackError("no end"))?;
    *rest = others;
    if coded { huffman::decode(text).map(Bytes::from) } else { Ok(Bytes::copy_from_slice(text)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn pairs(fields: &[Field]) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        fields.iter().map(|field| (text(&field.name), text(&field.value))).collect()
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    /// RFC 7541, C.4: three requests on one connection, with Huffman code.
    #[test]
    fn requests_of_the_rfc_are_read() {
        let mut decoder = Decoder::default();
        let first = decoder.decode(&hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")).unwrap();
        let site = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(pairs(&first), site);
        let second = decoder.decode(&hex("8286 84be 5886 a8eb 1064 9cbf")).unwrap();
        assert_eq!(pairs(&second)[..4], site);
        assert_eq!(pairs(&second)[4], ("cache-control", "no-cache"));
        let third = decoder.decode(&hex("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf")).unwrap();
        assert_eq!(pairs(&third)[4], ("custom-key", "custom-value"));
        assert_eq!(pairs(&third)[1..3], [(":scheme", "https"), (":path", "/index.html")]);
    }

    #[test]
    fn the_table_grows_and_shrinks_within_what_was_agreed() {
        let mut decoder = Decoder::default();
        assert!(decoder.decode(&hex("3fe11f")).unwrap().is_empty(), "4096 is what there is by default");
        assert!(decoder.decode(&hex("3fe21f")).is_err(), "4097 was never granted");
        let mut decoder = Decoder::default();
        decoder.decode(&hex("400161 0162")).unwrap();
        assert_eq!(pairs(&decoder.decode(&hex("be")).unwrap()), [("a", "b")]);
        decoder.decode(&hex("20")).unwrap();
        assert!(decoder.decode(&hex("be")).is_err(), "an empty table has nothing");
        assert!(decoder.decode(&hex("82 20")).is_err(), "only before the fields");
    }

    #[test]
    fn damaged_blocks_are_errors() {
        for block in ["80", "ff", "ffffffffff7f", "40", "4001", "00 8161", "0005 6162", "7f00 00", "be", "c0"] {
            assert!(Decoder::default().decode(&hex(block)).is_err(), "{block}");
        }
        // One byte each repeats a field of 4000: a block must not become as large as it likes.
        let mut bomb = BytesMut::from(&[0x40, 0x01, b'a'][..]);
        put_integer(4000, &mut bomb);
        bomb.extend_from_slice(&[b'b'; 4000]);
        bomb.extend_from_slice(&[0xbe; 20]);
        assert_eq!(Decoder::default().decode(&bomb), Err(HpackError("too many bytes of headers")));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            texts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), "[ -~]{0,40}"), 0..8)
        ) {
            let fields: Vec<_> = texts.into_iter().map(|(name, value)| Field { name: name.into(), value: value.into() }).collect();
            let mut block = BytesMut::new();
            for field in &fields {
                encode(field, &mut block);
            }
            prop_assert_eq!(Decoder::default().decode(&block).unwrap(), fields);
        }

        #[test]
        fn no_bytes_make_it_panic(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Decoder::default().decode(&block);
        }
    }
}
