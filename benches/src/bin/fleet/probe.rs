//! Objects that carry the time at which they were written.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kubeedge_core::{
    message::Message,
    names::{SystemClock, WallClock as _},
    resource::ResourceType,
};
use serde::Deserialize;

/// Key of a ConfigMap with the time of its write, in milliseconds since the Unix epoch.
pub(crate) const WRITTEN: &str = "fleet-written";
/// Key of a ConfigMap that fills it up.
pub(crate) const FILLING: &str = "fleet-filling";

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow, rename = "fleet-written")]
    written: &'a str,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    data: Written<'a>,
}

/// How long ago the object in `message` was written, if it is one of ours.
pub(crate) fn age(message: &Message) -> Option<Duration> {
    message.resource.object().filter(|path| path.kind == ResourceType::ConfigMap)?;
    let object: Object<'_> = serde_json::from_str(message.content.as_json()).ok()?;
    let written: i64 = object.data.written.parse().ok()?;
    Some(Duration::from_millis(u64::try_from(SystemClock.now().0 - written).unwrap_or(0)))
}

/// A ConfigMap of about `bytes` that carries the present time.
pub(crate) fn config_map(name: &str, namespace: &str, bytes: usize) -> ConfigMap {
    let now = SystemClock.now().0.to_string();
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.namespace = Some(namespace.to_owned());
    map.data = Some([(WRITTEN.to_owned(), now), (FILLING.to_owned(), "x".repeat(bytes))].into());
    map
}
