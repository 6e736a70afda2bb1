//! Creating the definitions that a cluster lacks.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, Error, ResourceExt as _, api::PostParams};
use tokio::time::{Instant, sleep, timeout_at};

/// What is installed, in this order. Written for the field tables of KubeEdge v1.21 to v1.23.
const DEFINITIONS: [&str; 7] = [
    include_str!("../../crds/devices.yaml"),
    include_str!("../../crds/devicemodels.yaml"),
    include_str!("../../crds/devicestatuses.yaml"),
    include_str!("../../crds/objectsyncs.yaml"),
    include_str!("../../crds/clusterobjectsyncs.yaml"),
    include_str!("../../crds/rules.yaml"),
    include_str!("../../crds/ruleendpoints.yaml"),
];
/// For all of them to be served, from the first request on.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a definition that is not served yet.
const POLL: Duration = Duration::from_millis(100);

/// Names of the definitions, `devices.devices.kubeedge.io` for instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Installed {
    /// Those that were missing.
    pub created: Vec<String>,
    /// Those that were there, and were left as they are.
    pub present: Vec<String>,
}

/// Why the custom resources are not all there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The Kubernetes API refused or did not answer. May be tried again.
    #[error("cannot {action} definition {name}")]
    Api {
        /// `read` or `create`.
        action: &'static str,
        /// Name of the definition.
        name: String,
        /// Its answer.
        source: Box<Error>,
    },
    /// The API took the definition but does not serve it within 30 s. May be tried again.
    #[error("definition {name} is not established in time")]
    NotEstablished {
        /// Name of the definition.
        name: String,
    },
    /// The definition that is there lacks the version that we use. An operator has to update it.
    #[error("definition {name} does not serve version {version}")]
    VersionMissing {
        /// Name of the definition.
        name: String,
        /// The version.
        version: String,
    },
    /// A definition of this crate is broken.
    #[error("definition cannot be parsed")]
    Definition(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Creates the definitions of KubeEdge that the cluster lacks, and waits until all are served.
///
/// Those are of `devices.kubeedge.io/v1beta1` Device, DeviceModel and DeviceStatus, of `reliablesyncs.kubeedge.io/v1alpha1`
/// ObjectSync and ClusterObjectSync, and of `rules.kubeedge.io/v1` Rule and RuleEndpoint. What is there already is left
/// alone, whoever has put it there.
///
/// # Cancel safety
/// May be dropped at any point and called again.
pub async fn install(client: &Client) -> Result<Installed, InstallError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let deadline = Instant::now() + PATIENCE;
    let mut installed = Installed::default();
    let mut wanted = Vec::with_capacity(DEFINITIONS.len());
    for text in DEFINITIONS {
        let definition = parse(text)?;
        let name = definition.name_any();
        let list = if create_if_missing(&api, &name, &definition, deadline).await? {
            &mut installed.created
        } else {
            &mut installed.present
        };
        list.push(name);
        wanted.push(definition);
    }
    for definition in wanted {
        wait_until_established(&api, &definition, deadline).await?;
    }
    Ok(installed)
}

fn parse(text: &str) -> Result<CustomResourceDefinition, InstallError> {
    serde_saphyr::from_str(text).map_err(|err| InstallError::Definition(err.into()))
}

async fn create_if_missing(
    api: &Api<CustomResourceDefinition>,
    name: &str,
    definition: &CustomResourceDefinition,
    deadline: Instant,
) -> Result<bool, InstallError> {
    let failed = |action, err| InstallError::Api { action, name: name.to_owned(), source: Box::new(err) };
    if in_time(name, deadline, api.get_opt(name)).await?.map_err(|err| failed("read", err))?.is_some() {
        return Ok(false);
    }
    match in_time(name, deadline, api.create(&PostParams::default(), definition)).await? {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.is_already_exists() => Ok(false),
        Err(err) => Err(failed("create", err)),
    }
}

async fn wait_until_established(
    api: &Api<CustomResourceDefinition>,
    wanted: &CustomResourceDefinition,
    deadline: Instant,
) -> Result<(), InstallError> {
    let name = wanted.name_any();
    loop {
        let found = in_time(&name, deadline, api.get_opt(&name)).await?;
        let found =
            found.map_err(|err| InstallError::Api { action: "read", name: name.clone(), source: Box::new(err) })?;
        if let Some(found) = found {
            // Older versions may be missing: nothing is written in them.
            for version in wanted.spec.versions.iter().filter(|version| version.storage) {
                if !found.spec.versions.iter().any(|there| there.name == version.name && there.served) {
                    return Err(InstallError::VersionMissing { name, version: version.name.clone() });
                }
            }
            if is_established(&found) {
                return Ok(());
            }
        }
        in_time(&name, deadline, sleep(POLL)).await?;
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

async fn in_time<T>(name: &str, deadline: Instant, work: impl Future<Output = T>) -> Result<T, InstallError> {
    timeout_at(deadline, work).await.map_err(|_| InstallError::NotEstablished { name: name.to_owned() })
}

#[cfg(test)]
#[path = "install/tests.rs"]
mod tests;
