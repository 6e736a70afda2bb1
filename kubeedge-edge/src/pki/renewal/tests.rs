#![allow(clippy::unwrap_used)]
use std::{fs, sync::Arc};

use kubeedge_core::names::WallClock;
use tempfile::tempdir;
use tokio::time::Instant;

use super::*;
use crate::pki::fake_cloud::{Behaviour, FakeCloud, LIFE};

#[test]
fn retries_are_those_of_upstream() {
    for (pause, seconds) in retries().zip([2, 4, 8, 16, 32, 32, 32]) {
        let least = Duration::from_secs(seconds);
        assert!(pause >= least && pause <= least.mul_f64(1.1), "{pause:?}");
    }
}

#[tokio::test]
async fn a_certificate_is_due_between_70_and_90_percent_of_its_life() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
    let certificates = cloud.certificates(folder.path(), Some(cloud.token()));
    let identity = certificates.obtain().await.unwrap();
    let renewal = certificates.renewal(identity.clone());
    let percent = |part: u32| identity.not_before().0 + i64::try_from((LIFE / 100 * part).as_millis()).unwrap();
    let dues: Vec<_> = (0..100).map(|_| renewal.due().0).collect();
    assert!(dues.iter().all(|due| (percent(70)..=percent(90)).contains(due)));
    assert!(dues.iter().any(|due| *due != dues[0]), "a fleet must not renew all at once");
}

/// Goes with tokio's time.
struct TokioClock(Instant);

impl WallClock for TokioClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_follows_the_wall_clock() {
    let folder = tempdir().unwrap();
    let config = crate::pki::CertificateConfig::new(
        "edge-1".parse().unwrap(),
        "https://127.0.0.1",
        crate::pki::CertificateFiles::in_dir(folder.path()),
    );
    let start = Instant::now();
    let certificates = EdgeCertificates::new(config, Arc::new(TokioClock(start))).unwrap();
    wait_until(&certificates, UnixMillis(250 * 86_400_000)).await;
    let waited = start.elapsed();
    assert!(
        waited >= Duration::from_secs(250 * 86_400) && waited < Duration::from_secs(250 * 86_400 + 1),
        "{waited:?}"
    );
    wait_until(&certificates, UnixMillis(0)).await;
    assert_eq!(start.elapsed(), waited);
}

#[tokio::test]
async fn a_new_certificate_is_got_with_the_old_one() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
    let certificates = cloud.certificates(folder.path(), Some(cloud.token()));
    let first = certificates.obtain().await.unwrap();
    let key = fs::read(folder.path().join("server.key")).unwrap();
    let renewal = certificates.renewal(first.clone());
    let mut identities = renewal.watch();
    assert_eq!(identities.borrow_and_update().not_after(), first.not_after());
    let shutdown = CancellationToken::new();
    cloud.clock.advance(LIFE.mul_f64(0.95));
    let running = tokio::spawn(renewal.run(shutdown.clone()));
    identities.changed().await.unwrap();
    let second = identities.borrow().clone();
    assert!(second.not_after() > first.not_after());
    let last = cloud.asked().pop().unwrap();
    assert!(last.by_certificate && !last.head.contains("authorization"), "{last:?}");
    assert_ne!(fs::read(folder.path().join("server.key")).unwrap(), key, "a key of its own");
    let stored = certificates.stored().await.unwrap().unwrap();
    assert_eq!(stored.not_after(), second.not_after());
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_refused_or_expired_certificate_is_replaced_by_token() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
    let certificates = cloud.certificates(folder.path(), Some(cloud.token()));
    let first = certificates.obtain().await.unwrap();

    cloud.now_is(Behaviour::TokensOnly);
    let renewal = certificates.renewal(first.clone());
    let second = renewal.attempt().await.unwrap();
    let last = cloud.asked().pop().unwrap();
    assert!(!last.by_certificate && last.head.contains("authorization"), "{last:?}");

    // Without a token, what the cloud has said is told.
    let poor = cloud.certificates(folder.path(), None).renewal(second.clone());
    assert!(matches!(poor.attempt().await, Err(CertificateError::Refused { status: 401, .. })));

    cloud.clock.advance(LIFE * 2);
    let before = cloud.asked().len();
    let third = certificates.renewal(second).attempt().await.unwrap();
    assert!(!third.is_expired(cloud.clock.now()));
    assert!(cloud.asked()[before..].iter().all(|asked| !asked.by_certificate));
    let poor = cloud.certificates(folder.path(), None).renewal(first);
    assert!(matches!(poor.attempt().await, Err(CertificateError::NoToken { .. })));
}
