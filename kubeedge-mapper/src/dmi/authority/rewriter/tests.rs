#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn rewrite(pieces: &[&[u8]]) -> (Vec<u8>, Result<(), FrameError>) {
    let (mut rewriter, mut output) = (Rewriter::default(), BytesMut::new());
    for piece in pieces {
        if let Err(error) = rewriter.push(piece, &mut output) {
            assert_eq!(rewriter.push(b"more", &mut output), Err(error), "an error is the end");
            return (output.to_vec(), Err(error));
        }
    }
    (output.to_vec(), Ok(()))
}

fn rewritten(frames: &[Vec<u8>]) -> Result<Vec<u8>, FrameError> {
    let (output, outcome) = rewrite(&[PREFACE, &frames.concat()]);
    outcome.map(|()| output[PREFACE.len()..].to_vec())
}

/// The fields of the header blocks in `bytes`, which are the rewriter's: nothing in them refers to a table.
fn blocks(mut bytes: &[u8]) -> Vec<Vec<(String, String)>> {
    let (mut blocks, mut open) = (Vec::new(), Vec::new());
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while !bytes.is_empty() {
        let length = usize::try_from(bytes.get_uint(3)).unwrap();
        let (kind, flags) = (bytes.get_u8(), bytes.get_u8());
        bytes.advance(4);
        if matches!(kind, HEADERS | CONTINUATION) {
            open.extend(&bytes[..length]);
            if flags & END_HEADERS != 0 {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let fields = Decoder::default().decode(&std::mem::take(&mut open)).unwrap();
                blocks.push(fields.iter().map(|field| (text(&field.name), text(&field.value))).collect());
            }
        }
        bytes.advance(length);
    }
    blocks
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut block = BytesMut::new();
    hpack::encode(&Field { name: name.to_owned().into(), value: value.to_owned().into() }, &mut block);
    block.to_vec()
}

const SETTINGS: u8 = 4;
const DATA: u8 = 0;

/// What grpc-go 1.67.1 sent through `grpc.Dial("/tmp/kubeedge-dmi/dmi.sock")`: five calls of one connection.
const GRPC_GO: &[u8] = include_bytes!("../../../../tests/golden/grpc-go-1.67.1.bin");

#[test]
fn calls_of_grpc_go_get_a_valid_authority_and_keep_all_else() {
    let (output, outcome) = rewrite(&[GRPC_GO]);
    outcome.unwrap();
    let blocks = blocks(&output);
    assert_eq!(blocks.len(), 5);
    for (block, call) in blocks.iter().zip(["MapperRegister", "ReportDeviceStatus", "ReportDeviceStatus"]) {
        let value = |name: &str| block.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
        assert_eq!(value(":authority"), Some("localhost"));
        assert_eq!(value(":path"), Some(format!("/v1beta1.DeviceManagerService/{call}").as_str()));
        assert_eq!((value(":method"), value("te")), (Some("POST"), Some("trailers")));
        assert_eq!(value("user-agent"), Some("grpc-go/1.67.1"));
    }
    // The calls themselves pass as they came.
    let data = |bytes: &[u8]| bytes.windows(9).filter(|window| *window == b"go-mapper").count();
    assert_eq!((data(&output), data(GRPC_GO)), (1, 1));
}

#[test]
fn padding_and_priority_are_left_out_and_continuations_joined() {
    let block = [literal(":authority", "%2Fetc%2Fkubeedge%2Fdmi.sock"), literal("a", "b")].concat();
    let mut padded = vec![3, 0, 0, 0, 0, 16];
    padded.extend(&block[..10]);
    padded.extend([0; 3]);
    let frames = [
        frame(HEADERS, PADDED | PRIORITY | END_STREAM, 1, &padded),
        frame(CONTINUATION, 0, 1, &block[10..20]),
        frame(CONTINUATION, END_HEADERS, 1, &block[20..]),
    ];
    let expected = [literal(":authority", "localhost"), literal("a", "b")].concat();
    assert_eq!(rewritten(&frames).unwrap(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &expected));
}

