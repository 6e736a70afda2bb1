//! What a pod refers to: ConfigMaps, Secrets and tokens of its service account.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ByteString,
    api::core::v1::{Container, Pod, Volume},
    jiff::Timestamp,
};
use kubeedge_core::{
    answer::Answer,
    message::{Content, Message},
    meta::{Collection, MetaError, MetaHandle, MetaKey, MetaWrite, Precondition, Record},
    names::{InvalidName, ResourceVersion, SharedClock, Uid, UnixMillis},
    resource::{ObjectPath, ResourceType},
    uplink::{UplinkError, UplinkHandle},
    words::{Group, Operation, Source},
};
use serde::Deserialize;
use serde_json::json;

use super::decide::since;

/// Something that a pod refers to, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reference {
    ConfigMap(String),
    Secret(String),
    /// A token that is bound to the pod.
    Token {
        account: String,
        audience: String,
        expiration_seconds: i64,
    },
}

/// Keys and values of a referred object.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

/// The referred objects that there are.
pub(crate) type Sources = BTreeMap<Reference, Data>;

/// Key under which a token lies in its [`Data`].
pub(crate) const TOKEN: &str = "token";

impl Reference {
    /// As the kubelet words it, such as `configmap "settings"`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::ConfigMap(name) => format!("configmap {name:?}"),
            Self::Secret(name) => format!("secret {name:?}"),
            Self::Token { account, .. } => format!("token of service account {account:?}"),
        }
    }

    fn kind(&self) -> ResourceType {
        match self {
            Self::ConfigMap(_) => ResourceType::ConfigMap,
            Self::Secret(_) => ResourceType::Secret,
            Self::Token { .. } => ResourceType::ServiceAccountToken,
        }
    }

    /// Whether a change of that record concerns it.
    pub(crate) fn is(&self, key: &MetaKey) -> bool {
        let name = match self {
            Self::ConfigMap(name) | Self::Secret(name) => name,
            Self::Token { .. } => return false,
        };
        key.collection == Collection::from(&self.kind()) && *key.name == **name
    }

    fn key(&self, namespace: &str, uid: &str) -> MetaKey {
        let collection = Collection::from(&self.kind());
        match self {
            Self::ConfigMap(name) | Self::Secret(name) => MetaKey::new(collection, namespace, name.as_str()),
            Self::Token { account, audience, expiration_seconds } => {
                MetaKey::new(collection, namespace, format!("{uid}/{account}/{expiration_seconds}/{audience}"))
            }
        }
    }
}

/// Finds what a pod refers to, and whether it can do without.
pub(crate) fn references(pod: &Pod) -> BTreeMap<Reference, bool> {
    let mut found = BTreeMap::new();
    let Some(spec) = &pod.spec else { return found };
    let mut add = |reference, optional: Option<bool>| {
        let optional = optional.unwrap_or(false);
        found.entry(reference).and_modify(|all: &mut bool| *all &= optional).or_insert(optional);
    };
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, spec.service_account_name.as_deref(), &mut add);
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        of_environment(container, &mut add);
    }
    found
}

fn of_environment(container: &Container, add: &mut impl FnMut(Reference, Option<bool>)) {
    for source in container.env_from.iter().flatten() {
        if let Some(map) = &source.config_map_ref {
            add(Reference::ConfigMap(map.name.clone()), map.optional);
        }
        if let Some(secret) = &source.secret_ref {
            add(Reference::Secret(secret.name.clone()), secret.optional);
        }
    }
    for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        if let Some(map) = &from.config_map_key_ref {
            add(Reference::ConfigMap(map.name.clone()), map.optional);
        }
        if let Some(secret) = &from.secret_key_ref {
            add(Reference::Secret(secret.name.clone()), secret.optional);
        }
    }
}

