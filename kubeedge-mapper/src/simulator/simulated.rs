use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    device::{ConfigData, DeviceInstance},
    mapper::{Driver, DriverError, DriverHandle, DriverMaker, Sample, Value, Visitor, driver_maker},
    names::{PropertyName, SharedClock, UnixMillis},
};

use super::{
    faults::{Fault, Faults},
    generator::{Generator, Walk},
};
use crate::{convert, settings::Settings};

/// A driver without a device, for the protocol `simulator`. Settings of the device, none of them needed:
///
/// | key | meaning | default |
/// |---|---|---|
/// | `faults` | what goes wrong when, as in `10000-15000 silent, 20000-21000 refuse` | nothing |
/// | `faultPeriod` | milliseconds after which `faults` begin anew; 0 for never | 0 |
/// | `delay` | milliseconds that each exchange takes, up to 60000 | 0 |
///
/// The times of `faults` are milliseconds since the device was opened, the second one is no more part of it. `offline`
/// is a device that cannot be reached, `silent` one that does not answer, `busy` and `refuse` are its answers.
///
/// Settings of a visitor:
///
/// | key | meaning | default |
/// |---|---|---|
/// | `generator` | `written`, `constant`, `sine`, `triangle`, `square`, `ramp`, `counter`, `steps` or `walk` | `written` |
/// | `value` | value of `constant`; of `written` until something is written | `0`, `false` or empty |
/// | `min`, `max` | ends of the waves and of `walk`; start of `counter` | 0, 100 |
/// | `period` | milliseconds of one wave, between the steps of `counter` and `walk`, of all `steps` | 60000 |
/// | `steps` | values from a time in milliseconds on, as in `0=off,5000=on` | needed by `steps` |
/// | `seed`, `step` | of `walk`: what it goes by, and how far in one step at most | 0, 1 |
///
/// `ramp` climbs from `min` to `max` and falls back at once; `square` is `max` in the first half of a period. The waves
/// follow the wall clock, so that they go on where they were after a restart; `counter`, `steps` and `walk` begin when
/// the device is opened. Walks with the same settings are the same. `written` gives back what was written, and only it
/// can be written.
pub struct Simulated {
    clock: SharedClock,
    opened: UnixMillis,
    faults: Faults,
    delay: Duration,
    written: Mutex<HashMap<PropertyName, Value>>,
    walks: Mutex<HashMap<PropertyName, Walk>>,
}

impl Simulated {
    /// A device that is opened now, and has no faults.
    pub fn new(clock: SharedClock) -> Self {
        Self {
            opened: clock.now(),
            clock,
            faults: Faults::default(),
            delay: Duration::ZERO,
            written: Mutex::default(),
            walks: Mutex::default(),
        }
    }

    /// A device with the settings `config`.
    ///
    /// # Errors
    /// [`DriverError::Config`] names the setting.
    pub fn with(config: &ConfigData, clock: SharedClock) -> Result<Self, DriverError> {
        let settings = Settings::new(config);
        let delay = Duration::from_millis(settings.whole("delay", 0, 60_000_u64)?.unwrap_or(0));
        Ok(Self { faults: Faults::read(settings)?, delay, ..Self::new(clock) })
    }

    /// A [`DriverMaker`] for the protocol `simulator`.
    pub fn maker(clock: SharedClock) -> DriverMaker {
        driver_maker(move |device: DeviceInstance| {
            let opened = Self::with(&device.config, SharedClock::clone(&clock)).map(DriverHandle::of);
            async move { opened }
        })
    }

    /// Milliseconds since the device was opened.
    fn age(&self) -> i64 {
        self.clock.now().0.saturating_sub(self.opened.0)
    }

    async fn exchange(&self) -> Result<(), DriverError> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        match self.faults.at(self.age()) {
            None => Ok(()),
            Some(Fault::Offline) => Err(DriverError::Offline("as scheduled".into())),
            Some(Fault::Busy) => Err(DriverError::Busy),
            Some(Fault::Refuse) => Err(DriverError::Refused("as scheduled".to_owned())),
            Some(Fault::Silent) => std::future::pending().await,
        }
    }
}

impl std::fmt::Debug for Simulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulated").finish_non_exhaustive()
    }
}

