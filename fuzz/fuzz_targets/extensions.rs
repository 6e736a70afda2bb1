//! The header in which two of ours agree on extensions.
#![no_main]

use kubeedge_core::transport::Extensions;
use kubeedge_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    bounded(data, 8, || {
        let extensions = Extensions::parse(text);
        assert_eq!(Extensions::parse(&extensions.to_string()), extensions);
        assert_eq!(extensions.common(extensions), extensions);
        assert_eq!(extensions.common(Extensions::default()), Extensions::default());
    });
});
