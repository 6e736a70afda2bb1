//! The task that keeps the join token fresh.

use std::{fmt, sync::Arc, time::Duration};

use kubeedge_core::names::SharedClock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    authority::CertificateAuthority, config::PkiConfig, error::PkiError, load::mint, secrets::Secrets, token::JoinToken,
};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// Writes a fresh join token into `tokensecret` once per refresh period. Tokens that were handed out before stay good
/// until they expire.
///
/// Upstream: `GenerateAndRefreshToken`, which stops for good at the first failure. This one goes on trying, at growing
/// intervals up to five minutes.
#[must_use = "nothing is refreshed unless it runs"]
pub struct TokenRefresher {
    authority: Arc<CertificateAuthority>,
    config: PkiConfig,
    secrets: Secrets,
    clock: SharedClock,
    token: watch::Sender<JoinToken>,
}

impl TokenRefresher {
    pub(crate) fn new(
        authority: Arc<CertificateAuthority>,
        config: PkiConfig,
        secrets: Secrets,
        clock: SharedClock,
        token: watch::Sender<JoinToken>,
    ) -> Self {
        Self { authority, config, secrets, clock, token }
    }

    /// Runs until `shutdown`. The token is good for two periods, so the first write comes after one.
    ///
    /// # Cancel safety
    /// May be dropped at any point: a token is either written or not.
    pub async fn run(self, shutdown: CancellationToken) {
        // A cut-off write is harmless: older tokens stay good.
        let _stopped = shutdown.run_until_cancelled(self.refresh_forever()).await;
    }

    async fn refresh_forever(&self) {
        let mut retry = FIRST_RETRY;
        let mut pause = self.config.token_refresh_period;
        loop {
            tokio::time::sleep(pause).await;
            pause = match self.refresh().await {
                Ok(()) => {
                    retry = FIRST_RETRY;
                    self.config.token_refresh_period
                }
                Err(err) => {
                    let pause = retry.mul_f64(0.8 + 0.4 * fastrand::f64());
                    tracing::warn!(err = &err as &dyn std::error::Error, ?pause, "join token not refreshed");
                    retry = (retry * 2).min(LAST_RETRY);
                    pause
                }
            };
        }
    }

    async fn refresh(&self) -> Result<(), PkiError> {
        let token = mint(&self.authority, &self.config, self.clock.now())?;
        self.secrets.put_token(token.as_str()).await?;
        self.token.send_replace(token);
        Ok(())
    }
}

impl fmt::Debug for TokenRefresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRefresher").field("period", &self.config.token_refresh_period).finish_non_exhaustive()
    }
}
