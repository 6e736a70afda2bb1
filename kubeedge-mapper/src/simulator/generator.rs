use std::f64::consts::TAU;

use kubeedge_core::{
    mapper::{DriverError, Value, ValueType, Visitor},
    names::UnixMillis,
};

use crate::{convert, settings::Settings};

/// Where the values of a property come from.
pub(super) enum Generator {
    /// What was written; before that this.
    Written(Value),
    Constant(Value),
    Moving {
        shape: Shape,
        min: f64,
        max: f64,
        period: i64,
    },
    /// Values by the millisecond from which on they count, in order.
    Steps {
        steps: Vec<(i64, Value)>,
        period: i64,
    },
    Walk(WalkPlan),
}

#[derive(Clone, Copy)]
pub(super) enum Shape {
    Sine,
    Triangle,
    Square,
    Ramp,
    Counter,
}

/// A random walk: the same plan is the same walk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WalkPlan {
    seed: u64,
    min: f64,
    max: f64,
    step: f64,
    period: i64,
}

/// A walk on its way.
pub(super) struct Walk {
    pub(super) plan: WalkPlan,
    random: fastrand::Rng,
    steps: i64,
    value: f64,
}

impl Generator {
    pub(super) fn read(visitor: &Visitor) -> Result<Self, DriverError> {
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
        let period = settings.whole("period", 1, 31_536_000_000_i64)?.unwrap_or(60_000);
        let (min, max) = (settings.number("min")?.unwrap_or(0.0), settings.number("max")?.unwrap_or(100.0));
        let shape = match settings.text("generator")?.map(|word| word.to_ascii_lowercase()).as_deref() {
            None | Some("written") => return value().map(Self::Written),
            Some("constant") => return value().map(Self::Constant),
            Some("steps") => return steps(settings, visitor.value_type, period),
            Some("walk") => {
                let seed = settings.whole("seed", 0, i64::MAX)?.unwrap_or(0).unsigned_abs();
                let step = settings.number("step")?.unwrap_or(1.0).abs();
                if min > max {
                    return Err(settings.wrong("min", "must not be above max"));
                }
                return Ok(Self::Walk(WalkPlan { seed, min, max, step, period }));
            }
            Some("sine") => Shape::Sine,
            Some("triangle") => Shape::Triangle,
            Some("square") => Shape::Square,
            Some("ramp") => Shape::Ramp,
            Some("counter") => Shape::Counter,
            Some(_) => {
                let known = "must be written, constant, sine, triangle, square, ramp, counter, steps or walk";
                return Err(settings.wrong("generator", known));
            }
        };
        Ok(Self::Moving { shape, min, max, period })
    }

    /// The value at a time, `age` milliseconds after the device was opened.
    pub(super) fn at(self, now: UnixMillis, age: i64) -> Value {
        match self {
            Self::Written(value) | Self::Constant(value) => value,
            Self::Moving { shape, min, max, period } => Value::Float(shape.at(min, max, period, now, age)),
            Self::Steps { steps, period } => {
                let age = age.rem_euclid(period);
                // Before the first step the last one of the period before still counts.
                let step = steps.iter().rev().find(|(from, _)| *from <= age).or(steps.last());
                step.map_or_else(|| Value::Text(String::new()), |(_, value)| value.clone())
            }
            Self::Walk(plan) => Value::Float(Walk::new(plan).at(age)),
        }
    }
}

fn steps(settings: Settings<'_>, value_type: ValueType, period: i64) -> Result<Generator, DriverError> {
    let wrong = || settings.wrong("steps", "must be times and values as in 0=10,5000=20");
    let step = |(from, text): (String, String)| {
        let from: i64 = from.parse().ok().filter(|from| (0..period).contains(from)).ok_or_else(wrong)?;
        Ok((from, convert::parse(&text, value_type).map_err(|why| settings.wrong("steps", why.to_string()))?))
    };
    let mut steps = settings.pairs("steps")?.into_iter().map(step).collect::<Result<Vec<_>, DriverError>>()?;
    if steps.is_empty() {
        return Err(wrong());
    }
    steps.sort_by_key(|(from, _)| *from);
    Ok(Generator::Steps { steps, period })
}

