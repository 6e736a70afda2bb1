//! Names of ObjectSync and ClusterObjectSync.
#![no_main]

use kubeedge_cloud::crds::{object_sync_name, parse_object_sync_name};
use kubeedge_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    bounded(data, 8, || {
        if let Some((node, uid)) = parse_object_sync_name(text) {
            assert_eq!(object_sync_name(&node, &uid), text);
        }
    });
});
