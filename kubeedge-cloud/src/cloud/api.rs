//! The way to the Kubernetes API.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::net::TcpListener;

use super::{CloudCoreError, builder::bind, stage::Stage};
use crate::{
    apiserver::{EmbeddedApi, ServingTls, write_kubeconfig},
    config::{EmbeddedApiConfig, KubeApiConfig},
};

/// Which API is used.
#[derive(Clone)]
pub(super) enum ApiSource {
    Client(Client),
    Cluster(KubeApiConfig),
    Embedded(EmbeddedApiConfig),
}

/// What came of it.
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) url: Option<String>,
    pub(super) kubeconfig: Option<PathBuf>,
    /// Certificates of the authority behind the API, PEM.
    pub(super) ca: Option<String>,
}

impl ApiSource {
    /// Makes a client; the embedded API runs in `stage`.
    pub(super) async fn open(self, extra_names: &[String], stage: &Stage) -> Result<Access, CloudCoreError> {
        match self {
            Self::Client(client) => Ok(Access { client, url: None, kubeconfig: None, ca: None }),
            Self::Cluster(config) => {
                let (client, ca) = cluster(&config).await?;
                Ok(Access { client, url: None, kubeconfig: None, ca })
            }
            Self::Embedded(config) => embedded(&config, extra_names, stage).await,
        }
    }
}

async fn cluster(keys: &KubeApiConfig) -> Result<(Client, Option<String>), CloudCoreError> {
    let failed = |err: Box<dyn std::error::Error + Send + Sync>| CloudCoreError::KubeConfig(err);
    let mut config = if keys.kube_config.is_empty() {
        Config::incluster().map_err(|err| failed(err.into()))?
    } else {
        let file = Kubeconfig::read_from(&keys.kube_config).map_err(|err| failed(err.into()))?;
        let options = KubeConfigOptions::default();
        Config::from_custom_kubeconfig(file, &options).await.map_err(|err| failed(err.into()))?
    };
    if !keys.master.is_empty() {
        config.cluster_url = keys.master.parse().map_err(|err: http::uri::InvalidUri| failed(err.into()))?;
    }
    let ca = config.root_cert.as_deref().map(pem);
    let client = Client::try_from(config).map_err(|err| failed(err.into()))?;
    Ok((client, ca))
}

async fn embedded(config: &EmbeddedApiConfig, extra_names: &[String], stage: &Stage) -> Result<Access, CloudCoreError> {
    let ip: IpAddr = config.address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let listener = bind("the embedded Kubernetes API", SocketAddr::new(ip, config.port)).await?;
    let address = local_address(&listener, ip);
    let folder = config.data_source.parent().map(Path::to_owned).unwrap_or_default();
    make_folder(&folder).await?;
    let api = EmbeddedApi::builder().data_source(&config.data_source).build().await?;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), ip.to_string()];
    names.extend(["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned));
    names.extend(extra_names.iter().cloned());
    names.sort();
    names.dedup();
    let pki = folder.join("pki");
    make_folder(&pki).await?;
    let tls = ServingTls::in_folder(&pki, &names)?;
    let url = format!("https://{address}");
    let kubeconfig = (!config.kubeconfig.as_os_str().is_empty()).then(|| config.kubeconfig.clone());
    if let Some(path) = &kubeconfig {
        if let Some(folder) = path.parent() {
            make_folder(folder).await?;
        }
        write_kubeconfig(path, &url, tls.ca_pem(), api.admin_token())
            .map_err(|source| CloudCoreError::File { path: path.clone(), source })?;
    }
    let (client, ca) = (api.client("default"), Some(tls.ca_pem().to_owned()));
    let shutdown = stage.token();
    stage.spawn("embedded API", async move {
        if let Err(err) = api.serve(listener, tls, shutdown).await {
            tracing::error!(%err, "embedded API failed");
        }
    });
    Ok(Access { client, url: Some(url), kubeconfig, ca })
}

fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        for line in encoded.as_bytes().chunks(64) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// The address for a client on this machine.
fn local_address(listener: &TcpListener, ip: IpAddr) -> SocketAddr {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let ip = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, port)
}

async fn make_folder(path: &Path) -> Result<(), CloudCoreError> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    tokio::fs::create_dir_all(path).await.map_err(|source| CloudCoreError::File { path: path.to_owned(), source })
}
