//! How a node comes by its certificate.

use std::{fmt, path::PathBuf, sync::Arc};

use kubeedge_core::names::{NodeName, SharedClock};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    endpoint::Endpoint,
    error::CertificateError,
    fetch,
    files::CertificateFiles,
    identity::Identity,
    key::KeyRequest,
    renewal::{Renewal, retries},
    tls,
    token::JoinToken,
};

/// What a node needs to know to come by its certificate.
#[derive(Clone)]
#[non_exhaustive]
pub struct CertificateConfig {
    /// The node that the certificate is for.
    pub node: NodeName,
    /// HTTPS port of the cloud, `https://host:10002`. Upstream: `edgeHub.httpServer`.
    pub http_server: String,
    /// Where the certificate is kept.
    pub files: CertificateFiles,
    /// The join token, if there is one. Needed for the first certificate, and after one that has expired.
    pub token: Option<String>,
    /// A file whose text, if it exists, is used in place of `token`. It is read when a token is needed, so a fresh one
    /// can be put there while the node runs. Upstream: `/etc/kubeedge/bootstrap-edgecore.conf`.
    pub token_file: Option<PathBuf>,
}

impl CertificateConfig {
    /// A configuration without a token.
    pub fn new(node: NodeName, http_server: impl Into<String>, files: CertificateFiles) -> Self {
        Self { node, http_server: http_server.into(), files, token: None, token_file: None }
    }
}

/// Obtains the certificate of a node, and renews it.
#[derive(Clone)]
pub struct EdgeCertificates {
    config: CertificateConfig,
    endpoint: Endpoint,
    clock: SharedClock,
}

impl EdgeCertificates {
    /// Checks the configuration; connects nowhere and reads nothing yet.
    pub fn new(config: CertificateConfig, clock: SharedClock) -> Result<Self, CertificateError> {
        let endpoint = Endpoint::parse(&config.http_server)?;
        Ok(Self { config, endpoint, clock })
    }

    /// The certificate in the files if it is this node's and has not expired, else a new one, got with the join token.
    ///
    /// What was got is in the files before it is returned.
    ///
    /// # Errors
    /// [`CertificateError::is_transient`] tells whether to call again later; the others need an operator.
    ///
    /// # Cancel safety
    /// May be dropped at any point and called again.
    pub async fn obtain(&self) -> Result<Identity, CertificateError> {
        let (why, unusable) = match self.stored().await {
            Ok(Some(identity)) if !identity.is_expired(self.clock.now()) => return Ok(identity),
            Ok(Some(_)) => {
                (format!("the certificate in {} has expired", self.config.files.certificate.display()), None)
            }
            Ok(None) => (format!("node {} has no certificate", self.config.node), None),
            Err(err @ CertificateError::Unusable { .. }) => (String::new(), Some(err)),
            Err(err) => return Err(err),
        };
        match (self.token().await?, unusable) {
            (Some(token), unusable) => {
                if let Some(err) = unusable {
                    tracing::warn!(err = &err as &dyn std::error::Error, "joining anew");
                }
                self.join(&token).await
            }
            (None, Some(err)) => Err(err),
            (None, None) => Err(CertificateError::NoToken { why }),
        }
    }

    /// As [`obtain`](Self::obtain), but waits for a cloud that is not there yet: what is transient is tried again after 2,
    /// 4, 8, 16 and then each 32 s, for ever.
    ///
    /// # Cancel safety
    /// May be dropped at any point and called again.
    pub async fn obtain_patiently(&self) -> Result<Identity, CertificateError> {
        patiently(async || self.obtain().await).await
    }

    /// The identity in the files, expired or not; `None` if one of them is absent.
    pub async fn stored(&self) -> Result<Option<Identity>, CertificateError> {
        let files = &self.config.files;
        let Ok(stored) = files.read().await? else { return Ok(None) };
        Identity::from_stored(&stored, files, self.clock.clone())?
            .of(&self.config.node)
            .map(Some)
            .map_err(|source| CertificateError::Unusable { path: files.certificate.clone(), source })
    }

    /// Gets a certificate with a join token: recognises the CA by the hash in the token, then shows the token to a server
    /// that the CA vouches for.
    pub async fn join(&self, token: &JoinToken) -> Result<Identity, CertificateError> {
        let ca = [self.fetch_ca(token).await?];
        let roots = tls::roots(&ca).map_err(CertificateError::failed)?;
        let tls = tls::anonymous(roots, self.clock.clone()).map_err(CertificateError::failed)?;
        let authorization = format!("Bearer {}", token.jwt());
        let headers = [("Authorization", authorization.as_str())];
        let (certificate, key) = self.request(tls.into(), &headers).await?;
        let identity = self.check(&ca, &certificate, &key)?;
        // The CA first: what does not fit it is got anew.
        self.config.files.write_ca(&ca[0]).await?;
        self.config.files.write_pair(&certificate, &key).await?;
        tracing::info!(node = %self.config.node, "joined the cloud");
        Ok(identity)
    }

