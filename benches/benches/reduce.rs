//! What a report costs before it reaches the disk: the pure part of a twin change.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kubeedge_core::{
    names::UnixMillis,
    twin::{PropertyPatch, TwinPatch},
};
use kubeedge_twin::{Change, TwinState, reduce};

fn patch(properties: usize, value: &str) -> TwinPatch {
    let property = |number| {
        let patch = PropertyPatch { value: value.into(), value_type: Some("float".into()) };
        (format!("property-{number}").parse().unwrap(), Some(patch))
    };
    (0..properties).map(property).collect()
}

fn reducer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reduce");
    for properties in [1, 20] {
        let twin = TwinState::default();
        let twin = reduce(&twin, Change::Report(patch(properties, "20.5")), UnixMillis(1)).unwrap().twin.into_owned();
        for (name, value) in [("same", "20.5"), ("changed", "21.5")] {
            let report = patch(properties, value);
            group.bench_function(format!("{name}/{properties}"), |bencher| {
                bencher.iter(|| {
                    let reduced = reduce(black_box(&twin), Change::Report(report.clone()), UnixMillis(2)).unwrap();
                    reduced.is_changed()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, reducer);
criterion_main!(benches);
