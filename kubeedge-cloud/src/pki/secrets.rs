//! The Secrets of the namespace `kubeedge` in which the cloud keeps its certificates.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client, Error,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::error::PkiError;

/// Namespace of everything that belongs to KubeEdge itself.
pub(crate) const NAMESPACE: &str = "kubeedge";
/// How often a write is tried anew when others write or delete the same Secret.
const TRIES: usize = 3;

/// A Secret and the two keys under which it holds a certificate and its private key.
pub(crate) struct PairSecret {
    pub(crate) name: &'static str,
    pub(crate) certificate: &'static str,
    pub(crate) key: &'static str,
}

pub(crate) const CA: PairSecret = PairSecret { name: "casecret", certificate: "cadata", key: "cakeydata" };
pub(crate) const SERVER: PairSecret =
    PairSecret { name: "cloudcoresecret", certificate: "cloudcoredata", key: "cloudcorekeydata" };
const TOKEN: &str = "tokensecret";
const TOKEN_KEY: &str = "tokendata";

/// Reads and writes the Secrets.
#[derive(Clone)]
pub(crate) struct Secrets {
    namespaces: Api<Namespace>,
    secrets: Api<Secret>,
}

impl Secrets {
    pub(crate) fn new(client: &Client) -> Self {
        Self { namespaces: Api::all(client.clone()), secrets: Api::namespaced(client.clone(), NAMESPACE) }
    }

    /// Creates the namespace unless it is there.
    pub(crate) async fn ensure_namespace(&self) -> Result<(), PkiError> {
        let failed = |action: &str, err| PkiError::api(format!("{action} namespace {NAMESPACE}"), err);
        if self.namespaces.get_opt(NAMESPACE).await.map_err(|err| failed("read", err))?.is_some() {
            return Ok(());
        }
        let metadata = ObjectMeta { name: Some(NAMESPACE.into()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        match self.namespaces.create(&PostParams::default(), &namespace).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(err) => Err(failed("create", err)),
        }
    }

    /// The certificate and the key of a Secret, both DER; `None` if the Secret is absent or has neither.
    pub(crate) async fn pair(&self, of: &PairSecret) -> Result<Option<(Vec<u8>, Vec<u8>)>, PkiError> {
        let secret = self.secrets.get_opt(of.name).await.map_err(|err| failed("read", of.name, err))?;
        let mut data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let mut take = |key| data.remove(key).map(|bytes| bytes.0).filter(|bytes| !bytes.is_empty());
        match (take(of.certificate), take(of.key)) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (certificate, _) => {
                let missing = if certificate.is_some() { of.key } else { of.certificate };
                Err(PkiError::unusable(format!("secret {NAMESPACE}/{}", of.name), format!("{missing} is missing")))
            }
        }
    }

    /// Creates the Secret of a pair; `false` if somebody else was first.
    pub(crate) async fn create_pair(&self, of: &PairSecret, certificate: &[u8], key: &[u8]) -> Result<bool, PkiError> {
        self.create(of.name, pair_data(of, certificate, key)).await
    }

    /// Writes the Secret of a pair, whether it is there or not.
    pub(crate) async fn put_pair(&self, of: &PairSecret, certificate: &[u8], key: &[u8]) -> Result<(), PkiError> {
        self.put(of.name, pair_data(of, certificate, key)).await
    }

    /// The join token that is stored, whatever it is.
    pub(crate) async fn token(&self) -> Result<Option<String>, PkiError> {
        let secret = self.secrets.get_opt(TOKEN).await.map_err(|err| failed("read", TOKEN, err))?;
        let data = secret.and_then(|secret| secret.data?.remove(TOKEN_KEY));
        Ok(data.and_then(|bytes| String::from_utf8(bytes.0).ok()))
    }

    /// Writes the join token.
    pub(crate) async fn put_token(&self, token: &str) -> Result<(), PkiError> {
        self.put(TOKEN, BTreeMap::from([(TOKEN_KEY.into(), ByteString(token.into()))])).await
    }

    async fn create(&self, name: &'static str, data: BTreeMap<String, ByteString>) -> Result<bool, PkiError> {
        let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        let secret = Secret { metadata, data: Some(data), type_: Some("Opaque".into()), ..Secret::default() };
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(true),
            Err(Error::Api(status)) if status.is_already_exists() => Ok(false),
            Err(err) => Err(failed("create", name, err)),
        }
    }

    async fn put(&self, name: &'static str, data: BTreeMap<String, ByteString>) -> Result<(), PkiError> {
        let patch = Patch::Merge(json!({ "data": data }));
        for _ in 0..TRIES {
            match self.secrets.patch(name, &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(()),
                Err(Error::Api(status)) if status.is_not_found() => {}
                Err(err) => return Err(failed("update", name, err)),
            }
            if self.create(name, data.clone()).await? {
                return Ok(());
            }
        }
        Err(PkiError::Contended { name })
    }
}

fn pair_data(of: &PairSecret, certificate: &[u8], key: &[u8]) -> BTreeMap<String, ByteString> {
    BTreeMap::from([
        (of.certificate.into(), ByteString(certificate.to_vec())),
        (of.key.into(), ByteString(key.to_vec())),
    ])
}

fn failed(action: &str, name: &str, err: Error) -> PkiError {
    PkiError::api(format!("{action} secret {NAMESPACE}/{name}"), err)
}
