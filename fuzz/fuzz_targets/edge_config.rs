//! `edgecore.yaml`.
#![no_main]

use kubeedge_edge::config::EdgeCoreConfig;
use kubeedge_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // An alias may stand for much more than its own length; the reader has a budget for that.
    bounded(data, 4096, || drop(EdgeCoreConfig::from_yaml(text)));
});