    /// Gets a new certificate, for a new key, by showing the present one.
    pub async fn rotate(&self, present: &Identity) -> Result<Identity, CertificateError> {
        let (certificate, key) = self.request(present.client_config(), &[]).await?;
        let identity = self.check(present.authorities(), &certificate, &key)?;
        self.config.files.write_pair(&certificate, &key).await?;
        Ok(identity)
    }

    /// The task that replaces `identity` in time. Nothing is renewed unless the caller runs it.
    pub fn renewal(&self, identity: Identity) -> Renewal {
        Renewal::new(self.clone(), identity)
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// The join token of the file, else that of the configuration.
    pub(crate) async fn token(&self) -> Result<Option<JoinToken>, CertificateError> {
        let parse = |origin: String, text: &str| {
            text.parse().map(Some).map_err(|source| CertificateError::Token { origin, source })
        };
        if let Some(path) = &self.config.token_file {
            match tokio::fs::read_to_string(path).await {
                Ok(text) if !text.trim().is_empty() => return parse(format!("in {}", path.display()), &text),
                Ok(_) => {}
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(CertificateError::File { action: "read", path: path.clone(), source }),
            }
        }
        match &self.config.token {
            Some(text) if !text.trim().is_empty() => parse("of the configuration".into(), text),
            _ => Ok(None),
        }
    }

    async fn fetch_ca(&self, token: &JoinToken) -> Result<CertificateDer<'static>, CertificateError> {
        // Nothing but the path is sent, and nothing but a body with the right hash is believed.
        let tls = tls::before_the_authority_is_known(self.clock.clone()).map_err(CertificateError::failed)?;
        let body = fetch::get(&self.endpoint, CA, tls.into(), &[], Vec::new()).await?;
        let actual = hex(ring::digest::digest(&ring::digest::SHA256, &body).as_ref());
        if actual != token.ca_hash() {
            let (url, expected) = (self.endpoint.url(CA), token.ca_hash().to_owned());
            return Err(CertificateError::WrongAuthority { url, expected, actual });
        }
        Ok(CertificateDer::from(body.to_vec()))
    }

    async fn request(
        &self,
        tls: Arc<rustls::ClientConfig>,
        headers: &[(&str, &str)],
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), CertificateError> {
        let KeyRequest { key, csr } = KeyRequest::make(&self.config.node)?;
        let headers = [headers, &[("NodeName", self.config.node.as_str())]].concat();
        let body = fetch::get(&self.endpoint, CERTIFICATE, tls, &headers, csr).await?;
        Ok((CertificateDer::from(body.to_vec()), key))
    }

    fn check(
        &self,
        authorities: &[CertificateDer<'static>],
        certificate: &CertificateDer<'static>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Identity, CertificateError> {
        Identity::from_der(authorities, std::slice::from_ref(certificate), key.clone_key(), self.clock.clone())
            .and_then(|identity| identity.of(&self.config.node))
            .map_err(|source| CertificateError::BadAnswer { url: self.endpoint.url(CERTIFICATE), source })
    }
}

impl fmt::Debug for CertificateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        f.debug_struct("CertificateConfig")
            .field("node", &self.node)
            .field("http_server", &self.http_server)
            .field("files", &self.files)
            .field("token_file", &self.token_file)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EdgeCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeCertificates").field("config", &self.config).finish_non_exhaustive()
    }
}

async fn patiently<T>(mut attempt: impl AsyncFnMut() -> Result<T, CertificateError>) -> Result<T, CertificateError> {
    let mut pauses = retries();
    loop {
        match attempt().await {
            Err(err) if err.is_transient() => {
                let pause = pauses.next().unwrap_or_default();
                tracing::warn!(err = &err as &dyn std::error::Error, ?pause, "no certificate yet");
                tokio::time::sleep(pause).await;
            }
            result => return result,
        }
    }
}

const CA: &str = "/ca.crt";
const CERTIFICATE: &str = "/edge.crt";

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_waited_for() {
        let start = Instant::now();
        let mut left = 3;
        let result = patiently(async || {
            left -= 1;
            let url = String::new();
            if left > 0 {
                return Err(CertificateError::TimedOut { url });
            }
            Err::<(), _>(CertificateError::Refused { url, status: 401, text: String::new() })
        });
        assert!(matches!(result.await, Err(CertificateError::Refused { status: 401, .. })));
        let waited = start.elapsed();
        assert!(waited >= Duration::from_secs(6) && waited < Duration::from_secs(8), "{waited:?}");
    }

    #[test]
    fn a_configuration_does_not_show_its_token() {
        let node = NodeName::new("edge-1").unwrap();
        let mut config = CertificateConfig::new(node, "https://cloud", CertificateFiles::in_dir("pki"));
        config.token = Some("secret".into());
        assert!(!format!("{config:?}").contains("secret"));
    }
}
