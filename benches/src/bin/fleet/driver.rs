//! Makes the objects that the nodes get.

use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, Container, Namespace, Node, Pod, PodSpec, Volume};
use kube::{
    Api, Client, Error, Resource,
    api::{DeleteParams, ListParams, PostParams},
};
use kubeedge_core::{names::NodeName, service::BoxError};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::{options::ObjectOptions, probe, uplink};

/// Namespace of all that is made here.
pub(crate) const NAMESPACE: &str = "fleet";

/// ConfigMaps, and a Pod on each node that refers to those that the node is to have.
pub(crate) struct Driver {
    client: Client,
    maps: Api<ConfigMap>,
    options: ObjectOptions,
    nodes: Vec<NodeName>,
}

/// A version of an object, and when its write began.
pub(crate) type Writes = HashMap<(String, u64), Instant>;

impl Driver {
    /// Makes all objects, so that each node has what it is to have before anything is measured.
    pub(crate) async fn prepare(
        client: Client,
        nodes: Vec<NodeName>,
        options: ObjectOptions,
    ) -> Result<Self, BoxError> {
        let maps = Api::namespaced(client.clone(), NAMESPACE);
        let driver = Self { client, maps, options, nodes };
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(NAMESPACE.into());
        create(&Api::all(driver.client.clone()), namespace).await?;
        let all: Api<Node> = Api::all(driver.client.clone());
        driver.each(driver.nodes.iter().map(|node| create(&all, uplink::plain(node)))).await?;
        let (maps, bytes) = (&driver.maps, driver.options.bytes);
        let made = (0..driver.options.objects).map(|object| probe::config_map(&name(object), NAMESPACE, bytes));
        driver.each(made.map(|map| create(maps, map))).await?;
        let pods: Api<Pod> = Api::namespaced(driver.client.clone(), NAMESPACE);
        driver.each(driver.pods().into_iter().map(|pod| create(&pods, pod))).await?;
        Ok(driver)
    }

    /// Messages that a round makes.
    pub(crate) fn messages(&self) -> usize {
        self.options.objects * self.users()
    }

    fn users(&self) -> usize {
        self.options.users.min(self.nodes.len())
    }

    /// Writes each ConfigMap once.
    pub(crate) async fn round(&self) -> Result<Writes, BoxError> {
        let written = (0..self.options.objects).map(|object| self.write(object));
        let written: Vec<_> = stream::iter(written).buffer_unordered(self.options.writers.max(1)).try_collect().await?;
        Ok(written.into_iter().collect())
    }

    /// Writes one ConfigMap.
    pub(crate) async fn write(&self, object: usize) -> Result<((String, u64), Instant), BoxError> {
        let (name, start) = (name(object % self.options.objects.max(1)), Instant::now());
        let map = probe::config_map(&name, NAMESPACE, self.options.bytes);
        let written = self.maps.replace(&name, &PostParams::default(), &map).await?;
        let version = written.metadata.resource_version.ok_or("a ConfigMap came back without a version")?;
        Ok(((name, version.parse()?), start))
    }

    /// Removes what was made.
    pub(crate) async fn clean(&self) -> Result<(), BoxError> {
        let (now, all) = (DeleteParams::default().grace_period(0), ListParams::default());
        Api::<Pod>::namespaced(self.client.clone(), NAMESPACE).delete_collection(&now, &all).await?;
        self.maps.delete_collection(&now, &all).await?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        self.each(self.nodes.iter().map(async |node| match nodes.delete(node.as_str(), &now).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }))
        .await
    }

    async fn each<F: Future<Output = Result<(), Error>>>(&self, work: impl Iterator<Item = F>) -> Result<(), BoxError> {
        Ok(stream::iter(work).buffer_unordered(self.options.writers.max(1)).try_collect().await?)
    }

    /// A pod on each node, with the ConfigMaps of the node as volumes.
    fn pods(&self) -> Vec<Pod> {
        let mut of_node = vec![Vec::new(); self.nodes.len()];
        for object in 0..self.options.objects {
            for user in 0..self.users() {
                of_node[(object * self.users() + user) % self.nodes.len()].push(name(object));
            }
        }
        self.nodes.iter().zip(of_node).map(|(node, maps)| pod(node, maps)).collect()
    }
}

fn name(object: usize) -> String {
    format!("object-{object:05}")
}

fn pod(node: &NodeName, maps: Vec<String>) -> Pod {
    let volume = |name: String| Volume {
        name: name.clone(),
        config_map: Some(ConfigMapVolumeSource { name, ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    };
    let container = Container { name: "fleet".into(), image: Some("fleet".into()), ..Container::default() };
    let mut pod = Pod::default();
    pod.metadata.name = Some(format!("fleet-{node}"));
    pod.metadata.namespace = Some(NAMESPACE.into());
    pod.spec = Some(PodSpec {
        node_name: Some(node.to_string()),
        containers: vec![container],
        volumes: Some(maps.into_iter().map(volume).collect()),
        ..PodSpec::default()
    });
    pod
}

/// Creates an object unless it is there.
async fn create<K>(api: &Api<K>, object: K) -> Result<(), Error>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}
