//! A driver over values in memory that does what the test says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures_util::stream;
use kubeedge_core::{
    device::DeviceState,
    mapper::{Driver, DriverError, DriverHandle, DriverMaker, Reading, Sample, Value, Visitor, driver_maker},
    names::UnixMillis,
    service::Subscription,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Works,
    Offline,
    Hangs,
    RefusesWrites,
    Panics,
}

/// A plant is shared by all that open it.
#[derive(Clone)]
pub(crate) struct Plant(Arc<Mutex<State>>);

pub(crate) struct State {
    pub mode: Mode,
    pub values: BTreeMap<String, Value>,
    /// A property that never answers.
    pub mute: Option<String>,
    pub reads: Vec<String>,
    pub writes: Vec<(String, Value)>,
    pub opened: usize,
    pub open_now: usize,
    /// Whether it speaks by itself, and to whom.
    pub pushes: bool,
    pub listener: Option<mpsc::Sender<Reading>>,
    pub health: DeviceState,
}

impl Plant {
    pub(crate) fn new(values: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self(Arc::new(Mutex::new(State {
            mode: Mode::Works,
            values,
            mute: None,
            reads: Vec::new(),
            writes: Vec::new(),
            opened: 0,
            open_now: 0,
            pushes: false,
            listener: None,
            health: DeviceState::Unknown,
        })))
    }

    /// Says something by itself.
    pub(crate) fn say(&self, property: &str, outcome: Result<Value, DriverError>) {
        let outcome = outcome.map(|value| Sample { value, at: UnixMillis(2) });
        let reading = Reading { property: property.parse().unwrap(), outcome };
        self.with(|state| state.listener.as_ref().unwrap().try_send(reading).unwrap());
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(crate) fn set(&self, property: &str, value: Value) {
        self.with(|state| state.values.insert(property.to_owned(), value));
    }

    pub(crate) fn mode(&self, mode: Mode) {
        self.with(|state| state.mode = mode);
    }

    pub(crate) fn maker(&self) -> DriverMaker {
        let plant = self.clone();
        driver_maker(move |_| {
            let plant = plant.clone();
            async move {
                plant.with(|state| {
                    state.opened += 1;
                    state.open_now += 1;
                });
                Ok(DriverHandle::of(Opened(plant)))
            }
        })
    }
}

struct Opened(Plant);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.with(|state| state.open_now -= 1);
    }
}

impl Opened {
    async fn answer(&self) -> Result<(), DriverError> {
        let mode = self.0.with(|state| state.mode);
        match mode {
            Mode::Works | Mode::RefusesWrites => Ok(()),
            Mode::Offline => Err(DriverError::Offline("cable is out".into())),
            Mode::Hangs => std::future::pending().await,
            Mode::Panics => panic!("a driver with a bug"),
        }
    }
}

#[async_trait]
impl Driver for Opened {
    async fn read(&self, visitor: Visitor) -> Result<Sample, DriverError> {
        let name = visitor.property.to_string();
        let mute = self.0.with(|state| {
            state.reads.push(name.clone());
            state.mute.as_ref() == Some(&name)
        });
        if mute {
            std::future::pending::<()>().await;
        }
        self.answer().await?;
        let value = self.0.with(|state| state.values.get(&name).cloned());
        let value = value.ok_or_else(|| DriverError::Refused("no such register".to_owned()))?;
        Ok(Sample { value, at: UnixMillis(1) })
    }

    async fn write(&self, visitor: Visitor, value: Value) -> Result<(), DriverError> {
        let name = visitor.property.to_string();
        self.0.with(|state| state.writes.push((name.clone(), value.clone())));
        self.answer().await?;
        if self.0.with(|state| state.mode) == Mode::RefusesWrites {
            return Err(DriverError::Refused("locked".to_owned()));
        }
        self.0.set(&name, value);
        Ok(())
    }

    async fn subscribe(&self, _: Vec<Visitor>) -> Result<Subscription<Reading>, DriverError> {
        if !self.0.with(|state| state.pushes) {
            return Err(DriverError::Unsupported);
        }
        let (sender, receiver) = mpsc::channel(16);
        self.0.with(|state| state.listener = Some(sender));
        let readings = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        Ok(Subscription::new(readings, CancellationToken::new()))
    }

    async fn health(&self) -> Result<DeviceState, DriverError> {
        Ok(self.0.with(|state| state.health.clone()))
    }
}
