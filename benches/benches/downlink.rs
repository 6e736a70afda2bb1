//! What waits for one node: how a change is taken, replaced by a newer one, sent and settled.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kubeedge_cloud::{
    hub::{DownlinkQueue, ObjectChange, ObjectEvent},
    object::NodeObject,
};
use kubeedge_core::{
    names::{ResourceVersion, Uid},
    resource::{ObjectPath, ResourceType},
};

const OBJECTS: usize = 1000;

fn change(number: usize, version: u64) -> ObjectChange {
    let path = ObjectPath::namespaced("default", ResourceType::ConfigMap, &format!("map-{number}")).unwrap();
    let uid = Uid::new(format!("c7399134-f4fb-43e6-8088-{number:012}")).unwrap();
    let mut object = NodeObject::skeleton(path, uid, "v1".into(), "ConfigMap".into()).unwrap();
    object.version = ResourceVersion::new(version);
    ObjectChange::new(ObjectEvent::Update, Arc::new(object))
}

fn filled(changes: &[ObjectChange]) -> DownlinkQueue {
    take(DownlinkQueue::default(), changes)
}

fn take(mut queue: DownlinkQueue, changes: &[ObjectChange]) -> DownlinkQueue {
    for change in changes {
        queue.put(change.clone()).unwrap();
    }
    queue
}

/// Sends all that waits, with so many under way.
fn drain(queue: &mut DownlinkQueue, window: usize) -> usize {
    let mut sent = 0;
    loop {
        let under_way: Vec<_> = std::iter::from_fn(|| queue.next_object()).take(window).collect();
        if under_way.is_empty() {
            return sent;
        }
        sent += under_way.len();
        for change in under_way {
            queue.settle(&change.object.uid, true);
        }
    }
}

fn downlink(criterion: &mut Criterion) {
    let old: Vec<_> = (0..OBJECTS).map(|number| change(number, 1)).collect();
    let new: Vec<_> = (0..OBJECTS).map(|number| change(number, 2)).collect();
    let mut group = criterion.benchmark_group("downlink");
    group.throughput(Throughput::Elements(OBJECTS as u64));
    group.bench_function("put", |bencher| bencher.iter(|| filled(black_box(&old))));
    group.bench_function("replace", |bencher| {
        bencher.iter_batched(|| filled(&old), |queue| take(queue, &new), BatchSize::SmallInput);
    });
    for window in [1, 64] {
        group.bench_function(format!("send/{window}"), |bencher| {
            bencher.iter_batched(|| filled(&old), |mut queue| drain(&mut queue, window), BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, downlink);
criterion_main!(benches);
