//! Twins in memory that keep a record of what they are told, and can be told to fail.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream;
use kubeedge_core::{
    device::DeviceState,
    names::{DeviceId, UnixMillis},
    service::Subscription,
    twin::{
        Delta, DeviceSelector, PropertyPatch, Twin, TwinError, TwinEvent, TwinHandle, TwinPatch, TwinProperty,
        TwinValue, TwinVersion, Twins,
    },
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// What the twins were told, and when.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Values(BTreeMap<String, String>),
    State(DeviceState),
}

#[derive(Clone)]
pub(crate) struct RecordingTwins(Arc<Mutex<State>>);

struct State {
    start: Instant,
    twins: BTreeMap<DeviceId, Twin>,
    told: Vec<(DeviceId, Duration, Told)>,
    busy: bool,
    watchers: Vec<mpsc::Sender<TwinEvent>>,
    writes: i64,
}

impl RecordingTwins {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            start: Instant::now(),
            twins: BTreeMap::new(),
            told: Vec::new(),
            busy: false,
            watchers: Vec::new(),
            writes: 0,
        })))
    }

    pub(crate) fn handle(&self) -> TwinHandle {
        TwinHandle::of(self.clone())
    }

    pub(crate) fn set_busy(&self, busy: bool) {
        self.0.lock().unwrap().busy = busy;
    }

    /// Sets a desired value; `quiet` leaves the watchers in the dark.
    pub(crate) fn wish(&self, device: &DeviceId, property: &str, value: &str, quiet: bool) {
        let mut state = self.0.lock().unwrap();
        state.writes += 1;
        let at = UnixMillis(state.writes);
        let name = property.parse().unwrap();
        let twin = state.twin(device);
        twin.properties.entry(name).or_insert_with(empty).desired = Some(TwinValue { value: value.to_owned(), at });
        let event = TwinEvent::Changed { twin: twin.clone(), changed: vec![property.parse().unwrap()] };
        if !quiet {
            state.tell(&event);
        }
    }

    pub(crate) fn lag(&self) {
        self.0.lock().unwrap().tell(&TwinEvent::Lagged(3));
    }

    pub(crate) fn close_watches(&self) {
        self.0.lock().unwrap().watchers.clear();
    }

    /// Everything told about `device`, with the time in milliseconds.
    pub(crate) fn told(&self, device: &DeviceId) -> Vec<(u128, Told)> {
        let state = self.0.lock().unwrap();
        let of = state.told.iter().filter(|(told, ..)| told == device);
        of.map(|(_, at, told)| (at.as_millis(), told.clone())).collect()
    }

    pub(crate) fn states(&self, device: &DeviceId) -> Vec<DeviceState> {
        let states = self.told(device).into_iter().filter_map(|(_, told)| match told {
            Told::State(state) => Some(state),
            Told::Values(_) => None,
        });
        states.collect()
    }

    pub(crate) fn values(&self, device: &DeviceId) -> Vec<(u128, BTreeMap<String, String>)> {
        let values = self.told(device).into_iter().filter_map(|(at, told)| match told {
            Told::Values(values) => Some((at, values)),
            Told::State(_) => None,
        });
        values.collect()
    }

    pub(crate) fn reported(&self, device: &DeviceId, property: &str) -> Option<String> {
        let state = self.0.lock().unwrap();
        let property = state.twins.get(device)?.properties.get(&property.parse().unwrap())?;
        Some(property.reported.as_ref()?.value.clone())
    }
}

impl State {
    fn twin(&mut self, device: &DeviceId) -> &mut Twin {
        let new = || Twin { device: device.clone(), state: None, properties: BTreeMap::new() };
        self.twins.entry(device.clone()).or_insert_with(new)
    }

    fn tell(&mut self, event: &TwinEvent) {
        self.watchers.retain(|watcher| watcher.try_send(event.clone()).is_ok());
    }

    fn free(&self) -> Result<(), TwinError> {
        if self.busy { Err(TwinError::Busy) } else { Ok(()) }
    }
}

fn empty() -> TwinProperty {
    TwinProperty {
        desired: None,
        reported: None,
        value_type: "string".to_owned(),
        optional: true,
        desired_version: TwinVersion::default(),
        reported_version: TwinVersion::default(),
    }
}

#[async_trait]
impl Twins for RecordingTwins {
    async fn get(&self, device: DeviceId) -> Result<Twin, TwinError> {
        let mut state = self.0.lock().unwrap();
        state.free()?;
        Ok(state.twin(&device).clone())
    }

    async fn desire(&self, _: DeviceId, _: TwinPatch) -> Result<Delta, TwinError> {
        panic!("the mapper desires nothing")
    }

    async fn report(&self, device: DeviceId, patch: TwinPatch) -> Result<Delta, TwinError> {
        let mut state = self.0.lock().unwrap();
        state.free()?;
        let bad = |patch: &PropertyPatch| patch.value.contains(' ');
        if let Some((name, _)) = patch.iter().find(|(_, patch)| patch.as_ref().is_some_and(bad)) {
            return Err(TwinError::Invalid { property: name.to_string(), reason: "has a blank".to_owned() });
        }
        let at = state.start.elapsed();
        let values = patch.iter().map(|(name, patch)| (name.to_string(), patch.as_ref().unwrap().value.clone()));
        let told = Told::Values(values.collect());
        state.told.push((device.clone(), at, told));
        let twin = state.twin(&device);
        let changed = patch.keys().cloned().collect();
        for (name, patch) in patch {
            let value = patch.unwrap().value;
            twin.properties.entry(name).or_insert_with(empty).reported = Some(TwinValue { value, at: UnixMillis(0) });
        }
        let event = TwinEvent::Changed { twin: twin.clone(), changed };
        state.tell(&event);
        Ok(Delta::new())
    }

    async fn report_state(&self, device: DeviceId, to: DeviceState) -> Result<(), TwinError> {
        let mut state = self.0.lock().unwrap();
        state.free()?;
        let at = state.start.elapsed();
        state.told.push((device, at, Told::State(to)));
        Ok(())
    }

    async fn watch(&self, _: DeviceSelector) -> Result<Subscription<TwinEvent>, TwinError> {
        let mut state = self.0.lock().unwrap();
        state.free()?;
        let (sender, receiver) = mpsc::channel(64);
        state.watchers.push(sender);
        let events = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        Ok(Subscription::new(events, CancellationToken::new()))
    }
}
