//! Tells of devices and models that cannot work as they are written, in Events about them.
//!
//! An Event, and no condition: whatever is written into the status of a Device goes down to its node as a change of
//! settings, and the DeviceStatus is there for what the edge reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use kube::Client;
use kubeedge_core::{
    answer::ApiStatus,
    device::{self, Problem},
    names::{SharedClock, Uid},
    resource::{ObjectPath, ResourceType},
};
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    object::{ApiCalls, CONVERTED, Kind, NodeObject},
    sync::{Followed, Truth},
};

/// After a change, until it is judged: what belongs together is often written in any order.
const SETTLE: Duration = Duration::from_secs(2);
/// While nothing gets better. The API drops Events after an hour.
const REPEAT: Duration = Duration::from_secs(30 * 60);
/// Until what could not be told is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// Objects that are judged at a time.
const AT_A_TIME: usize = 8;
/// Longest message of an Event, as the API takes it.
const LONGEST: usize = 1024;

/// Judges each Device and DeviceModel when it or, for a Device, its model has changed. Of each object there is one Event,
/// which is written anew when the problems are others, and every half hour while they stay.
pub(super) struct Inspector {
    calls: ApiCalls,
    truth: Truth,
    clock: SharedClock,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// What is to be judged, and when.
    due: BTreeMap<ObjectPath, Instant>,
    /// Models that have changed: their devices are to be judged with the next object.
    models: BTreeSet<ObjectPath>,
    /// What was told of which object, and when it is to be told again.
    told: BTreeMap<ObjectPath, Told>,
}

struct Told {
    message: String,
    again: Instant,
}

impl Inspector {
    pub(super) fn new(client: Client, truth: Truth, clock: SharedClock) -> Self {
        Self { calls: ApiCalls::new(client), truth, clock, state: Mutex::default(), wake: Notify::new() }
    }

    /// Learns of a change.
    pub(super) fn follow(&self, followed: Followed<'_>) {
        let mut state = self.state();
        match followed {
            Followed::Applied(path) | Followed::Deleted(path) => {
                state.due.entry(path.clone()).or_insert_with(|| Instant::now() + SETTLE);
                if path.kind == ResourceType::DeviceModel {
                    state.models.insert(path.clone());
                }
            }
            Followed::Listed => {}
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Judges for ever.
    pub(super) async fn run(&self) {
        // A model that is not listed yet is not missing.
        self.truth.listed(&[ResourceType::Device, ResourceType::DeviceModel]).await;
        loop {
            let (paths, next) = self.take(Instant::now());
            stream::iter(&paths).for_each_concurrent(AT_A_TIME, |path| self.judge(path)).await;
            if paths.is_empty() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = sleep_until(next) => {}
                }
            }
        }
    }

    /// What is to be judged now, and when there is more.
    fn take(&self, now: Instant) -> (BTreeSet<ObjectPath>, Instant) {
        let mut state = self.state();
        let mut paths: BTreeSet<ObjectPath> = BTreeSet::new();
        state.due.retain(|path, due| {
            let is_due = *due <= now;
            if is_due {
                paths.insert(path.clone());
            }
            !is_due
        });
        if !paths.is_empty() && !state.models.is_empty() {
            let models = std::mem::take(&mut state.models);
            paths.extend(self.truth.placement().referring(&ResourceType::Device, &models));
        }
        paths.extend(state.told.iter().filter(|(_, told)| told.again <= now).map(|(path, _)| path.clone()));
        let next = state.due.values().chain(state.told.values().map(|told| &told.again)).min().copied();
        (paths, next.unwrap_or(now + REPEAT))
    }

    async fn judge(&self, path: &ObjectPath) {
        let kept = self.truth.placement().object(path);
        let object = match kept {
            Some(object) => Ok(Some(NodeObject::clone(&object))),
            // Contents are kept only of what a node needs.
            None => self.truth.ask(path).await,
        };
        let told = match object {
            Ok(None) => Ok(None),
            Ok(Some(object)) => {
                let message = message(&self.problems(&object), left_out(&object).as_deref());
                if message.is_empty() { Ok(None) } else { self.tell(&object, &message).await.map(|()| Some(message)) }
            }
            Err(err) => Err(err),
        };
        let (mut state, now) = (self.state(), Instant::now());
        match told {
            Ok(None) => drop(state.told.remove(path)),
            Ok(Some(message)) => drop(state.told.insert(path.clone(), Told { message, again: now + REPEAT })),
            Err(err) => {
                tracing::debug!(object = %path, %err, "problems not told, it will be tried again");
                state.due.entry(path.clone()).or_insert(now + RETRY);
            }
        }
    }

