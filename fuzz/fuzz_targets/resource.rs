//! The resource of a message: every text parses, and shows as it came. The first line is the group.
#![no_main]

use kubeedge_core::{resource::Resource, words::Group};
use kubeedge_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((group, text)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('\n')) else { return };
    bounded(data, 8, || {
        let group = Group::from_word(group);
        let resource = Resource::parse(text, &group);
        assert_eq!(resource.to_string(), text);
        if let Some(path) = resource.object() {
            assert_eq!(Resource::from(path.clone()), resource);
        }
    });
});
