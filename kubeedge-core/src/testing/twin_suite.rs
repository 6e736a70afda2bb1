use std::time::Duration;

use crate::{
    device::DeviceState,
    names::{DeviceId, PropertyName},
    service::Subscription,
    twin::{DeviceSelector, PropertyPatch, Twin, TwinError, TwinEvent, TwinHandle, TwinPatch},
};

fn patch(name: &str, value: &str) -> TwinPatch {
    let property = PropertyPatch { value: value.into(), value_type: None };
    TwinPatch::from([(property_name(name), Some(property))])
}

fn property_name(name: &str) -> PropertyName {
    PropertyName::new(name).expect("a name")
}

async fn next(watch: &mut Subscription<TwinEvent>) -> TwinEvent {
    let item = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
    item.expect("a watch delivers changes").expect("a watch does not end by itself")
}

/// What every [`Twins`](crate::twin::Twins) has to do. `device` is a device of the node without values yet.
///
/// # Panics
/// With the rule that is broken.
pub async fn twin_suite(twins: TwinHandle, device: DeviceId) {
    let stranger: DeviceId = "suite/nobody".parse().expect("an id");
    assert!(
        matches!(twins.get(stranger.clone()).await, Err(TwinError::UnknownDevice(id)) if id == stranger),
        "an unknown device is told by its id"
    );
    assert!(matches!(twins.report(stranger, patch("x", "1")).await, Err(TwinError::UnknownDevice(_))));

    let mut watch = twins.watch(DeviceSelector::One(device.clone())).await.expect("watch");
    let delta = twins.report(device.clone(), patch("suite-temperature", "21")).await.expect("report");
    assert!(delta.is_empty(), "nothing is desired yet");
    let TwinEvent::Changed { twin, changed } = next(&mut watch).await else { panic!("a change is watched") };
    assert_eq!(changed, [property_name("suite-temperature")], "a change names its properties");
    assert_eq!(reported(&twin, "suite-temperature"), Some("21"), "the first report is not lost");

    let delta = twins.desire(device.clone(), patch("suite-temperature", "30")).await.expect("desire");
    assert_eq!(
        delta.get(&property_name("suite-temperature")).map(String::as_str),
        Some("30"),
        "the delta tells the rest"
    );
    let delta = twins.report(device.clone(), patch("suite-temperature", "30")).await.expect("report");
    assert!(delta.is_empty(), "a device that follows has no delta");

    let twin = twins.get(device.clone()).await.expect("get");
    let property = &twin.properties[&property_name("suite-temperature")];
    assert!(property.reported_version.edge >= 2, "every change counts in the version");

    twins.report_state(device.clone(), DeviceState::Online).await.expect("report state");
    assert_eq!(twins.get(device.clone()).await.expect("get").state, Some(DeviceState::Online), "the state is kept");

    let long = "°C ".repeat(1000);
    twins.report(device.clone(), patch("suite-text", &long)).await.expect("any printable text is a value");
    let too_long = "x".repeat(64 * 1024 + 1);
    assert!(
        matches!(twins.report(device.clone(), patch("suite-text", &too_long)).await, Err(TwinError::Invalid { .. })),
        "a value of more than 64 KiB is refused to whoever sent it"
    );
    let twin = twins.get(device).await.expect("get");
    assert_eq!(reported(&twin, "suite-text"), Some(long.as_str()), "a refused value changes nothing");
}

fn reported<'a>(twin: &'a Twin, name: &str) -> Option<&'a str> {
    twin.properties.get(&property_name(name))?.reported.as_ref().map(|value| value.value.as_str())
}
