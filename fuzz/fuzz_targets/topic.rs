//! MQTT topics and filters. The first line is a topic, the second a filter.
#![no_main]

use kubeedge_core::topic::{DeviceTopic, Topic, TopicFilter};
use kubeedge_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((topic, filter)) = std::str::from_utf8(data).ok().and_then(|text| text.split_once('\n')) else { return };
    bounded(data, 16, || {
        let (topic, filter) = (Topic::new(topic), TopicFilter::new(filter));
        let Ok(topic) = topic else { return };
        if let Some(device) = DeviceTopic::parse(&topic) {
            assert_eq!(device.topic(), topic);
        }
        assert!(TopicFilter::from(topic.clone()).matches(&topic));
        if let Ok(filter) = filter {
            let _ = filter.matches(&topic);
        }
    });
});
