//! Decoding and encoding of the messages that a node sees most.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kubeedge_core::wire::json::{decode, encode};

const KEEPALIVE: &str = r#"{"header":{"msg_id":"6f1f6f0e-3a4b-4c8e-9d55-0a6f2d1c7b10","timestamp":1785999600000},"route":{"source":"websocket","group":"resource","operation":"keepalive","resource":"node"},"content":"ping"}"#;
const TWIN: &str = r#"{"header":{"msg_id":"13deef86-ab10-41d0-b646-e1f40a097c97","timestamp":1785999610000},"route":{"source":"twin","group":"resource","operation":"update","resource":"device/default/sensor-1/twin/edge_updated"},"content":{"event_id":"6bf46c69-7d2c-4f82-aeea-cbe226e87555","timestamp":1785999610000,"twin":{"temperature":{"actual":{"value":"21","metadata":{"timestamp":1785999609990}},"metadata":{"type":"int"}}}}}"#;

/// A pod of about 8 KiB, as real ones with managed fields are.
fn pod() -> String {
    let env: Vec<_> = (0..100)
        .map(|number| serde_json::json!({"name": format!("VARIABLE_{number}"), "value": format!("value number {number}")}))
        .collect();
    let content = serde_json::json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "c7399134-f4fb-43e6-8088-c273bfffe7af", "resourceVersion": "1301"},
        "spec": {"nodeName": "edge-1", "containers": [{"name": "web", "image": "web:1", "env": env}]}});
    serde_json::json!({"header": {"msg_id": "8e81973e-0bec-47b0-b898-d190f9ebdacc", "timestamp": 1_785_999_605_000_i64,
        "resourceversion": "1301"}, "route": {"source": "edgecontroller", "group": "resource", "operation": "update",
        "resource": "default/pod/web"}, "content": content})
    .to_string()
}

fn codec(criterion: &mut Criterion) {
    let pod = pod();
    for (name, text) in [("keepalive", KEEPALIVE), ("twin", TWIN), ("pod", pod.as_str())] {
        let mut group = criterion.benchmark_group(format!("codec/{name}"));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function("decode", |bencher| bencher.iter(|| decode(black_box(text)).unwrap()));
        let message = decode(text).unwrap();
        group.bench_function("encode", |bencher| bencher.iter(|| encode(black_box(&message))));
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
