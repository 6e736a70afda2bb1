//! The task that renews the certificate of a node.

use std::{fmt, time::Duration};

use kubeedge_core::names::UnixMillis;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{error::CertificateError, identity::Identity, obtain::EdgeCertificates};

/// The wall clock is asked at least this often: gateways start with a wrong one and correct it later.
const LONGEST_SLEEP: Duration = Duration::from_secs(3_600);
/// Between renewals, unless the new certificate ends before that: then half of what is left of it.
const LEAST_PAUSE: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(32);

/// Renews the certificate at a random point between 70 % and 90 % of its life, with a new key, and hands the new
/// [`Identity`] to everybody who watches. Connections that are to use it have to be made anew.
///
/// The present certificate is shown for that. If it has expired meanwhile, or the cloud does not take it, a join token is
/// used where there is one. Failures are tried again for ever, after 2, 4, 8, 16 and then each 32 s.
///
/// Upstream: `edge/pkg/edgehub/certificate` (rotation).
#[must_use = "nothing is renewed unless it runs"]
pub struct Renewal {
    certificates: EdgeCertificates,
    identity: watch::Sender<Identity>,
}

impl Renewal {
    pub(crate) fn new(certificates: EdgeCertificates, identity: Identity) -> Self {
        Self { certificates, identity: watch::Sender::new(identity) }
    }

    /// The present identity and each that follows.
    pub fn watch(&self) -> watch::Receiver<Identity> {
        self.identity.subscribe()
    }

    /// Runs until `shutdown`.
    ///
    /// # Cancel safety
    /// May be dropped at any point: the files hold either the old certificate and its key or the new ones.
    pub async fn run(self, shutdown: CancellationToken) {
        let renewing = async {
            loop {
                wait_until(&self.certificates, self.due()).await;
                self.renew().await;
                // A cloud may say that a certificate began to be valid before it was made, or our clock may run ahead of
                // its: then the new one is due at once.
                sleep(self.left().div_f64(2.0).min(LEAST_PAUSE)).await;
            }
        };
        let _stopped: Option<()> = shutdown.run_until_cancelled(renewing).await;
    }

    /// When to renew: chosen anew for each certificate, so that a fleet that joined together does not renew together.
    fn due(&self) -> UnixMillis {
        self.identity.borrow().at(0.7 + 0.2 * fastrand::f64())
    }

    /// How long the present certificate is still good.
    fn left(&self) -> Duration {
        let left = self.identity.borrow().not_after().0.saturating_sub(self.certificates.clock().now().0);
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    async fn renew(&self) {
        for pause in retries() {
            match self.attempt().await {
                Ok(identity) => {
                    tracing::info!(not_after = identity.not_after().0, "certificate renewed");
                    self.identity.send_replace(identity);
                    return;
                }
                Err(err) => {
                    tracing::warn!(err = &err as &dyn std::error::Error, ?pause, "certificate not renewed");
                    sleep(pause).await;
                }
            }
        }
    }

    async fn attempt(&self) -> Result<Identity, CertificateError> {
        let present = self.identity.borrow().clone();
        let refused = if present.is_expired(self.certificates.clock().now()) {
            None
        } else {
            match self.certificates.rotate(&present).await {
                Err(err @ CertificateError::Refused { status: 401, .. }) => Some(err),
                result => return result,
            }
        };
        match (self.certificates.token().await?, refused) {
            (Some(token), _) => self.certificates.join(&token).await,
            (None, Some(err)) => Err(err),
            (None, None) => Err(CertificateError::NoToken { why: "the certificate has expired".into() }),
        }
    }
}

async fn wait_until(certificates: &EdgeCertificates, due: UnixMillis) {
    loop {
        let left = due.0.saturating_sub(certificates.clock().now().0);
        match u64::try_from(left) {
            Ok(left) if left > 0 => sleep(Duration::from_millis(left).min(LONGEST_SLEEP)).await,
            _ => return,
        }
    }
}

/// The pauses between attempts, without end, each with up to a tenth more.
pub(crate) fn retries() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_RETRY), |retry| Some((*retry * 2).min(LAST_RETRY)))
        .map(|retry| retry.mul_f64(1.0 + 0.1 * fastrand::f64()))
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").field("identity", &*self.identity.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "renewal/tests.rs"]
mod tests;
