use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::dmi::hpack::{self, Decoder, Field, HpackError};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What each request gets. A Unix socket has no better name.
const AUTHORITY: &[u8] = b"localhost";
const HEAD: usize = 9;
/// Largest frame of headers; no reader of this process grants more.
const MAX_FRAME: usize = 16_384;
/// Most bytes of one header block, all of its frames together.
const MAX_BLOCK: usize = 32 * 1024;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Bytes that are not HTTP/2 as a client may speak it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("peer does not begin as a client of HTTP/2 does")]
    Preface,
    #[error("frame of headers has {0} bytes")]
    TooLong(usize),
    #[error("header block has more than {MAX_BLOCK} bytes")]
    BlockTooLong,
    #[error("padding or priority is longer than its frame")]
    Padding,
    #[error("frame within a header block, or headers without a begin")]
    Order,
    #[error(transparent)]
    Hpack(#[from] HpackError),
}

/// Rewrites what a client sends, in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Rewriter {
    decoder: Decoder,
    state: State,
    /// Bytes of something that is not complete.
    partial: BytesMut,
    block: Option<Block>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Preface,
    Head,
    /// So many bytes of a frame that is none of ours.
    Passing(usize),
    Headers(Head),
    /// Nothing can follow an error.
    Failed(FrameError),
}

#[derive(Clone, Copy, Debug)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// A header block whose end has not come.
#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    coded: BytesMut,
}

impl Rewriter {
    /// Takes `input`, and appends to `output` what can be said by now.
    ///
    /// # Errors
    /// [`FrameError`], then and from then on.
    pub(super) fn push(&mut self, input: &[u8], output: &mut BytesMut) -> Result<(), FrameError> {
        let outcome = self.advance(input, output);
        if let Err(error) = outcome {
            self.state = State::Failed(error);
        }
        outcome
    }

    fn advance(&mut self, mut input: &[u8], output: &mut BytesMut) -> Result<(), FrameError> {
        loop {
            match self.state {
                State::Failed(error) => return Err(error),
                State::Preface => {
                    let Some(preface) = self.take(&mut input, PREFACE.len()) else {
                        return if PREFACE.starts_with(&self.partial) { Ok(()) } else { Err(FrameError::Preface) };
                    };
                    if preface != PREFACE {
                        return Err(FrameError::Preface);
                    }
                    output.put_slice(PREFACE);
                    self.state = State::Head;
                }
                State::Head => {
                    let Some(raw) = self.take(&mut input, HEAD) else { return Ok(()) };
                    self.state = self.begin(raw, output)?;
                }
                State::Passing(left) => {
                    let count = left.min(input.len());
                    output.put_slice(&input[..count]);
                    input.advance(count);
                    if count < left {
                        self.state = State::Passing(left - count);
                        return Ok(());
                    }
                    self.state = State::Head;
                }
                State::Headers(head) => {
                    let Some(payload) = self.take(&mut input, head.length) else { return Ok(()) };
                    self.headers(head, &payload, output)?;
                    self.state = State::Head;
                }
            }
        }
    }

    /// `count` bytes, once there are as many.
    fn take(&mut self, input: &mut &[u8], count: usize) -> Option<Bytes> {
        let missing = count.saturating_sub(self.partial.len()).min(input.len());
        self.partial.put_slice(&input[..missing]);
        input.advance(missing);
        (self.partial.len() >= count).then(|| self.partial.split_to(count).freeze())
    }

    fn begin(&self, mut raw: Bytes, output: &mut BytesMut) -> Result<State, FrameError> {
        let whole = raw.clone();
        let length = usize::try_from(raw.get_uint(3)).unwrap_or(usize::MAX);
        let (kind, flags, stream) = (raw.get_u8(), raw.get_u8(), raw.get_u32() & 0x7fff_ffff);
        // Between the frames of a block nothing else may come.
        let fits = match (&self.block, kind) {
            (None, CONTINUATION) => false,
            (None, _) => true,
            (Some(block), CONTINUATION) => block.stream == stream,
            (Some(_), _) => false,
        };
        if !fits {
            return Err(FrameError::Order);
        }
        if !matches!(kind, HEADERS | CONTINUATION) {
            output.put_slice(&whole);
            return Ok(State::Passing(length));
        }
        if length > MAX_FRAME {
            return Err(FrameError::TooLong(length));
        }
        Ok(State::Headers(Head { length, kind, flags, stream }))
    }

    fn headers(&mut self, head: Head, payload: &[u8], output: &mut BytesMut) -> Result<(), FrameError> {
        let part = if head.kind == HEADERS { without_extras(head.flags, payload)? } else { payload };
        let end_stream = head.flags & END_STREAM != 0;
        let block = self.block.get_or_insert_with(|| Block { stream: head.stream, end_stream, coded: BytesMut::new() });
        if block.coded.len() + part.len() > MAX_BLOCK {
            return Err(FrameError::BlockTooLong);
        }
        block.coded.put_slice(part);
        if head.flags & END_HEADERS == 0 {
            return Ok(());
        }
        if let Some(block) = self.block.take() {
            let fields = self.decoder.decode(&block.coded)?;
            write_block(block.stream, block.end_stream, fields, output);
        }
        Ok(())
    }
}

/// The part of a HEADERS frame that belongs to the block.
fn without_extras(flags: u8, mut payload: &[u8]) -> Result<&[u8], FrameError> {
    if flags & PADDED != 0 {
        let (padding, rest) = payload.split_first().ok_or(FrameError::Padding)?;
        let length = rest.len().checked_sub(usize::from(*padding)).ok_or(FrameError::Padding)?;
        payload = &rest[..length];
    }
    if flags & PRIORITY != 0 {
        payload = payload.get(5..).ok_or(FrameError::Padding)?;
    }
    Ok(payload)
}

fn write_block(stream: u32, end_stream: bool, fields: Vec<Field>, output: &mut BytesMut) {
    let mut coded = BytesMut::new();
    for mut field in fields {
        if &*field.name == b":authority" {
            field.value = Bytes::from_static(AUTHORITY);
        }
        hpack::encode(&field, &mut coded);
    }
    let mut kind = HEADERS;
    loop {
        let part = coded.split_to(coded.len().min(MAX_FRAME));
        let mut flags = if coded.is_empty() { END_HEADERS } else { 0 };
        if kind == HEADERS && end_stream {
            flags |= END_STREAM;
        }
        output.put_uint(part.len() as u64, 3);
        output.put_slice(&[kind, flags]);
        output.put_u32(stream);
        output.put_slice(&part);
        kind = CONTINUATION;
        if coded.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