impl Shape {
    #[expect(clippy::cast_precision_loss, reason = "a year in milliseconds is far below 2^53")]
    fn at(self, min: f64, max: f64, period: i64, now: UnixMillis, age: i64) -> f64 {
        let phase = now.0.rem_euclid(period) as f64 / period as f64;
        match self {
            Self::Sine => min + (max - min) * f64::midpoint(1.0, (phase * TAU).sin()),
            Self::Triangle => min + (max - min) * (1.0 - (2.0 * phase - 1.0).abs()),
            Self::Square if phase < 0.5 => max,
            Self::Square => min,
            Self::Ramp => min + (max - min) * phase,
            Self::Counter => min + (age / period) as f64,
        }
    }
}

impl Walk {
    /// Steps that are made up for at most, after a pause.
    const STEPS: i64 = 100_000;

    pub(super) fn new(plan: WalkPlan) -> Self {
        let value = f64::midpoint(plan.min, plan.max);
        Self { random: fastrand::Rng::with_seed(plan.seed), plan, steps: 0, value }
    }

    /// Where it is `age` milliseconds after it began; it does not go back.
    pub(super) fn at(&mut self, age: i64) -> f64 {
        let target = age.max(0) / self.plan.period;
        self.steps = self.steps.max(target - Self::STEPS);
        while self.steps < target {
            self.steps += 1;
            let step = (self.random.f64() * 2.0 - 1.0) * self.plan.step;
            self.value = (self.value + step).clamp(self.plan.min, self.plan.max);
        }
        self.value
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn generator(value_type: ValueType, config: &serde_json::Value) -> Result<Generator, String> {
        let config = config.as_object().unwrap().clone().into();
        let visitor = Visitor { property: "p".parse().unwrap(), value_type, config };
        Generator::read(&visitor).map_err(|error| error.to_string())
    }

    #[test]
    fn steps_and_waves_follow_the_time() {
        let at = |config: &serde_json::Value, millis: i64| {
            generator(ValueType::Float, config).unwrap().at(UnixMillis(millis), millis)
        };
        let steps = json!({"generator": "steps", "steps": "5000=2,1000=1", "period": 10_000});
        let values = [0, 1000, 4999, 5000, 10_500, 11_000].map(|millis| at(&steps, millis));
        assert_eq!(values, [2.0, 1.0, 1.0, 2.0, 2.0, 1.0].map(Value::Float));
        let wave = |shape: &str| json!({"generator": shape, "min": -1, "max": 1, "period": 8000});
        assert_eq!([0, 3999, 4000].map(|millis| at(&wave("square"), millis)), [1.0, 1.0, -1.0].map(Value::Float));
        assert_eq!(
            [0, 2000, 4000, 6000].map(|millis| at(&wave("triangle"), millis)),
            [-1.0, 0.0, 1.0, 0.0].map(Value::Float)
        );
        let words = json!({"generator": "steps", "steps": {"0": "off", "30000": "on"}});
        assert_eq!(generator(ValueType::String, &words).unwrap().at(UnixMillis(0), 31_000), Value::Text("on".into()));
        for wrong in [
            json!({"generator": "steps"}),
            json!({"generator": "steps", "steps": "x=1"}),
            json!({"generator": "steps", "steps": "0=x"}),
        ] {
            assert!(
                generator(ValueType::Int, &wrong).is_err_and(|error| error.starts_with("setting steps is ")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn walks_with_a_seed_are_the_same_and_stay_within_their_ends() {
        let plan = |seed: u64| match generator(
            ValueType::Float,
            &json!({"generator": "walk", "seed": seed, "min": 0, "max": 5, "period": 10}),
        ) {
            Ok(Generator::Walk(plan)) => plan,
            _ => panic!("a walk"),
        };
        let (mut one, mut two, mut other) = (Walk::new(plan(7)), Walk::new(plan(7)), Walk::new(plan(8)));
        let mut differs = false;
        for age in 0..1000 {
            let value = one.at(age * 10);
            assert!((0.0..=5.0).contains(&value));
            differs |= (value - other.at(age * 10)).abs() > 0.1;
        }
        assert_eq!(one.at(9990).to_bits(), two.at(9990).to_bits(), "however often it is looked at");
        assert!(differs);
        assert!((0.0..=5.0).contains(&one.at(i64::MAX)));
    }
}
