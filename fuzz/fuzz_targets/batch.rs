//! A frame between two of ours: it is read or refused within the limit, and what was read is written to the same.
#![no_main]

use bytes::Bytes;
use kubeedge_core::{
    message::Message,
    wire::batch::{BatchDecoder, BatchEncoder},
};
use kubeedge_fuzz::{bounded, within};
use libfuzzer_sys::fuzz_target;

/// Bytes that a frame may have when inflated.
const LIMIT: usize = 1 << 20;

fn read(frame: Bytes) -> Option<Vec<Message>> {
    BatchDecoder::new(frame, LIMIT).ok()?.collect::<Result<_, _>>().ok()
}

fuzz_target!(|data: &[u8]| {
    let frame = Bytes::copy_from_slice(data);
    // One message at a time, whatever a frame says of its length. A vector grows by doubling.
    within(4 * LIMIT, || drop(BatchDecoder::new(frame.clone(), LIMIT).map(|messages| messages.for_each(drop))));
    if data.first() == Some(&0) {
        bounded(data, 16, || drop(BatchDecoder::new(frame.clone(), LIMIT).map(|messages| messages.for_each(drop))));
    }
    let Some(messages) = read(frame) else { return };
    for deflate in [false, true] {
        let mut encoder = BatchEncoder::new();
        messages.iter().for_each(|message| encoder.push(message));
        let frame = encoder.finish(deflate);
        // What is written has all its members, and may so be longer than what was read.
        if !messages.is_empty() && frame.len() < LIMIT / 2 {
            assert_eq!(read(frame).expect("what we write can be read"), messages);
        }
    }
});