    /// What is wrong with an object, by what is known of its model.
    fn problems(&self, object: &NodeObject) -> Vec<Problem> {
        let spec = |object: &NodeObject| object.content.parse::<Value>().unwrap_or_default()["spec"].take();
        if object.path.kind == ResourceType::DeviceModel {
            return device::read_model(&spec(object))
                .map_or_else(|problems| problems, |it| device::validate_model(&it));
        }
        let read = match device::read_device(&spec(object)) {
            Ok(read) => read,
            Err(problems) => return problems,
        };
        let name = read.device_model_ref.as_ref().map_or("", |model| &model.name);
        let namespace = object.path.namespace.as_ref();
        let path = namespace.and_then(|it| ObjectPath::namespaced(it.as_str(), ResourceType::DeviceModel, name).ok());
        let model = path.and_then(|path| self.truth.placement().object(&path));
        match model.map(|model| device::read_model(&spec(&model))) {
            None => device::validate(&read, None),
            Some(Ok(model)) => device::validate(&read, Some(&model)),
            // It has an Event of its own.
            Some(Err(_)) => Vec::new(),
        }
    }

    /// Writes the Event, unless it says so already and is not old.
    async fn tell(&self, object: &NodeObject, message: &str) -> Result<(), ApiStatus> {
        let known = self
            .state()
            .told
            .get(&object.path)
            .is_some_and(|told| told.message == message && told.again > Instant::now());
        let (Some(namespace), Some(name), false) = (&object.path.namespace, &object.path.name, known) else {
            return Ok(());
        };
        tracing::warn!(object = %object.path, message, "object cannot be used as it is");
        let now = rfc3339(self.clock.now().0);
        let event = event(object, message, &now);
        match self.calls.create(&Kind::EVENT, Some(namespace.as_str()), &event).await {
            Err(status) if status.is_already_exists() => {}
            done => return done.map(drop),
        }
        let event_name = event_name(name.as_str(), &object.uid);
        let place = (&Kind::EVENT, Some(namespace.as_str()), &*event_name);
        let there = self.calls.get(place).await?;
        let is_again = self.state().told.get(&object.path).is_some_and(|told| told.message == message);
        if there["message"] == message && !is_again {
            // This cloud has just started, or another one was quicker.
            return Ok(());
        }
        let count = there["count"].as_i64().unwrap_or(1).saturating_add(1);
        let patch = json!({
            "message": message, "count": count, "lastTimestamp": now, "involvedObject": event["involvedObject"],
        });
        self.calls.merge(place, &patch).await.map(drop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of an older version had no place.
fn left_out(object: &NodeObject) -> Option<String> {
    let object = object.content.parse::<Value>().ok()?;
    let told = object["metadata"]["annotations"][CONVERTED].as_str()?;
    let rest = if told.is_empty() { String::new() } else { format!(": {told}") };
    Some(format!("it is of v1alpha2 and has to be written anew as v1beta1{rest}"))
}

/// All problems in a line, as many as fit.
fn message(problems: &[Problem], more: Option<&str>) -> String {
    let mut text = String::new();
    for next in problems.iter().map(ToString::to_string).chain(more.map(str::to_owned)) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&next);
    }
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// The same for all clouds, so that there is one Event per object.
fn event_name(name: &str, uid: &Uid) -> String {
    let uid: String = uid.as_str().chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{}.{}", &name[..name.floor_char_boundary(200)], uid.to_ascii_lowercase())
}

fn event(object: &NodeObject, message: &str, now: &str) -> Value {
    let name = object.path.name.as_ref().map_or("", |name| name.as_str());
    let namespace = object.path.namespace.as_ref().map_or("", |namespace| namespace.as_str());
    let version = object.version.map(|version| version.number().to_string());
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "name": event_name(name, &object.uid), "namespace": namespace },
        "involvedObject": {
            "apiVersion": object.api_version, "kind": object.kind, "name": name, "namespace": namespace,
            "uid": object.uid.as_str(), "resourceVersion": version,
        },
        "reason": format!("Invalid{}", object.kind), "message": message, "type": "Warning", "count": 1,
        "firstTimestamp": now, "lastTimestamp": now, "source": { "component": "devicecontroller" },
        "reportingComponent": "devicecontroller", "reportingInstance": "",
    })
}

fn rfc3339(millis: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
