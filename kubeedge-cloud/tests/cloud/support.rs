//! A cloud to test, and an edge that speaks as the Go program does.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
};
use kubeedge_cloud::{
    apiserver::EmbeddedApi,
    cloud::{CloudCore, CloudCoreBuilder, CloudCoreHandle},
    pki::{ExtKeyUsages, Pki, PkiConfig},
};
use kubeedge_core::names::{NodeName, SystemClock, UnixMillis};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

/// For anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// Waits until `look` finds something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, found).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// An embedded API, and the clouds that come and go before it.
pub(crate) struct Site {
    pub(crate) client: Client,
}

impl Site {
    pub(crate) async fn new() -> Self {
        let api = EmbeddedApi::builder().in_memory().build().await.unwrap();
        Self { client: api.client("default") }
    }

    pub(crate) fn builder(&self) -> CloudCoreBuilder {
        builder(self.client.clone())
    }

    pub(crate) async fn cloud(&self) -> CloudCoreHandle {
        timeout(SOON, self.builder().spawn()).await.unwrap().unwrap()
    }

    pub(crate) fn api(
        &self,
        api_version: &str,
        kind: &str,
        plural: &str,
        namespace: Option<&str>,
    ) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: api_version.into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    pub(crate) fn pods(&self) -> Api<DynamicObject> {
        self.api("v1", "Pod", "pods", Some("default"))
    }

    pub(crate) fn config_maps(&self) -> Api<DynamicObject> {
        self.api("v1", "ConfigMap", "configmaps", Some("default"))
    }

    pub(crate) fn nodes(&self) -> Api<DynamicObject> {
        self.api("v1", "Node", "nodes", None)
    }

    pub(crate) fn devices(&self) -> Api<DynamicObject> {
        self.api("devices.kubeedge.io/v1beta1", "Device", "devices", Some("default"))
    }

    pub(crate) fn models(&self) -> Api<DynamicObject> {
        self.api("devices.kubeedge.io/v1beta1", "DeviceModel", "devicemodels", Some("default"))
    }

    pub(crate) fn statuses(&self) -> Api<DynamicObject> {
        self.api("devices.kubeedge.io/v1beta1", "DeviceStatus", "devicestatuses", Some("default"))
    }

    pub(crate) fn records(&self) -> Api<DynamicObject> {
        self.api("reliablesyncs.kubeedge.io/v1alpha1", "ObjectSync", "objectsyncs", Some("default"))
    }

    /// A node that is labelled as edge, as one registers itself.
    pub(crate) async fn make_node(&self, name: &str) {
        let labels = json!({ "node-role.kubernetes.io/edge": "", "kubernetes.io/hostname": name });
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
        create(&self.nodes(), node).await;
    }

    /// The version that the record of the object with `uid` has.
    pub(crate) async fn recorded(&self, node: &str, uid: &str) -> Option<String> {
        let record = self.records().get_opt(&format!("{node}.{uid}")).await.unwrap()?;
        record.data["status"]["objectResourceVersion"].as_str().map(str::to_owned)
    }
}

pub(crate) fn builder(client: Client) -> CloudCoreBuilder {
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    CloudCore::builder(client).pki(PkiConfig::new(vec![Ipv4Addr::LOCALHOST.into()])).websocket(any).https(any)
}

pub(crate) async fn create(api: &Api<DynamicObject>, object: Value) -> DynamicObject {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

pub(crate) fn pod(name: &str, node: &str, uses: &[&str]) -> Value {
    let volumes: Vec<Value> = uses.iter().map(|name| json!({ "name": name, "configMap": { "name": name } })).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "busybox" }], "volumes": volumes },
    })
}

pub(crate) fn config_map(name: &str, value: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "key": value } })
}

