//! Where the certificates of the edges come from.

use std::{fs, path::Path, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use kubeedge_cloud::pki::{CertificateAuthority, ExtKeyUsages};
use kubeedge_core::{
    names::{NodeName, SystemClock, WallClock as _},
    service::BoxError,
};
use kubeedge_edge::pki::{CertificateConfig, CertificateFiles, EdgeCertificates, Identity};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer, pem::PemObject as _};

use crate::options::FleetOptions;

/// Namespace of everything that belongs to KubeEdge itself.
const NAMESPACE: &str = "kubeedge";
/// How long certificates that are signed here are valid.
const VALIDITY: Duration = Duration::from_secs(30 * 86_400);
/// Requests to the bootstrap at a time.
const REQUESTS: usize = 32;

/// A source of certificates.
pub(crate) enum Credentials {
    /// The bootstrap of the cloud; what was got is kept in files.
    Bootstrap { https: String, token: String, folder: PathBuf },
    /// The key of the CA.
    Signed(Arc<CertificateAuthority>),
}

impl Credentials {
    pub(crate) async fn open(options: &FleetOptions, client: Option<&Client>) -> Result<Self, BoxError> {
        if let Some(folder) = &options.certificates {
            let token = match (&options.token, client) {
                (Some(token), _) => token.clone(),
                (None, Some(client)) => String::from_utf8(datum(client, "tokensecret", "tokendata").await?)?,
                (None, None) => return Err("--certificates needs --token or --kubeconfig".into()),
            };
            return Ok(Self::Bootstrap { https: options.https.clone(), token, folder: folder.clone() });
        }
        let (certificate, key) = match (&options.ca_cert, &options.ca_key, client) {
            (Some(certificate), Some(key), _) => {
                let certificate = CertificateDer::from_pem_slice(&read(certificate)?)?;
                let key = PrivateSec1KeyDer::from_pem_slice(&read(key)?)?;
                (certificate, key.secret_sec1_der().to_vec())
            }
            (_, _, Some(client)) => {
                let certificate = datum(client, "casecret", "cadata").await?;
                (CertificateDer::from(certificate), datum(client, "casecret", "cakeydata").await?)
            }
            _ => return Err("no source of certificates: give --certificates, --kubeconfig or --ca-cert".into()),
        };
        Ok(Self::Signed(Arc::new(CertificateAuthority::from_der(certificate, &key, SystemClock.now())?)))
    }

    /// The identities of `nodes`, in order.
    pub(crate) async fn identities(&self, nodes: &[NodeName]) -> Result<Vec<Identity>, BoxError> {
        match self {
            Self::Bootstrap { https, token, folder } => {
                let obtained = nodes.iter().map(|node| {
                    let files = CertificateFiles::in_dir(folder.join(node.as_str()));
                    let mut config = CertificateConfig::new(node.clone(), format!("https://{https}"), files);
                    config.token = Some(token.clone());
                    async { Ok::<_, BoxError>(EdgeCertificates::new(config, Arc::new(SystemClock))?.obtain().await?) }
                });
                stream::iter(obtained).buffered(REQUESTS).try_collect().await
            }
            Self::Signed(authority) => {
                let signed = nodes.chunks(256).map(|nodes| {
                    let (authority, nodes) = (authority.clone(), nodes.to_vec());
                    let work = move || nodes.iter().map(|node| sign(&authority, node)).collect::<Result<Vec<_>, _>>();
                    async { tokio::task::spawn_blocking(work).await? }
                });
                let signed: Vec<_> = stream::iter(signed).buffered(REQUESTS).try_collect().await?;
                Ok(signed.into_iter().flatten().collect())
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BoxError> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

async fn datum(client: &Client, name: &str, key: &str) -> Result<Vec<u8>, BoxError> {
    let secret = Api::<Secret>::namespaced(client.clone(), NAMESPACE).get(name).await?;
    let datum = secret.data.and_then(|mut data| data.remove(key));
    datum.map(|datum| datum.0).ok_or_else(|| format!("Secret {name} has no {key}").into())
}

fn sign(authority: &CertificateAuthority, node: &NodeName) -> Result<Identity, BoxError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
    let request = params.serialize_request(&key)?;
    let now = SystemClock.now();
    let certificate = authority.sign_edge(request.der(), node, ExtKeyUsages::default(), VALIDITY, now)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Identity::from_der(&[authority.certificate().clone()], &[certificate], key, Arc::new(SystemClock))?)
}
