use std::time::Duration;

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    pki::{CertificateError, EdgeCertificates, Identity},
};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Obtains the certificate, however long that takes, and renews it if `rotate`; the node works without it meanwhile.
pub(super) async fn keep(
    certificates: EdgeCertificates,
    rotate: bool,
    identity: watch::Sender<Option<Identity>>,
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