fn of_volume(volume: &Volume, account: Option<&str>, add: &mut impl FnMut(Reference, Option<bool>)) {
    if let Some(map) = &volume.config_map {
        add(Reference::ConfigMap(map.name.clone()), map.optional);
    }
    if let Some(secret) = &volume.secret {
        add(Reference::Secret(secret.secret_name.clone().unwrap_or_default()), secret.optional);
    }
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(map) = &source.config_map {
            add(Reference::ConfigMap(map.name.clone()), map.optional);
        }
        if let Some(secret) = &source.secret {
            add(Reference::Secret(secret.name.clone()), secret.optional);
        }
        if let Some(token) = &source.service_account_token {
            add(token_reference(account, token.audience.as_deref(), token.expiration_seconds), None);
        }
    }
}

/// The token that a projected volume wants.
pub(crate) fn token_reference(account: Option<&str>, audience: Option<&str>, expiration: Option<i64>) -> Reference {
    Reference::Token {
        account: account.filter(|name| !name.is_empty()).unwrap_or("default").into(),
        audience: audience.unwrap_or("").into(),
        expiration_seconds: expiration.unwrap_or(3600),
    }
}

/// Whether a stored token is one of that pod.
pub(crate) fn token_is_of(token: &MetaKey, pod: &Uid) -> bool {
    token.name.strip_prefix(pod.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

/// What the store has of the references.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) sources: Sources,
    /// Not there, or due for renewal.
    pub(crate) wanted: Vec<Reference>,
}

/// Fetches a pod's references from the store, and from the cloud into the store.
#[derive(Clone)]
pub(crate) struct Resolver {
    pub(crate) store: MetaHandle,
    pub(crate) uplink: UplinkHandle,
    pub(crate) clock: SharedClock,
}

/// Why a reference could not be had from the cloud.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0}")]
    Refused(String),
    #[error("not asked for")]
    Uplink(#[from] UplinkError),
    #[error("not stored")]
    Store(#[from] MetaError),
    #[error("not a valid object")]
    Invalid(#[source] kubeedge_core::service::BoxError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigMapObject {
    data: Option<BTreeMap<String, String>>,
    binary_data: Option<BTreeMap<String, ByteString>>,
}

#[derive(Deserialize)]
struct SecretObject {
    data: Option<BTreeMap<String, ByteString>>,
}

#[derive(Deserialize)]
struct TokenObject {
    spec: TokenSpec,
    status: TokenStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenSpec {
    expiration_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenStatus {
    token: String,
    expiration_timestamp: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Identity {
    uid: Option<Uid>,
    resource_version: Option<String>,
}

#[derive(Deserialize)]
struct Identified {
    #[serde(default)]
    metadata: Identity,
}

impl Resolver {
    /// Reads from the store what a pod refers to.
    pub(crate) async fn load<'a>(
        &self,
        namespace: &str,
        uid: &str,
        references: impl Iterator<Item = &'a Reference> + Send,
    ) -> Result<Loaded, MetaError> {
        let mut loaded = Loaded::default();
        for reference in references {
            let record = self.store.get(reference.key(namespace, uid)).await?;
            match record.map(|record| parse(reference, &record, self.clock.now())) {
                Some(Ok((data, good))) => {
                    loaded.sources.insert(reference.clone(), data);
                    if !good {
                        loaded.wanted.push(reference.clone());
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(reference = %reference.describe(), error = %error, "stored object is damaged");
                    loaded.wanted.push(reference.clone());
                }
                None => loaded.wanted.push(reference.clone()),
            }
        }
        Ok(loaded)
    }

    /// Asks the cloud for a reference and stores the answer before it is acknowledged.
    ///
    /// Upstream: `edge/pkg/metamanager/process.go`. A refusal is not stored, which upstream does.
    pub(crate) async fn fetch(&self, pod: &Pod, reference: &Reference) -> Result<(), FetchError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let (name, content) = match reference {
            Reference::ConfigMap(name) | Reference::Secret(name) => (name, Content::null()),
            Reference::Token { account, audience, expiration_seconds } => {
                let audiences = (!audience.is_empty()).then_some([audience]);
                let bound = json!({
                    "kind": "Pod", "apiVersion": "v1", "name": pod.metadata.name, "uid": uid,
                });
                let request = json!({
                    "metadata": {"creationTimestamp": null},
                    "spec": {
                        "audiences": audiences, "expirationSeconds": expiration_seconds, "boundObjectRef": bound,
                    },
                    "status": {"token": "", "expirationTimestamp": null},
                });
                (account, Content::json(&request).map_err(invalid)?)
            }
        };
        let path = ObjectPath::namespaced(namespace, reference.kind(), name).map_err(|e: InvalidName| invalid(e))?;
        let query = Message::new(self.clock.now(), Source::Edged, Group::Meta, Operation::Query, path).content(content);
        let reply = self.uplink.request(query).await?;
        let object = match Answer::read(&reply.content) {
            Answer::Object(object) => object,
            Answer::Refused(status) => return Err(FetchError::Refused(status.message)),
            _ => return Err(FetchError::Refused("the cloud gave no object".into())),
        };
        self.keep(reference.key(namespace, uid), reference, &object).await?;
        self.uplink.send(reply.acknowledgement(self.clock.now())).await?;
        Ok(())
    }

    async fn keep(&self, key: MetaKey, reference: &Reference, object: &Content) -> Result<(), FetchError> {
        let mut record = Record::new(key.clone(), object.as_json().to_owned());
        // What cannot be read must not be stored: it would shadow the object for ever.
        parse(reference, &record, self.clock.now()).map_err(invalid)?;
        let identity = object.parse::<Identified>().map(|object| object.metadata).unwrap_or_default();
        record.uid = identity.uid;
        record.version = identity.resource_version.and_then(|version| version.parse::<ResourceVersion>().ok());
        let only_if = match reference {
            Reference::Token { .. } => Precondition::Always,
            // If it was pushed meanwhile, that is at least as new.
            _ => Precondition::Absent,
        };
        match self.store.commit(vec![MetaWrite::Put(record, only_if)]).await {
            Ok(_) | Err(MetaError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the tokens of a pod that is gone.
    pub(crate) async fn forget(&self, namespace: &str, uid: &str, references: impl Iterator<Item = &Reference>) {
        let writes: Vec<_> = references
            .filter(|reference| matches!(reference, Reference::Token { .. }))
            .map(|token| MetaWrite::Delete(token.key(namespace, uid), Precondition::Always))
            .collect();
        if !writes.is_empty()
            && let Err(error) = self.store.commit(writes).await
        {
            tracing::warn!(error = %error, "tokens of a removed pod stay in the store");
        }
    }
}

fn invalid(error: impl Into<kubeedge_core::service::BoxError>) -> FetchError {
    FetchError::Invalid(error.into())
}

/// Reads a stored object; with it, whether it is good for a while yet.
fn parse(reference: &Reference, record: &Record, now: UnixMillis) -> Result<(Data, bool), serde_json::Error> {
    Ok(match reference {
        Reference::ConfigMap(_) => {
            let object: ConfigMapObject = serde_json::from_slice(&record.value)?;
            let text = object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
            let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
            (text.chain(binary).collect(), true)
        }
        Reference::Secret(_) => {
            let object: SecretObject = serde_json::from_slice(&record.value)?;
            (object.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect(), true)
        }
        Reference::Token { .. } => {
            let object: TokenObject = serde_json::from_slice(&record.value)?;
            let lifetime =
                Duration::from_secs(u64::try_from(object.spec.expiration_seconds.unwrap_or(3600)).unwrap_or(0));
            let left = object
                .status
                .expiration_timestamp
                .map_or(lifetime, |expires| since(UnixMillis(expires.as_millisecond()), now));
            // As the kubelet does: renewed when a fifth of the lifetime is left. An expired one is better than none.
            let good = left > lifetime / 5;
            (Data::from([(TOKEN.to_owned(), object.status.token.into_bytes())]), good)
        }
    })
}
