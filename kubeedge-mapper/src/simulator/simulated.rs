use std::{
    collections::HashMap,
    f64::consts::TAU,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use kubeedge_core::{
    device::DeviceInstance,
    mapper::{Driver, DriverError, DriverHandle, DriverMaker, Sample, Value, ValueType, Visitor, driver_maker},
    names::{PropertyName, SharedClock, UnixMillis},
};

use crate::{convert, settings::Settings};

/// A driver without a device, for the protocol `simulator`. The device needs no settings; each visitor has:
///
/// | key | meaning | default |
/// |---|---|---|
/// | `generator` | `written`, `constant`, `sine`, `ramp` or `counter` | `written` |
/// | `value` | value of `constant`; of `written` until something is written | `0`, `false` or empty |
/// | `min`, `max` | ends of `sine` and `ramp`; start of `counter` | 0, 100 |
/// | `period` | milliseconds from peak to peak of `sine` and `ramp`, between steps of `counter` | 60000 |
///
/// `ramp` climbs from `min` to `max` and falls back at once. All follow the wall clock, so that they go on where they
/// were after a restart; `counter` counts from the moment the device was opened. Only `written` can be written.
pub struct Simulated {
    clock: SharedClock,
    opened: UnixMillis,
    written: Mutex<HashMap<PropertyName, Value>>,
}

impl Simulated {
    /// A device that is opened now.
    pub fn new(clock: SharedClock) -> Self {
        Self { opened: clock.now(), clock, written: Mutex::default() }
    }

    /// A [`DriverMaker`] for the protocol `simulator`.
    pub fn maker(clock: SharedClock) -> DriverMaker {
        driver_maker(move |_: DeviceInstance| {
            let opened = DriverHandle::of(Self::new(SharedClock::clone(&clock)));
            async move { Ok(opened) }
        })
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
        let at = self.clock.now();
        let value = match Generator::read(&visitor)? {
            Generator::Written(first) => {
                let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                written.get(&visitor.property).cloned().unwrap_or(first)
            }
            Generator::Constant(value) => value,
            Generator::Moving { shape, min, max, period } => Value::Float(shape.at(min, max, period, at, self.opened)),
        };
        let value = convert::coerce(value, visitor.value_type).map_err(|why| DriverError::Failed(why.into()))?;
        Ok(Sample { value, at })
    }

    async fn write(&self, visitor: Visitor, value: Value) -> Result<(), DriverError> {
        let Generator::Written(_) = Generator::read(&visitor)? else {
            return Err(Settings::new(&visitor.config).wrong("generator", "only written can be written"));
        };
        let value = convert::coerce(value, visitor.value_type).map_err(|why| DriverError::Refused(why.to_string()))?;
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(visitor.property, value);
        Ok(())
    }
}

enum Generator {
    Written(Value),
    Constant(Value),
    Moving { shape: Shape, min: f64, max: f64, period: i64 },
}

impl Generator {
    fn read(visitor: &Visitor) -> Result<Self, DriverError> {
        let settings = Settings::new(&visitor.config);
        let value = || match settings.text("value")? {
            Some(text) => {
                convert::parse(&text, visitor.value_type).map_err(|why| settings.wrong("value", why.to_string()))
            }
            None => Ok(match visitor.value_type {
                ValueType::Int => Value::Int(0),
                ValueType::Float | ValueType::Double => Value::Float(0.0),
                ValueType::Boolean => Value::Bool(false),
                ValueType::Bytes => Value::Bytes(Vec::new()),
                _ => Value::Text(String::new()),
            }),
        };
        let shape = match settings.text("generator")?.map(|word| word.to_ascii_lowercase()).as_deref() {
            None | Some("written") => return value().map(Self::Written),
            Some("constant") => return value().map(Self::Constant),
            Some("sine") => Shape::Sine,
            Some("ramp") => Shape::Ramp,
            Some("counter") => Shape::Counter,
            Some(_) => return Err(settings.wrong("generator", "must be written, constant, sine, ramp or counter")),
        };
        Ok(Self::Moving {
            shape,
            min: settings.number("min")?.unwrap_or(0.0),
            max: settings.number("max")?.unwrap_or(100.0),
            period: settings.whole("period", 1, 31_536_000_000_i64)?.unwrap_or(60_000),
        })
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Sine,
    Ramp,
    Counter,
}

impl Shape {
    #[expect(clippy::cast_precision_loss, reason = "a year in milliseconds is far below 2^53")]
    fn at(self, min: f64, max: f64, period: i64, now: UnixMillis, opened: UnixMillis) -> f64 {
        let phase = now.0.rem_euclid(period) as f64 / period as f64;
        match self {
            Self::Sine => min + (max - min) * f64::midpoint(1.0, (phase * TAU).sin()),
            Self::Ramp => min + (max - min) * phase,
            Self::Counter => min + (now.0.saturating_sub(opened.0) / period) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{sync::Arc, time::Duration};

    use kubeedge_core::testing::{self, ManualClock};
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
}
