//! Loading the server certificate, and keeping it good while the cloud runs.

use std::{fmt, sync::Arc, time::Duration};

use kubeedge_core::names::{SharedClock, UnixMillis};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    authority::CertificateAuthority,
    config::PkiConfig,
    error::PkiError,
    local,
    secrets::{SERVER, Secrets},
    server::ServerCertificate,
};

/// How often the certificate, its files and its Secret are looked at.
const PERIOD: Duration = Duration::from_secs(300);

/// Renews the server certificate before it ends, and takes over what others have renewed.
///
/// Each five minutes, more or less, it reads the files of the certificate if there are any, else the Secret
/// `cloudcoresecret`. A certificate there that serves its purpose and is another than the present one is shown from the
/// next handshake on: an operator or another instance has put it there. The present one is replaced, in the Secret as
/// well, when it ends within 30 days. A certificate for the addresses of another instance is left where it is, so that
/// instances with different addresses do not fight over the Secret.
///
/// Upstream reads files and Secret once, at the start, and never renews.
#[must_use = "nothing is renewed unless it runs"]
pub struct ServerRenewal {
    authority: Arc<CertificateAuthority>,
    config: PkiConfig,
    secrets: Secrets,
    clock: SharedClock,
    server: watch::Sender<Arc<ServerCertificate>>,
}

impl ServerRenewal {
    pub(crate) fn new(
        authority: Arc<CertificateAuthority>,
        config: PkiConfig,
        secrets: Secrets,
        clock: SharedClock,
        server: watch::Sender<Arc<ServerCertificate>>,
    ) -> Self {
        Self { authority, config, secrets, clock, server }
    }

    /// Runs until `shutdown`. A failure is logged, and tried again at the next look.
    ///
    /// # Cancel safety
    /// May be dropped at any point.
    pub async fn run(self, shutdown: CancellationToken) {
        let renewing = async {
            loop {
                // Instances that were started together look one after another, so that one renews and the others see it.
                tokio::time::sleep(PERIOD.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
                if let Err(err) = self.look().await {
                    tracing::warn!(err = &err as &dyn std::error::Error, "server certificate not looked after");
                }
            }
        };
        let _stopped: Option<()> = shutdown.run_until_cancelled(renewing).await;
    }

    async fn look(&self) -> Result<(), PkiError> {
        let now = self.clock.now();
        if let Some(local) = local_server(&self.config).await? {
            if self.show(local) {
                self.warn(now);
                store(&self.secrets, &self.present()).await?;
            }
            return Ok(());
        }
        match stored_server(&self.secrets, &self.authority, &self.config, now).await? {
            Stored::Good(stored) => {
                self.show(stored);
                return Ok(());
            }
            Stored::Absent => {}
            Stored::Unfit(why) => tracing::debug!(%why, "the stored server certificate is not for this instance"),
        }
        if self.present().check(&self.authority, &self.config, now).is_err() {
            tracing::info!("renewing the server certificate");
            let renewed = ServerCertificate::issue(&self.authority, &self.config, now)?;
            store(&self.secrets, &renewed).await?;
            self.show(renewed);
        }
        Ok(())
    }

    fn present(&self) -> Arc<ServerCertificate> {
        self.server.borrow().clone()
    }

    /// Shows `certificate` from now on; whether it is another one.
    fn show(&self, certificate: ServerCertificate) -> bool {
        self.server.send_if_modified(|present| {
            let other = present.chain() != certificate.chain();
            if other {
                tracing::info!("showing another server certificate");
                *present = Arc::new(certificate);
            }
            other
        })
    }

    fn warn(&self, now: UnixMillis) {
        warn_of(&self.present(), &self.authority, &self.config, now);
    }
}

impl fmt::Debug for ServerRenewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerRenewal").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The server certificate of the files, else of the Secret, else a new one; the Secret then holds it.
pub(crate) async fn load_server(
    secrets: &Secrets,
    authority: &CertificateAuthority,
    config: &PkiConfig,
    now: UnixMillis,
) -> Result<ServerCertificate, PkiError> {
    let server = if let Some(local) = local_server(config).await? {
        warn_of(&local, authority, config, now);
        local
    } else {
        match stored_server(secrets, authority, config, now).await? {
            Stored::Good(stored) => return Ok(stored),
            Stored::Unfit(why) => tracing::info!(%why, "issuing a new server certificate"),
            Stored::Absent => tracing::info!("issuing the server certificate"),
        }
        ServerCertificate::issue(authority, config, now)?
    };
    store(secrets, &server).await?;
    Ok(server)
}

/// What the files say is the operator's business; that nodes will not accept it is worth a word.
fn warn_of(server: &ServerCertificate, authority: &CertificateAuthority, config: &PkiConfig, now: UnixMillis) {
    if let Err(why) = server.check(authority, config, now) {
        let files = config.server_files.as_ref().map(|files| files.certificate.display().to_string());
        tracing::warn!(file = files, %why, "server certificate is used as it is, but nodes may refuse it");
    }
}

async fn local_server(config: &PkiConfig) -> Result<Option<ServerCertificate>, PkiError> {
    let Some(pair) = local::read(config.server_files.as_ref()).await? else { return Ok(None) };
    let origin = config.server_files.as_ref().map(|files| files.certificate.display().to_string()).unwrap_or_default();
    ServerCertificate::from_local(pair)
        .map(Some)
        .map_err(|err| PkiError::unusable(format!("server certificate in {origin}"), err))
}

enum Stored {
    Absent,
    Unfit(String),
    Good(ServerCertificate),
}

async fn stored_server(
    secrets: &Secrets,
    authority: &CertificateAuthority,
    config: &PkiConfig,
    now: UnixMillis,
) -> Result<Stored, PkiError> {
    match secrets.pair(&SERVER).await {
        Ok(None) => Ok(Stored::Absent),
        Ok(Some((certificate, key))) => {
            Ok(match ServerCertificate::from_stored(certificate, key, authority, config, now) {
                Ok(stored) => Stored::Good(stored),
                Err(why) => Stored::Unfit(why),
            })
        }
        // Half a pair is of no use, but can be made anew.
        Err(PkiError::Unusable { source, .. }) => Ok(Stored::Unfit(source.to_string())),
        Err(err) => Err(err),
    }
}

async fn store(secrets: &Secrets, server: &ServerCertificate) -> Result<(), PkiError> {
    let certificate = server.chain().first().map(AsRef::as_ref).unwrap_or_default();
    secrets.put_pair(&SERVER, certificate, server.key().secret_der()).await
}

#[cfg(test)]
#[path = "renew/tests.rs"]
mod tests;