/// A client certificate for `name`, of the CA that the cloud keeps in its API.
pub(crate) struct Credentials {
    pub(crate) roots: RootCertStore,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Credentials {
    pub(crate) async fn of(client: &Client, name: &str) -> Self {
        let config = PkiConfig::new(vec![Ipv4Addr::LOCALHOST.into()]);
        let pki = Pki::load_or_create(client, config, Arc::new(SystemClock)).await.unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
        let request = params.serialize_request(&key).unwrap();
        let usages = ExtKeyUsages::parse(None).unwrap();
        let now = UnixMillis::from_system(std::time::SystemTime::now());
        let validity = Duration::from_secs(3600);
        let certificate = pki.authority().sign_edge(request.der(), &node(name), usages, validity, now).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(pki.authority().certificate().clone()).unwrap();
        Self { roots, certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        Arc::new(config)
    }
}

/// Why a connection did not come about.
#[derive(Debug)]
pub(crate) enum NoLink {
    Tls,
    Status(u16, String),
}

/// An edge that answers nothing by itself but for acknowledgements.
pub(crate) struct Edge {
    pub(crate) socket: WebSocketStream<TlsStream<TcpStream>>,
    name: String,
    /// All that came so far.
    pub(crate) seen: Vec<Value>,
    /// Which of it was waited for already.
    taken: HashSet<usize>,
}

impl Edge {
    pub(crate) async fn dial(
        cloud: &CloudCoreHandle,
        credentials: &Credentials,
        headers: &[(&'static str, &str)],
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>, NoLink> {
        Self::dial_at(cloud.websocket_addr(), credentials, headers).await
    }

    pub(crate) async fn dial_at(
        address: SocketAddr,
        credentials: &Credentials,
        headers: &[(&'static str, &str)],
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>, NoLink> {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::from(address.ip());
        let stream = TlsConnector::from(credentials.tls()).connect(name, stream).await.map_err(|_| NoLink::Tls)?;
        let url = format!("wss://{address}/e632aba927ea4ac2b575ec1603d56f10/edge-go/events");
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err(NoLink::Status(response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            // With TLS 1.3 the client learns of a refused certificate when it reads.
            Err(tungstenite::Error::Io(_)) => Err(NoLink::Tls),
            Err(err) => panic!("no WebSocket: {err}"),
        }
    }

    /// Connects as the Go program does, and sends the first keepalive.
    pub(crate) async fn connect(cloud: &CloudCoreHandle, name: &str) -> Self {
        let credentials = Credentials::of(&cloud.client(), name).await;
        Self::connect_as(cloud, &credentials, name).await
    }

    pub(crate) async fn connect_as(cloud: &CloudCoreHandle, credentials: &Credentials, name: &str) -> Self {
        Self::connect_at(cloud.websocket_addr(), credentials, name).await.unwrap()
    }

    pub(crate) async fn connect_at(address: SocketAddr, credentials: &Credentials, name: &str) -> Result<Self, NoLink> {
        let headers = [("connectionuse", "msg"), ("node_id", name), ("project_id", "e632aba927ea4ac2b575ec1603d56f10")];
        let socket = Self::dial_at(address, credentials, &headers).await?;
        let mut edge = Self { socket, name: name.to_owned(), seen: vec![], taken: HashSet::new() };
        edge.keepalive().await;
        Ok(edge)
    }

    pub(crate) async fn keepalive(&mut self) {
        let route = json!({ "source": "websocket", "group": "resource", "operation": "keepalive", "resource": "node" });
        self.send(&json!({ "header": header(), "route": route, "content": "ping" })).await;
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_text(&format!("{message}\n")).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next message; acknowledges objects as a Go edge does.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let message = self.next_silent().await?;
        let acknowledged = message["route"]["group"] == "resource" && message["header"]["parent_msg_id"].is_null();
        if acknowledged {
            self.acknowledge(&message).await;
        }
        Some(message)
    }

    /// The next message, without an acknowledgement. `None` at the end of the connection.
    pub(crate) async fn next_silent(&mut self) -> Option<Value> {
        loop {
            let frame = timeout(SOON, self.socket.next()).await;
            let frame = frame.unwrap_or_else(|_| panic!("nothing comes any more for {}: {:#?}", self.name, self.seen));
            match frame {
                Some(Ok(Message::Text(text))) => {
                    assert!(text.ends_with('\n'), "{text}");
                    let message: Value = serde_json::from_str(&text).unwrap();
                    self.seen.push(message.clone());
                    return Some(message);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    pub(crate) async fn acknowledge(&mut self, message: &Value) {
        assert!(self.try_acknowledge(message).await);
    }

    /// `false` if the connection has ended.
    pub(crate) async fn try_acknowledge(&mut self, message: &Value) -> bool {
        let mut route = message["route"].clone();
        route["operation"] = "response".into();
        let mut header = header();
        header["parent_msg_id"] = message["header"]["msg_id"].clone();
        let message = json!({ "header": header, "route": route, "content": "OK" });
        self.socket.send(Message::text(format!("{message}\n"))).await.is_ok()
    }

    /// The first message that is `wanted` and was not returned before; reads on until it comes.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let found = self.seen.iter().enumerate().find(|(at, message)| !self.taken.contains(at) && wanted(message));
            if let Some((at, message)) = found {
                self.taken.insert(at);
                return message.clone();
            }
            self.next().await.unwrap_or_else(|| panic!("connection ended: {:#?}", self.seen));
        }
    }

    /// An object: operation and resource.
    pub(crate) async fn object(&mut self, operation: &str, resource: &str) -> Value {
        self.until(|message| message["route"]["operation"] == operation && message["route"]["resource"] == resource)
            .await
    }

    /// Reads on until an object has come, if it has not yet.
    pub(crate) async fn got(&mut self, resource: &str) {
        if !self.objects().iter().any(|seen| seen.split(' ').nth(1) == Some(resource)) {
            self.until(|message| message["route"]["resource"] == resource).await;
        }
    }

    /// Reads on until the node is compared, which the list of its devices tells.
    pub(crate) async fn compared(&mut self) -> Value {
        self.until(|message| message["route"]["resource"] == "membership/detail").await
    }

    /// Sends a request, and reads on until its answer.
    pub(crate) async fn ask(&mut self, operation: &str, resource: &str, content: Value) -> Value {
        self.ask_as("edged", "meta", operation, resource, content).await
    }

    pub(crate) async fn ask_as(
        &mut self,
        source: &str,
        group: &str,
        operation: &str,
        resource: &str,
        content: Value,
    ) -> Value {
        let header = header();
        let route = json!({ "source": source, "group": group, "operation": operation, "resource": resource });
        self.send(&json!({ "header": header, "route": route, "content": content })).await;
        self.until(|message| message["header"]["parent_msg_id"] == header["msg_id"]).await
    }

    /// What came of objects so far: `operation resource`.
    pub(crate) fn objects(&self) -> Vec<String> {
        let text = |message: &Value, member: &str| message["route"][member].as_str().unwrap_or_default().to_owned();
        self.seen
            .iter()
            .filter(|message| message["route"]["group"] == "resource" && message["header"]["parent_msg_id"].is_null())
            .map(|message| format!("{} {}", text(message, "operation"), text(message, "resource")))
            .collect()
    }
}

pub(crate) fn header() -> Value {
    let now = UnixMillis::from_system(std::time::SystemTime::now()).0;
    json!({ "msg_id": uuid::Uuid::new_v4().to_string(), "timestamp": now })
}
