//! A cloud over an embedded API, and edges of which the test keeps the store.

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
};
use kubeedge_cloud::{
    apiserver::EmbeddedApi,
    cloud::{CloudCore, CloudCoreHandle},
    hub::HubConfig,
    pki::PkiConfig,
};
use kubeedge_core::{
    message::Message,
    meta::{Collection, MetaHandle, Selector},
    names::{NodeName, SystemClock},
    resource::{Resource, ResourceType},
    testing::MemoryStore,
    transport::{CloudEndpoint, TransportHandle},
    uplink::Inbound,
};
use kubeedge_edge::{
    dispatch::Dispatcher,
    hub::{HubConfig as EdgeHubConfig, HubDriver},
    pki::{CertificateConfig, CertificateFiles, EdgeCertificates, Identity},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const SOON: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it happens in time")
}

pub(crate) async fn eventually(mut done: impl AsyncFnMut() -> bool) {
    soon(async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(crate) struct World {
    pub(crate) cloud: CloudCoreHandle,
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|hub| hub).await
    }

    pub(crate) async fn with(hub: impl FnOnce(HubConfig) -> HubConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let api = EmbeddedApi::builder().in_memory().build().await.unwrap();
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let cloud = CloudCore::builder(api.client("default"))
            .pki(PkiConfig::new(vec![Ipv4Addr::LOCALHOST.into()]))
            .hub(hub(HubConfig::default()))
            .websocket(any)
            .https(any)
            .quic(any)
            .commands(any)
            .spawn()
            .await
            .unwrap();
        Self { cloud, folder }
    }

    pub(crate) fn api(&self, version: &str, kind: &str, plural: &str, namespaced: bool) -> Api<DynamicObject> {
        let (group, bare) = version.rsplit_once('/').unwrap_or(("", version));
        let resource = ApiResource {
            group: group.into(),
            version: bare.into(),
            api_version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        let client = self.cloud.client();
        if namespaced { Api::namespaced_with(client, "default", &resource) } else { Api::all_with(client, &resource) }
    }

    pub(crate) async fn create(&self, version: &str, kind: &str, plural: &str, namespaced: bool, object: Value) {
        let mut object = object;
        (object["apiVersion"], object["kind"]) = (version.into(), kind.into());
        let object = serde_json::from_value(object).unwrap();
        self.api(version, kind, plural, namespaced).create(&PostParams::default(), &object).await.unwrap();
    }

    /// A node with a pod, and with a ConfigMap that the pod uses.
    pub(crate) async fn populate(&self, node: &str) {
        let labels = json!({ "node-role.kubernetes.io/edge": "" });
        self.create("v1", "Node", "nodes", false, json!({ "metadata": { "name": node, "labels": labels } })).await;
        let data = json!({ "metadata": { "name": "settings" }, "data": { "key": "value ".repeat(500) } });
        self.create("v1", "ConfigMap", "configmaps", true, data).await;
        let volumes = json!([{ "name": "settings", "configMap": { "name": "settings" } }]);
        let spec = json!({ "nodeName": node, "containers": [{ "name": "c", "image": "i" }], "volumes": volumes });
        self.create("v1", "Pod", "pods", true, json!({ "metadata": { "name": "web" }, "spec": spec })).await;
    }

    /// The certificate of a node that joined with the token.
    pub(crate) async fn identity(&self, node: &str) -> Identity {
        let files = CertificateFiles::in_dir(self.folder.path().join(node));
        let url = format!("https://{}", self.cloud.https_addr());
        let mut config = CertificateConfig::new(NodeName::new(node).unwrap(), url, files);
        config.token = Some(self.cloud.join_token().as_str().to_owned());
        EdgeCertificates::new(config, Arc::new(SystemClock)).unwrap().obtain().await.unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The hub and the store of an edge, without the rest.
pub(crate) struct Edge {
    pub(crate) store: MetaHandle,
    /// What the cloud has sent.
    pub(crate) seen: Arc<Mutex<Vec<Message>>>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Edge {
    pub(crate) fn start(node: &str, server: impl Into<String>, transport: TransportHandle) -> Self {
        Self::start_with(node, server, transport, MetaHandle::of(MemoryStore::new()))
    }

    pub(crate) fn start_with(
        node: &str,
        server: impl Into<String>,
        transport: TransportHandle,
        store: MetaHandle,
    ) -> Self {
        let clock = Arc::new(SystemClock);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let inbound = Dispatcher::new(store.clone(), clock.clone()).into_inbound();
        let recorded = seen.clone();
        let inbound = Inbound::new(inbound.map_request(move |message: Message| {
            recorded.lock().unwrap().push(message.clone());
            message
        }));
        let endpoint = CloudEndpoint::new(server, NodeName::new(node).unwrap());
        let (_, driver) = HubDriver::new(EdgeHubConfig::new(endpoint), transport, inbound, clock);
        let stop = CancellationToken::new();
        let running = tokio::spawn(driver.run(stop.clone()));
        Self { store, seen, stop, running }
    }

    pub(crate) async fn count(&self, kind: &ResourceType) -> usize {
        self.store.list(Selector::all(Collection::from(kind))).await.unwrap().len()
    }

    /// Whether the node that is stored names its cloud.
    pub(crate) async fn node_is_annotated(&self) -> bool {
        let nodes = self.store.list(Selector::all(Collection::from(&ResourceType::Node))).await.unwrap();
        nodes.iter().any(|node| String::from_utf8_lossy(&node.value).contains(r#""cloudcore":"#))
    }

    /// Waits for the objects of [`World::populate`].
    pub(crate) async fn populated(&self) {
        for kind in [ResourceType::Node, ResourceType::ConfigMap, ResourceType::Pod] {
            eventually(async || self.count(&kind).await == 1).await;
        }
    }

    /// The objects that have come so far: types in the order in which they came.
    pub(crate) fn objects(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter_map(|message| match &message.resource {
                Resource::Object(path) => Some(path.kind.to_string()),
                _ => None,
            })
            .collect()
    }

    pub(crate) async fn stop(self) -> MetaHandle {
        self.stop.cancel();
        soon(self.running).await.unwrap();
        self.store
    }
}
