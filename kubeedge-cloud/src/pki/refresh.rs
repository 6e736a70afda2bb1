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
/// until they expire. Of several instances the first one writes, and the others take over its token.
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
            // A little earlier, at random, so that instances that were started together do not all write.
            tokio::time::sleep(pause.mul_f64(1.0 - 0.05 * fastrand::f64())).await;
            pause = match self.refresh().await {
                Ok(pause) => {
                    retry = FIRST_RETRY;
                    pause
                }
                Err(err) => {
                    let pause = retry.mul_f64(0.85 + 0.4 * fastrand::f64());
                    tracing::warn!(err = &err as &dyn std::error::Error, ?pause, "join token not refreshed");
                    retry = (retry * 2).min(LAST_RETRY);
                    pause
                }
            };
        }
    }

    /// Tells when the next token is due: one period before the present one expires.
    async fn refresh(&self) -> Result<Duration, PkiError> {
        let (period, now) = (self.config.token_refresh_period, self.clock.now());
        let stored = self.secrets.token().await?;
        if let Some((token, left)) = stored.and_then(|text| self.authority.recognise_token(&text, now))
            && left > period.mul_f64(1.5)
        {
            self.token.send_replace(token);
            return Ok(left.saturating_sub(period).min(period));
        }
        let token = mint(&self.authority, &self.config, now)?;
        self.secrets.put_token(token.as_str()).await?;
        self.token.send_replace(token);
        Ok(period)
    }
}

impl fmt::Debug for TokenRefresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRefresher").field("period", &self.config.token_refresh_period).finish_non_exhaustive()
    }
}
