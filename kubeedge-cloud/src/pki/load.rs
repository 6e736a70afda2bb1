//! Loading and making what the cloud needs to be recognised and to recognise its nodes.

use std::{fmt, sync::Arc, time::Duration};

use kube::Client;
use kubeedge_core::names::{SharedClock, UnixMillis};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::sync::watch;

use super::{
    authority::CertificateAuthority,
    config::PkiConfig,
    error::PkiError,
    local,
    refresh::TokenRefresher,
    renew::{ServerRenewal, load_server},
    secrets::{CA, NAMESPACE, Secrets},
    server::ServerCertificate,
    tls,
    token::JoinToken,
};

/// The CA, the server certificate and the join token of a cloud. They live in Secrets, so every instance has the same.
///
/// ```no_run
/// # async fn example(client: kube::Client) -> Result<(), kubeedge_cloud::pki::PkiError> {
/// use std::sync::Arc;
/// use kubeedge_cloud::pki::{Pki, PkiConfig};
/// use kubeedge_core::names::SystemClock;
/// use tokio_util::sync::CancellationToken;
///
/// let config = PkiConfig::new(vec![[192, 0, 2, 1].into()]);
/// let pki = Pki::load_or_create(&client, config, Arc::new(SystemClock)).await?;
/// println!("join token: {}", pki.join_token().as_str());
/// pki.token_refresher().run(CancellationToken::new()).await;
/// # Ok(())
/// # }
/// ```
pub struct Pki {
    authority: Arc<CertificateAuthority>,
    server: watch::Sender<Arc<ServerCertificate>>,
    token: watch::Sender<JoinToken>,
    secrets: Secrets,
    config: PkiConfig,
    clock: SharedClock,
}

impl Pki {
    /// Loads the CA and the server certificate, or makes them, and writes a fresh join token.
    ///
    /// Each of the two comes from local files if they are there (and is then copied into its Secret), else from its
    /// Secret, else it is made. Of several instances that start at once, all end up with the same CA.
    ///
    /// A stored server certificate that ends within 30 days, was issued by another CA, or is not for exactly the
    /// addresses and names of `config` is replaced; upstream goes on using it. One from files is never replaced, but a
    /// warning tells of the same. A stored CA is never replaced.
    ///
    /// Upstream: `cloud/pkg/cloudhub/servers/httpserver` (`PrepareAllCerts`, `GenerateAndRefreshToken`).
    ///
    /// # Errors
    /// [`PkiError::is_transient`] tells whether the Kubernetes API was at fault; everything else needs an operator.
    ///
    /// # Cancel safety
    /// May be dropped at any point and called again.
    pub async fn load_or_create(client: &Client, config: PkiConfig, clock: SharedClock) -> Result<Self, PkiError> {
        config.check()?;
        let now = clock.now();
        let secrets = Secrets::new(client);
        secrets.ensure_namespace().await?;
        let authority = load_authority(&secrets, &config, now).await?;
        let server = watch::Sender::new(Arc::new(load_server(&secrets, &authority, &config, now).await?));
        let token = mint(&authority, &config, now)?;
        secrets.put_token(token.as_str()).await?;
        let token = watch::Sender::new(token);
        Ok(Self { authority: Arc::new(authority), server, token, secrets, config, clock })
    }

    /// The CA.
    pub fn authority(&self) -> &Arc<CertificateAuthority> {
        &self.authority
    }

    /// The server certificate that is shown now.
    pub fn server_certificate(&self) -> Arc<ServerCertificate> {
        self.server.borrow().clone()
    }

    /// The join token that was written last.
    pub fn join_token(&self) -> JoinToken {
        self.token.borrow().clone()
    }

    /// The join token as [`TokenRefresher`] goes on writing it.
    pub fn join_tokens(&self) -> watch::Receiver<JoinToken> {
        self.token.subscribe()
    }

    /// How long certificates of edge nodes are to be valid.
    pub fn edge_certificate_validity(&self) -> Duration {
        self.config.edge_certificate_validity
    }

    /// The clock that validity is judged by.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// TLS of the HTTPS port: see [`https_config`](super::https_config).
    pub fn https_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        tls::https_config(&self.authority, self.server.subscribe(), self.clock.clone())
    }

    /// TLS of the WebSocket port: see [`websocket_config`](super::websocket_config).
    pub fn websocket_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        tls::websocket_config(&self.authority, self.server.subscribe(), self.clock.clone())
    }

    /// The task that writes a fresh join token each [`token_refresh_period`](PkiConfig::token_refresh_period). Nothing
    /// is refreshed unless the caller runs it.
    pub fn token_refresher(&self) -> TokenRefresher {
        let (authority, config) = (self.authority.clone(), self.config.clone());
        TokenRefresher::new(authority, config, self.secrets.clone(), self.clock.clone(), self.token.clone())
    }

    /// The task that renews the server certificate in time, and shows the one that an operator or another instance has
    /// renewed. Nothing is renewed unless the caller runs it; the TLS configurations of this value follow it.
    pub fn server_renewal(&self) -> ServerRenewal {
        let (authority, config) = (self.authority.clone(), self.config.clone());
        ServerRenewal::new(authority, config, self.secrets.clone(), self.clock.clone(), self.server.clone())
    }
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Mints a token that is good for two refresh periods.
pub(crate) fn mint(
    authority: &CertificateAuthority,
    config: &PkiConfig,
    now: UnixMillis,
) -> Result<JoinToken, PkiError> {
    let life = i64::try_from((config.token_refresh_period * 2).as_millis()).unwrap_or(i64::MAX);
    authority.mint_token(UnixMillis(now.0.saturating_add(life)))
}

async fn load_authority(
    secrets: &Secrets,
    config: &PkiConfig,
    now: UnixMillis,
) -> Result<CertificateAuthority, PkiError> {
    if let Some(pair) = local::read(config.ca_files.as_ref()).await? {
        let files = config.ca_files.as_ref();
        let origin = files.map(|files| files.certificate.display().to_string()).unwrap_or_default();
        let certificate = pair.chain.into_iter().next().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let authority = CertificateAuthority::from_parts(certificate, &pair.key, now)
            .map_err(|err| PkiError::unusable(format!("CA in {origin}"), err))?;
        secrets.put_pair(&CA, authority.certificate(), authority.key_der()).await?;
        return Ok(authority);
    }
    if let Some(stored) = stored_authority(secrets, now).await? {
        return Ok(stored);
    }
    let made = CertificateAuthority::generate(now)?;
    if secrets.create_pair(&CA, made.certificate(), made.key_der()).await? {
        tracing::info!(fingerprint = made.fingerprint(), "made a new certificate authority");
        return Ok(made);
    }
    // Another instance was first, or the Secret is there without data.
    if let Some(stored) = stored_authority(secrets, now).await? {
        return Ok(stored);
    }
    secrets.put_pair(&CA, made.certificate(), made.key_der()).await?;
    Ok(made)
}

async fn stored_authority(secrets: &Secrets, now: UnixMillis) -> Result<Option<CertificateAuthority>, PkiError> {
    let Some((certificate, key)) = secrets.pair(&CA).await? else { return Ok(None) };
    let origin = || format!("secret {NAMESPACE}/{}", CA.name);
    let key = PrivateKeyDer::try_from(key).map_err(|err| PkiError::unusable(origin(), err))?;
    CertificateAuthority::from_parts(certificate.into(), &key, now)
        .map(Some)
        .map_err(|err| PkiError::unusable(origin(), err))
}
