//! Several messages in one binary frame, compressed if that is worth it: a form that only two of ours speak.
//!
//! ```text
//! frame    = form body
//! form     = %x00                     ; body is the messages
//!          / %x01 length              ; body is the messages, compressed (raw deflate, RFC 1951) on their own:
//!                                     ; length bytes (4, big-endian) when inflated
//! messages = *( length text )         ; length of text in bytes (4, big-endian)
//! text     = a message as in wire::json
//! ```
//!
//! Each frame is compressed on its own, so that an idle connection keeps no state of it.

use std::io::Read as _;

use bytes::{Buf as _, Bytes};
use flate2::{Compress, Compression, FlushCompress, Status, read::DeflateDecoder};

use super::json;
use crate::message::Message;

const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;
const LENGTH: usize = size_of::<u32>();

/// Frames that are not longer than this are not compressed, in bytes.
pub const COMPRESS_OVER: usize = 1024;

/// Bytes that are no batch of messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// It has no form, or one that this version does not know.
    #[error("frame has the unknown form {0:?}")]
    Form(Option<u8>),
    /// It ends too early.
    #[error("frame ends within a message")]
    Truncated,
    /// It would be longer than allowed when inflated.
    #[error("frame has {length} bytes when inflated, more than {limit}")]
    TooLong {
        /// What it says.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It cannot be inflated to what it says.
    #[error("frame cannot be inflated")]
    Deflate(#[source] std::io::Error),
    /// A message in it is not text.
    #[error("message is not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    /// A message in it is no message.
    #[error(transparent)]
    Message(#[from] json::DecodeError),
}

/// Collects messages for a frame.
#[derive(Debug, Default)]
pub struct BatchEncoder {
    frame: Vec<u8>,
}

impl BatchEncoder {
    /// Without messages; takes no memory.
    pub const fn new() -> Self {
        Self { frame: Vec::new() }
    }

    /// Takes a message.
    pub fn push(&mut self, message: &Message) {
        let text = json::encode(message);
        // A message that long would not be accepted anywhere.
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        if self.frame.is_empty() {
            self.frame.reserve_exact(1 + LENGTH + text.len());
            self.frame.push(PLAIN);
        }
        self.frame.extend_from_slice(&length.to_be_bytes());
        self.frame.extend_from_slice(text.as_bytes());
    }

    /// Bytes of the frame so far, not compressed.
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// The frame with all messages, compressed if `deflate` and if that makes it shorter; empty again afterwards.
    pub fn finish(&mut self, deflate: bool) -> Bytes {
        let frame = std::mem::take(&mut self.frame);
        if deflate
            && frame.len() > COMPRESS_OVER
            && let Some(compressed) = compress(&frame)
        {
            return compressed.into();
        }
        frame.into()
    }
}

/// The compressed form of a plain frame, unless it is no shorter.
fn compress(frame: &[u8]) -> Option<Vec<u8>> {
    let messages = frame.get(1..)?;
    let length = u32::try_from(messages.len()).ok()?;
    let mut compressed = Vec::with_capacity(frame.len());
    compressed.push(DEFLATED);
    compressed.extend_from_slice(&length.to_be_bytes());
    let mut deflate = Compress::new(Compression::fast(), false);
    // It never grows the vector: what does not fit is not worth it.
    match deflate.compress_vec(messages, &mut compressed, FlushCompress::Finish) {
        Ok(Status::StreamEnd) => Some(compressed),
        _ => None,
    }
}

/// Takes a frame apart, one message at a time.
#[derive(Debug)]
pub struct BatchDecoder {
    messages: Bytes,
}

impl BatchDecoder {
    /// Reads `frame`, which may have up to `limit` bytes when inflated.
    ///
    /// # Errors
    /// [`BatchError`]; the connection that brought it should be closed.
    pub fn new(mut frame: Bytes, limit: usize) -> Result<Self, BatchError> {
        let form = frame.first().copied();
        frame.advance(usize::from(form.is_some()));
        match form {
            Some(PLAIN) => Ok(Self { messages: frame }),
            Some(DEFLATED) => inflate(frame, limit).map(|messages| Self { messages }),
            _ => Err(BatchError::Form(form)),
        }
    }

    fn decode(&mut self) -> Result<Message, BatchError> {
        let length = self.messages.try_get_u32().map_err(|_| BatchError::Truncated)?;
        let length = usize::try_from(length).map_err(|_| BatchError::Truncated)?;
        if length > self.messages.len() {
            return Err(BatchError::Truncated);
        }
        let text = self.messages.split_to(length);
        Ok(json::decode(str::from_utf8(&text)?)?)
    }
}

/// Nothing comes after an error.
impl Iterator for BatchDecoder {
    type Item = Result<Message, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.messages.is_empty() {
            return None;
        }
        let decoded = self.decode();
        if decoded.is_err() {
            self.messages.clear();
        }
        Some(decoded)
    }
}

fn inflate(mut frame: Bytes, limit: usize) -> Result<Bytes, BatchError> {
    let length = frame.try_get_u32().map_err(|_| BatchError::Truncated)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > limit {
        return Err(BatchError::TooLong { length, limit });
    }
    // Grows as it is read: what the peer says of the length costs it nothing.
    let mut messages = Vec::new();
    let mut reader = DeflateDecoder::new(&*frame).take(u64::try_from(length).unwrap_or(u64::MAX).saturating_add(1));
    reader.read_to_end(&mut messages).map_err(BatchError::Deflate)?;
    if messages.len() == length {
        Ok(messages.into())
    } else {
        Err(BatchError::Deflate(std::io::ErrorKind::InvalidData.into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{
        message::Content,
        names::UnixMillis,
        resource::Resource,
        words::{Group, Operation, Source},
    };

    const LIMIT: usize = 1024 * 1024;

    fn message(text: &str) -> Message {
        let resource = Resource::parse("default/configmap/app", &Group::Resource);
        Message::new(UnixMillis(7), Source::EdgeController, Group::Resource, Operation::Update, resource)
            .content(Content::text(text))
    }

    fn decoded(frame: Bytes) -> Result<Vec<Message>, BatchError> {
        BatchDecoder::new(frame, LIMIT)?.collect()
    }

    fn frame(messages: &[Message], deflate: bool) -> Bytes {
        let mut encoder = BatchEncoder::new();
        for message in messages {
            encoder.push(message);
        }
        encoder.finish(deflate)
    }

    #[test]
    fn long_frames_get_shorter_and_short_ones_stay() {
        let long: Vec<_> = (0..20).map(|count| message(&"reading ".repeat(20 + count))).collect();
        let (plain, compressed) = (frame(&long, false), frame(&long, true));
        assert!(compressed.len() * 4 < plain.len(), "{} of {}", compressed.len(), plain.len());
        assert_eq!((decoded(plain).unwrap(), decoded(compressed).unwrap()), (long.clone(), long));
        let short = [message("on")];
        assert_eq!(frame(&short, true), frame(&short, false));
    }

    #[test]
    fn what_does_not_get_shorter_is_sent_as_it_is() {
        let mut seed = 1_u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed.to_be_bytes()[0]
        };
        let noise: Vec<u8> = (0..4000).map(|_| noise()).collect();
        assert!(compress(&noise).is_none());
    }

    #[test]
    fn a_frame_that_says_too_much_is_refused_before_it_is_inflated() {
        let bomb = frame(&[message(&"0".repeat(LIMIT))], true);
        assert!(bomb.len() < 20_000, "{}", bomb.len());
        assert!(matches!(BatchDecoder::new(bomb.clone(), LIMIT), Err(BatchError::TooLong { .. })));
        let mut liar = bomb.to_vec();
        liar[1..5].copy_from_slice(&100_u32.to_be_bytes());
        assert!(matches!(BatchDecoder::new(liar.into(), LIMIT), Err(BatchError::Deflate(_))));
    }

    #[test]
    fn a_torn_frame_is_an_error_and_not_a_shorter_one() {
        for deflate in [false, true] {
            let whole = frame(&[message(&"a".repeat(2000)), message("b")], deflate);
            for end in (0..whole.len()).step_by(7) {
                let torn = decoded(whole.slice(..end));
                // A plain frame may be cut between two messages; nobody can tell.
                assert!(torn.is_err() || torn.unwrap().len() < 2, "cut at {end}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(texts in prop::collection::vec(".{0,200}", 0..20), deflate: bool) {
            let messages: Vec<_> = texts.iter().map(|text| message(text)).collect();
            let frame = frame(&messages, deflate);
            prop_assert_eq!(if messages.is_empty() { Vec::new() } else { decoded(frame).unwrap() }, messages);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), form in 0_u8..3) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = form; }
            let _ = decoded(bytes.into());
        }
    }
}
