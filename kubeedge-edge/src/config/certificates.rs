use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    pki::{CertificateError, EdgeCertificates, Identity},
};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Obtains the certificate, however long that takes, and renews it if `rotate`; the node works without it meanwhile.
/// Notifies `redial` after each renewal.
pub(super) async fn keep(
    certificates: EdgeCertificates,
    rotate: bool,
    identity: watch::Sender<Option<Identity>>,
    redial: Arc<Notify>,
    stop: CancellationToken,
) {
    let Some(first) = stop.run_until_cancelled(obtain(&certificates)).await else { return };
    identity.send_replace(Some(first.clone()));
    if !rotate {
        return stop.cancelled().await;
    }
    let renewal = certificates.renewal(first);
    let mut renewed = renewal.watch();
    let tell = async {
        while renewed.changed().await.is_ok() {
            let newest = renewed.borrow_and_update().clone();
            identity.send_replace(Some(newest));
            redial.notify_one();
        }
    };
    tokio::join!(renewal.run(stop), tell);
}

async fn obtain(certificates: &EdgeCertificates) -> Identity {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        match certificates.obtain().await {
            Ok(identity) => return identity,
            Err(error) => {
                report(&error);
                sleep(backoff.pause()).await;
            }
        }
    }
}

fn report(error: &CertificateError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, "node has no certificate yet, trying again; pods and devices go on");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tempfile::tempdir;

    use super::*;
    use crate::pki::fake_cloud::{Behaviour, FakeCloud, LIFE};

    #[tokio::test]
    async fn a_renewed_certificate_is_handed_on_and_the_link_made_anew() {
        let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
        let certificates = cloud.certificates(folder.path(), Some(cloud.token()));
        let first = certificates.obtain().await.unwrap();
        cloud.clock.advance(LIFE.mul_f64(0.95));
        let (identity, mut identities) = watch::channel(None);
        let (redial, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let keeping = tokio::spawn(keep(certificates, true, identity, redial.clone(), stop.clone()));
        redial.notified().await;
        let newest = identities.borrow_and_update().clone().unwrap();
        assert!(newest.not_after() > first.not_after());
        stop.cancel();
        keeping.await.unwrap();
    }
}