#[test]
fn frames_of_other_kinds_pass_untouched() {
    let frames = [
        frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]),
        frame(DATA, 1, 1, &[7; 16_384]),
        frame(0xfa, 0xff, 9, b"of a kind that nobody knows"),
        frame(8, 0, 0, &[0, 0, 1, 0]),
    ];
    assert_eq!(rewritten(&frames).unwrap(), frames.concat());
}

#[test]
fn trailers_and_requests_without_authority_get_none() {
    let block = literal("grpc-status", "0");
    let frames = [frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)];
    assert_eq!(rewritten(&frames).unwrap(), frames.concat());
}

#[test]
fn a_long_block_is_written_in_several_frames() {
    let long = literal("a", &"x".repeat(20_000));
    let frames = [frame(HEADERS, 0, 1, &long[..16_000]), frame(CONTINUATION, END_HEADERS, 1, &long[16_000..])];
    let expected = [frame(HEADERS, 0, 1, &long[..MAX_FRAME]), frame(CONTINUATION, END_HEADERS, 1, &long[MAX_FRAME..])];
    assert_eq!(rewritten(&frames).unwrap(), expected.concat());
}

#[test]
fn what_is_not_http2_is_refused() {
    assert_eq!(rewrite(&[b"GET / HTTP/1.1\r\n"]).1, Err(FrameError::Preface));
    assert_eq!(rewrite(&[b"PRI * HTTP/2.0\r\n\r\nXX"]).1, Err(FrameError::Preface));
    let order = Err(FrameError::Order);
    assert_eq!(rewritten(&[frame(CONTINUATION, END_HEADERS, 1, b"")]), order);
    assert_eq!(rewritten(&[frame(HEADERS, 0, 1, b""), frame(DATA, 0, 1, b"")]), order);
    assert_eq!(rewritten(&[frame(HEADERS, 0, 1, b""), frame(CONTINUATION, 0, 3, b"")]), order);
    assert_eq!(rewritten(&[frame(HEADERS, 0, 1, b""), frame(HEADERS, 0, 1, b"")]), order);
    assert_eq!(rewritten(&[frame(HEADERS, PADDED, 1, &[9, 0])]), Err(FrameError::Padding));
    assert_eq!(rewritten(&[frame(HEADERS, PRIORITY, 1, &[0; 4])]), Err(FrameError::Padding));
    assert!(matches!(rewritten(&[frame(HEADERS, END_HEADERS, 1, &[0x80])]), Err(FrameError::Hpack(_))));
    assert_eq!(rewritten(&[frame(HEADERS, 0, 1, &vec![0; MAX_FRAME + 1])]), Err(FrameError::TooLong(MAX_FRAME + 1)));
    let part = [0; MAX_FRAME];
    let flood = [frame(HEADERS, 0, 1, &part), frame(CONTINUATION, 0, 1, &part), frame(CONTINUATION, 0, 1, &[0])];
    assert_eq!(rewritten(&flood), Err(FrameError::BlockTooLong));
}

fn pieces(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    cuts.into_iter().map(|to| bytes[std::mem::replace(&mut from, to)..to].to_vec()).collect()
}

prop_compose! {
    fn any_frame()(
        kind in prop_oneof![Just(HEADERS), Just(CONTINUATION), any::<u8>()],
        flags in any::<u8>(),
        stream in 1_u32..4,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) -> Vec<u8> {
        frame(kind, flags, stream, &payload)
    }
}

proptest! {
    #[test]
    fn it_does_not_matter_in_which_pieces_the_bytes_come(
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40)
    ) {
        let pieces = pieces(GRPC_GO, &cuts);
        let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(rewrite(&pieces), rewrite(&[GRPC_GO]));
    }

    #[test]
    fn hostile_bytes_in_any_pieces_are_the_same_error(
        frames in prop::collection::vec(any_frame(), 0..12),
        garbage in prop::collection::vec(any::<u8>(), 0..30),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let bytes = [PREFACE, &frames.concat(), &garbage].concat();
        let pieces = pieces(&bytes, &cuts);
        let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(rewrite(&pieces), rewrite(&[&bytes]));
    }
}
