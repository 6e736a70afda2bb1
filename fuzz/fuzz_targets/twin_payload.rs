//! What applications publish on the topics of twins, and what the cloud says of twins and membership.
#![no_main]

use kubeedge_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| bounded(data, 256, || kubeedge_twin::fuzzing::read(data)));
