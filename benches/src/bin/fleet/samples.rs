//! Latencies.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;

/// So many samples are kept; of more, each has the same chance to be kept.
const KEPT: usize = 1 << 20;

/// Latencies of one kind, from many tasks.
#[derive(Debug, Default)]
pub(crate) struct Samples(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    micros: Vec<u32>,
    seen: u64,
}

/// How latencies are distributed, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Samples {
    pub(crate) fn add(&self, latency: Duration) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.seen += 1;
        if kept.micros.len() < KEPT {
            kept.micros.push(micros);
        } else if let Some(slot) = usize::try_from(fastrand::u64(..kept.seen)).ok().filter(|slot| *slot < KEPT) {
            kept.micros[slot] = micros;
        }
    }

    /// What was added since the last call.
    pub(crate) fn take(&self) -> Quantiles {
        let Kept { mut micros, seen } = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        micros.sort_unstable();
        let at = |part: usize| {
            let rank = (micros.len() * part).div_ceil(100).max(1) - 1;
            micros.get(rank).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
        };
        Quantiles { count: seen, p50: at(50), p99: at(99), max: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks_and_are_taken_once() {
        let samples = Samples::default();
        (1..=200).for_each(|millis| samples.add(Duration::from_millis(millis)));
        assert_eq!(samples.take(), Quantiles { count: 200, p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(samples.take(), Quantiles::default());
    }
}