#[async_trait]
impl Driver for Simulated {
    async fn read(&self, visitor: Visitor) -> Result<Sample, DriverError> {
        let generator = Generator::read(&visitor)?;
        self.exchange().await?;
        let (at, age) = (self.clock.now(), self.age());
        let value = match generator {
            Generator::Written(first) => {
                let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                written.get(&visitor.property).cloned().unwrap_or(first)
            }
            Generator::Walk(plan) => {
                let mut walks = self.walks.lock().unwrap_or_else(PoisonError::into_inner);
                let walk = walks.entry(visitor.property.clone()).or_insert_with(|| Walk::new(plan.clone()));
                if walk.plan != plan {
                    *walk = Walk::new(plan);
                }
                Value::Float(walk.at(age))
            }
            other => other.at(at, age),
        };
        let value = convert::coerce(value, visitor.value_type).map_err(|why| DriverError::Failed(why.into()))?;
        Ok(Sample { value, at })
    }

    async fn write(&self, visitor: Visitor, value: Value) -> Result<(), DriverError> {
        let Generator::Written(_) = Generator::read(&visitor)? else {
            return Err(Settings::new(&visitor.config).wrong("generator", "only written can be written"));
        };
        self.exchange().await?;
        let value = convert::coerce(value, visitor.value_type).map_err(|why| DriverError::Refused(why.to_string()))?;
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(visitor.property, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use kubeedge_core::{
        mapper::ValueType,
        testing::{self, ManualClock},
    };
    use serde_json::json;

    use super::*;

    fn visitor(name: &str, value_type: ValueType, config: &serde_json::Value) -> Visitor {
        Visitor { property: name.parse().unwrap(), value_type, config: config.as_object().unwrap().clone().into() }
    }

    #[tokio::test]
    async fn generators_follow_the_clock() {
        let clock = Arc::new(ManualClock::new(UnixMillis(60_000)));
        let device = Simulated::new(clock.clone());
        let of = |generator: &str| {
            let config = json!({"generator": generator, "min": 10, "max": "30", "period": 8000, "value": "7"});
            visitor("p", ValueType::Double, &config)
        };
        let read = async |generator: &str| match device.read(of(generator)).await.unwrap().value {
            Value::Float(number) => format!("{number:.3}"),
            other => panic!("{other:?}"),
        };
        let all = async || [read("constant").await, read("sine").await, read("ramp").await, read("counter").await];
        assert_eq!(all().await, ["7.000", "20.000", "20.000", "10.000"], "60 s are 7 periods and a half");
        clock.advance(Duration::from_secs(6));
        assert_eq!(all().await, ["7.000", "30.000", "15.000", "10.000"]);
        clock.advance(Duration::from_secs(11));
        assert_eq!(read("counter").await, "12.000");
    }

    #[tokio::test]
    async fn it_is_a_driver() {
        let device = DriverHandle::of(Simulated::new(Arc::new(ManualClock::new(UnixMillis(1)))));
        let values = vec![Value::Int(5), Value::Int(-7)];
        let wrong = visitor("w", ValueType::Int, &json!({"generator": "magic"}));
        testing::driver_suite(device.clone(), visitor("p", ValueType::Int, &json!({})), values, wrong).await.unwrap();
        let flag = device.read(visitor("f", ValueType::Boolean, &json!({"value": true}))).await.unwrap();
        assert_eq!(flag.value, Value::Bool(true));
        let refused = device.write(visitor("s", ValueType::Int, &json!({"generator": "sine"})), Value::Int(1)).await;
        let err = refused.unwrap_err().to_string();
        assert_eq!(err, "setting generator is \"sine\": only written can be written");
        let bad = device.read(visitor("b", ValueType::Int, &json!({"value": "x"}))).await.unwrap_err();
        assert_eq!(bad.to_string(), "setting value is \"x\": \"x\" is not a whole number");
    }

    #[tokio::test(start_paused = true)]
    async fn it_fails_as_scheduled() {
        let clock = Arc::new(ManualClock::new(UnixMillis(1)));
        let config = json!({"faults": "1000-2000 offline, 2000-3000=refuse,3000-4000 silent", "faultPeriod": 10_000,
            "delay": 50});
        let device = Simulated::with(config.as_object().unwrap(), clock.clone()).unwrap();
        let place = visitor("p", ValueType::Int, &json!({}));
        let read = async || {
            let start = tokio::time::Instant::now();
            let limited = tokio::time::timeout(Duration::from_secs(5), device.read(place.clone())).await;
            let outcome = limited.map_or("silent".to_owned(), |outcome| {
                outcome.map_or_else(|error| error.to_string(), |sample| format!("{:?}", sample.value))
            });
            assert!(start.elapsed() >= Duration::from_millis(50));
            outcome
        };
        for _ in 0..2 {
            let mut told = Vec::new();
            for _ in 0..5 {
                told.push(read().await);
                clock.advance(Duration::from_secs(1));
            }
            let expected = ["Int(0)", "device is offline", "device refused: as scheduled", "silent", "Int(0)"];
            assert_eq!(told, expected);
            clock.advance(Duration::from_secs(5));
        }
    }
}
