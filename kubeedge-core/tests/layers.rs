//! A stack as an embedder builds it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use kubeedge_core::{
    layer::{ObserveLayer, ReadRetries},
    meta::{Collection, MetaError, MetaHandle, MetaKey, MetaRequest, MetaResponse, Record},
    service::BoxError,
};
use tower::{Service, ServiceBuilder};

fn policy<S>(store: S) -> MetaHandle
where
    S: Service<MetaRequest, Response = MetaResponse, Error: Into<BoxError> + Send + Sync, Future: Send>
        + Send
        + 'static,
{
    MetaHandle::new(
        ServiceBuilder::new()
            .layer(ObserveLayer::new("meta"))
            .load_shed()
            .concurrency_limit(64)
            .retry(ReadRetries::times(2))
            .buffer(64)
            .timeout(Duration::from_secs(2))
            .service(store),
    )
}

fn key() -> MetaKey {
    MetaKey::new(Collection::twins(), "default", "boiler")
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_times_out_after_three_reads() {
    let (mock, mut store) = tower_test::mock::pair::<MetaRequest, MetaResponse>();
    let handle = policy(mock);
    let call = tokio::spawn(async move { handle.get(key()).await });
    let mut unanswered = Vec::new();
    for _ in 0..3 {
        unanswered.push(store.next_request().await.unwrap());
    }
    let result = call.await.unwrap();
    assert!(matches!(result, Err(MetaError::TimedOut)), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_never_repeated() {
    let (mock, mut store) = tower_test::mock::pair::<MetaRequest, MetaResponse>();
    let handle = policy(mock);
    let call = tokio::spawn(async move { handle.put(Record::new(key(), "{}")).await });
    let (_, answer) = store.next_request().await.unwrap();
    answer.send_error(MetaError::Full);
    assert!(matches!(call.await.unwrap(), Err(MetaError::Full)), "the own error comes back through the layers");
    assert!(store.next_request().await.is_none(), "no second attempt");
}
