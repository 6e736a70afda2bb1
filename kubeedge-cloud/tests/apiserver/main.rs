//! The embedded Kubernetes API, seen by its clients.
#![allow(clippy::unwrap_used)]

mod client;
mod crd;
mod kubectl;
mod lifecycle;
mod raw;
mod watch;

use std::time::Duration;

use kubeedge_cloud::apiserver::EmbeddedApi;
use serde_json::{Value, json};

/// How long anything that is waited for may take.
const SOON: Duration = Duration::from_secs(10);

async fn api() -> EmbeddedApi {
    EmbeddedApi::builder().in_memory().build().await.unwrap()
}

/// Waits for a condition that the background brings about.
async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let wait = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(SOON, wait).await.is_ok(), "never happened: {what}");
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}]}})
}
