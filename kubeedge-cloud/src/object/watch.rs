//! Watching a kind, with objects as they came.

use std::{borrow::Cow, time::Duration};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource,
    api::ApiResource,
    core::DynamicResourceScope,
    runtime::{WatchStreamExt as _, utils::Backoff, watcher},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{ApiCalls, Kind, NodeObject, upgraded};

/// An object in JSON, and the little of its metadata that a watch needs.
#[derive(Clone, Debug)]
pub(crate) struct RawObject {
    metadata: ObjectMeta,
    pub(crate) value: Value,
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = |member: &str| value["metadata"][member].as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, value })
    }
}

impl Resource for RawObject {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn api_version(kind: &ApiResource) -> Cow<'_, str> {
        kind.api_version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What happened to the objects of a kind.
#[derive(Debug)]
pub(crate) enum Watched<F> {
    /// All of them follow, as [`Watched::Applied`], up to the end of the list.
    ListStarts,
    /// Objects that did not come since the start of the list are gone.
    ListEnds,
    /// There is this one; with what was read in it.
    Applied(NodeObject, F),
    /// It is gone; this is the last that was known of it.
    Deleted(NodeObject),
}

/// Watches `kind` for ever, and reads with `read` in each object. Failures are logged, and tried again at growing
/// intervals up to five seconds.
pub(crate) fn watch<F: Send + 'static>(
    client: Client,
    kind: &'static Kind,
    labels: Option<&str>,
    read: fn(&Value) -> F,
) -> impl Stream<Item = Watched<F>> + Send + use<F> {
    let api = Api::<RawObject>::all_with(client.clone(), &kind.api_resource());
    let config = labels.map_or_else(watcher::Config::default, |labels| watcher::Config::default().labels(labels));
    let events = watcher(api, config).backoff(Pause::default());
    let calls = ApiCalls::new(client);
    // One after another, so that the order stays. Only devices may have to be asked for.
    let events = events.then(move |event| newest(calls.clone(), kind, event));
    events.filter_map(move |event| {
        let watched = match event {
            Ok(watcher::Event::Init) => Some(Watched::ListStarts),
            Ok(watcher::Event::InitDone) => Some(Watched::ListEnds),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                let facts = read(&object.value);
                carried(kind, object).map(|object| Watched::Applied(object, facts))
            }
            Ok(watcher::Event::Delete(object)) => carried(kind, object).map(Watched::Deleted),
            Err(err) => {
                tracing::warn!(kind = kind.kind, err = &err as &dyn std::error::Error, "watch interrupted");
                None
            }
        };
        std::future::ready(watched)
    })
}

/// An object of an older version becomes one of the newest.
async fn newest(
    calls: ApiCalls,
    kind: &'static Kind,
    event: Result<watcher::Event<RawObject>, watcher::Error>,
) -> Result<watcher::Event<RawObject>, watcher::Error> {
    Ok(match event? {
        watcher::Event::InitApply(RawObject { metadata, value }) => {
            watcher::Event::InitApply(RawObject { metadata, value: Box::pin(upgraded(&calls, kind, value)).await })
        }
        watcher::Event::Apply(RawObject { metadata, value }) => {
            watcher::Event::Apply(RawObject { metadata, value: Box::pin(upgraded(&calls, kind, value)).await })
        }
        other => other,
    })
}

fn carried(kind: &Kind, object: RawObject) -> Option<NodeObject> {
    let name = object.metadata.name.clone();
    match NodeObject::new(kind, object.value) {
        Ok(object) => Some(object),
        Err(err) => {
            tracing::warn!(kind = kind.kind, name, err = &err as &dyn std::error::Error, "object cannot be carried");
            None
        }
    }
}

/// 200 ms, doubling up to 5 s, each 20 % more or less.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(5);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0.mul_f64(0.8 + 0.4 * fastrand::f64());
        self.0 = (self.0 * 2).min(LAST_PAUSE);
        Some(pause)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        *self = Self::default();
    }
}
