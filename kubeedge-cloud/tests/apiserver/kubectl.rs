//! The real kubectl over real TLS.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use http::StatusCode;
use kube::config::KubeConfigOptions;
use kubeedge_cloud::apiserver::{EmbeddedApi, ServingTls, write_kubeconfig};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long one command may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    folder: TempDir,
    url: String,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    api: EmbeddedApi,
    tls: ServingTls,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let api = EmbeddedApi::builder().data_source(folder.path().join("api.db")).build().await.unwrap();
        let names = ["127.0.0.1", "localhost", "kubernetes"].map(str::to_owned);
        let tls = ServingTls::in_folder(&folder.path().join("pki"), &names).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        write_kubeconfig(&folder.path().join("config"), &url, tls.ca_pem(), api.admin_token()).unwrap();
        let stop = CancellationToken::new();
        let (serving, token, certificate) = (api.clone(), stop.clone(), tls.clone());
        let server = tokio::spawn(async move { serving.serve(listener, certificate, token).await });
        Self { folder, url, stop, server, api, tls }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.path("config"))
            .env("HOME", self.folder.path())
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().expect("kubectl must be installed (Debian: kubernetes-client) for this test")
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.spawn(arguments);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        timeout(PATIENCE, child.wait_with_output()).await.expect("kubectl hangs").unwrap()
    }

    /// Runs kubectl, which must succeed, and returns what it printed.
    async fn kubectl(&self, arguments: &[&str]) -> String {
        self.feed(arguments, "").await
    }

    async fn feed(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input).await;
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "kubectl {arguments:?} failed: {err}");
        out
    }

    /// Runs kubectl, which must fail, and returns its complaint.
    async fn refused(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    async fn minor_version(&self) -> u32 {
        let text = self.kubectl(&["version", "--client", "-o", "json"]).await;
        let version: serde_json::Value = serde_json::from_str(&text).unwrap();
        version["clientVersion"]["minor"].as_str().unwrap().trim_end_matches('+').parse().unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(3), self.server).await.expect("the server does not stop").unwrap().unwrap();
    }
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  nodeName: edge-1
  containers:
  - name: main
    image: busybox:1
    env:
    - {name: A, value: '1'}
    - {name: B, value: '2'}
  - name: side
    image: side:1
";

const NODE: &str = "
apiVersion: v1
kind: Node
metadata:
  name: edge-1
  labels: {node-role.kubernetes.io/edge: ''}
status:
  capacity: {cpu: 4, memory: 1Gi, pods: '110'}
  conditions:
  - {type: Ready, status: 'True', reason: EdgeReady}
  nodeInfo: {kubeletVersion: v1.33.0, osImage: Test, kernelVersion: '6', containerRuntimeVersion: process://1,
    architecture: amd64, bootID: b, kubeProxyVersion: '', machineID: m, operatingSystem: linux, systemUUID: s}
";

#[tokio::test(flavor = "multi_thread")]
async fn it_creates_shows_and_deletes() {
    let cluster = Cluster::start().await;
    cluster.kubectl(&["create", "namespace", "site"]).await;
    cluster.kubectl(&["create", "configmap", "settings", "--from-literal=k=v", "-n", "site"]).await;
    cluster.kubectl(&["create", "secret", "generic", "token", "--from-literal=t=secret"]).await;
    cluster.feed(&["create", "-f", "-"], NODE).await;
    cluster.feed(&["create", "-f", "-"], POD).await;
    has(&cluster.kubectl(&["get", "ns"]).await, &["NAME", "STATUS", "site", "Active", "kube-system"]);
    has(&cluster.kubectl(&["get", "cm", "-n", "site"]).await, &["settings   1 "]);
    has(&cluster.kubectl(&["get", "secrets"]).await, &["TYPE", "Opaque"]);
    has(&cluster.kubectl(&["get", "nodes", "-o", "wide"]).await, &["Ready", "edge", "v1.33.0", "process://1"]);
    has(&cluster.kubectl(&["get", "pods", "-o", "wide"]).await, &["web", "0/2", "Pending", "edge-1"]);
    has(&cluster.kubectl(&["get", "pods", "-A", "--show-labels"]).await, &["default", "app=web"]);
    has(&cluster.kubectl(&["get", "pod", "web", "-o", "yaml"]).await, &["kind: Pod", "qosClass: BestEffort", "uid: "]);
    has(&cluster.kubectl(&["get", "pods", "-l", "app in (web)", "-o", "name"]).await, &["pod/web"]);
    has(&cluster.kubectl(&["get", "all"]).await, &["pod/web"]);
    has(&cluster.kubectl(&["get", "secret", "token", "-o", "jsonpath={.data.t}"]).await, &["c2VjcmV0"]);
    has(&cluster.kubectl(&["describe", "pod", "web"]).await, &["Name:", "web", "Node:", "edge-1", "Events:"]);
    has(&cluster.kubectl(&["describe", "node", "edge-1"]).await, &["Roles:", "edge", "Non-terminated Pods", "web"]);
    has(&cluster.kubectl(&["describe", "ns", "site"]).await, &["Status:", "Active"]);
    has(&cluster.kubectl(&["api-resources"]).await, &["configmaps", "leases", "customresourcedefinitions", "crd"]);
    has(&cluster.kubectl(&["api-versions"]).await, &["coordination.k8s.io/v1", "v1"]);
    has(&cluster.kubectl(&["auth", "can-i", "create", "pods"]).await, &["yes"]);
    has(&cluster.kubectl(&["version"]).await, &["Server Version"]);
    has(&cluster.kubectl(&["cluster-info"]).await, &[&cluster.url]);
    has(
        &cluster.refused(&["get", "pod", "none"], "").await,
        &["Error from server (NotFound): pods \"none\" not found"],
    );
    has(&cluster.refused(&["create", "namespace", "site"], "").await, &["AlreadyExists"]);
    cluster.kubectl(&["delete", "pod", "web", "--grace-period=0", "--force"]).await;
    cluster.kubectl(&["delete", "namespace", "site", "--wait"]).await;
    has(&cluster.refused(&["get", "ns", "site"], "").await, &["NotFound"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_services_and_tends_nodes() {
    let cluster = Cluster::start().await;
    let minor = cluster.minor_version().await;
    cluster.feed(&["create", "-f", "-"], NODE).await;
    cluster.kubectl(&["run", "job", "--image=busybox", "--restart=Never", "--", "sleep", "1"]).await;
    has(&cluster.kubectl(&["get", "pod", "job", "-o", "jsonpath={.spec.containers[0].args}"]).await, &["sleep"]);
    cluster.kubectl(&["create", "service", "clusterip", "shop", "--tcp=80:8080"]).await;
    has(&cluster.kubectl(&["get", "svc"]).await, &["shop", "ClusterIP", "80/TCP"]);
    has(&cluster.kubectl(&["describe", "svc", "shop"]).await, &["TargetPort:", "8080/TCP"]);
    cluster.kubectl(&["create", "serviceaccount", "robot"]).await;
    has(&cluster.kubectl(&["get", "sa"]).await, &["default", "robot"]);
    cluster.kubectl(&["cordon", "edge-1"]).await;
    has(&cluster.kubectl(&["get", "nodes"]).await, &["Ready,SchedulingDisabled"]);
    cluster.kubectl(&["uncordon", "edge-1"]).await;
    cluster.kubectl(&["taint", "nodes", "edge-1", "only=me:NoSchedule"]).await;
    has(&cluster.kubectl(&["describe", "node", "edge-1"]).await, &["only=me:NoSchedule"]);
    cluster.kubectl(&["get", "events,leases,pv,pvc,csr,endpoints", "-A"]).await;
    cluster.stop().await;
    if minor >= 27 {
        let cluster = Cluster::start().await;
        assert_eq!(cluster.kubectl(&["create", "token", "default"]).await.trim().split('.').count(), 3);
        has(&cluster.kubectl(&["auth", "whoami"]).await, &["system:admin"]);
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_applies_three_ways() {
    let cluster = Cluster::start().await;
    has(&cluster.feed(&["apply", "-f", "-"], POD).await, &["pod/web created"]);
    has(&cluster.feed(&["apply", "-f", "-"], POD).await, &["pod/web unchanged"]);
    let newer = POD.replace("busybox:1", "busybox:2").replace("labels: {app: web}", "labels: {tier: front}");
    has(&cluster.feed(&["apply", "-f", "-"], &newer).await, &["pod/web configured"]);
    let labels = cluster.kubectl(&["get", "pod", "web", "-o", "jsonpath={.metadata.labels}"]).await;
    has(&labels, &["front"]);
    assert!(!labels.contains("app"), "{labels}");
    let images = "jsonpath={.spec.containers[*].image}";
    assert_eq!(cluster.kubectl(&["get", "pod", "web", "-o", images]).await, "busybox:2 side:1");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '1', b: '2'}\n";
    cluster.feed(&["apply", "-f", "-"], map).await;
    cluster.feed(&["apply", "-f", "-"], &map.replace("a: '1', b: '2'", "a: '3'")).await;
    assert_eq!(cluster.kubectl(&["get", "cm", "m", "-o", "jsonpath={.data}"]).await, r#"{"a":"3"}"#);
    has(&cluster.feed(&["apply", "--dry-run=server", "-f", "-"], map).await, &["configured (server dry run)"]);
    assert_eq!(cluster.kubectl(&["get", "cm", "m", "-o", "jsonpath={.data}"]).await, r#"{"a":"3"}"#);
    cluster.feed(&["delete", "-f", "-"], map).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_applies_on_the_server() {
    let cluster = Cluster::start().await;
    let apply = ["apply", "--server-side", "-f", "-"];
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '1', b: '2'}\n";
    has(&cluster.feed(&apply, map).await, &["configmap/m serverside-applied"]);
    cluster.feed(&apply, &map.replace(", b: '2'", "")).await;
    assert_eq!(cluster.kubectl(&["get", "cm", "m", "-o", "jsonpath={.data}"]).await, r#"{"a":"1"}"#);
    let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let theirs = map.replace("a: '1', b: '2'", "a: '9'");
    has(&cluster.refused(&other, &theirs).await, &["conflict with \"kubectl\"", ".data.a"]);
    let force = ["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"];
    cluster.feed(&force, &theirs).await;
    assert_eq!(cluster.kubectl(&["get", "cm", "m", "-o", "jsonpath={.data}"]).await, r#"{"a":"9"}"#);
    cluster.feed(&apply, POD).await;
    cluster
        .feed(&apply, &POD.replace("labels: {app: web}", "labels: {x: why}").replace("busybox:1", "busybox:3"))
        .await;
    let shown =
        cluster.kubectl(&["get", "pod", "web", "-o", "jsonpath={.spec.containers[*].image} {.metadata.labels}"]).await;
    assert_eq!(shown, r#"busybox:3 side:1 {"x":"why"}"#);
    // What was applied by the client goes over to the server.
    cluster.feed(&["apply", "-f", "-"], &map.replace("name: m", "name: second")).await;
    cluster
        .feed(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            &map.replace("name: m", "name: second").replace("'1'", "'5'"),
        )
        .await;
    assert_eq!(cluster.kubectl(&["get", "cm", "second", "-o", "jsonpath={.data.a}"]).await, "5");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_edits_patches_and_labels() {
    let cluster = Cluster::start().await;
    cluster.feed(&["create", "-f", "-"], POD).await;
    let edit = |from: &str, to: &str, what: &[&str]| {
        let mut command = cluster.command(&[&["edit"], what].concat());
        command.env("KUBE_EDITOR", format!("sed -i s/{from}/{to}/"));
        async move { timeout(PATIENCE, command.output()).await.expect("kubectl edit hangs").unwrap() }
    };
    let edited = edit("busybox:1", "busybox:7", &["pod", "web"]).await;
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    let image = ["get", "pod", "web", "-o", "jsonpath={.spec.containers[0].image}"];
    assert_eq!(cluster.kubectl(&image).await, "busybox:7");
    let strategic = r#"{"spec":{"containers":[{"name":"main","image":"busybox:8"}]}}"#;
    cluster.kubectl(&["patch", "pod", "web", "-p", strategic]).await;
    assert_eq!(cluster.kubectl(&image).await, "busybox:8");
    let json = r#"[{"op":"replace","path":"/spec/containers/0/image","value":"busybox:9"}]"#;
    cluster.kubectl(&["patch", "pod", "web", "--type=json", "-p", json]).await;
    assert_eq!(cluster.kubectl(&image).await, "busybox:9");
    cluster.kubectl(&["patch", "pod", "web", "--type=merge", "-p", r#"{"metadata":{"labels":{"m":"1"}}}"#]).await;
    cluster.kubectl(&["label", "pod", "web", "color=red", "app-"]).await;
    cluster.kubectl(&["annotate", "pod", "web", "note=hello"]).await;
    has(&cluster.kubectl(&["get", "pods", "--show-labels"]).await, &["color=red,m=1"]);
    has(&cluster.kubectl(&["set", "image", "pod/web", "main=busybox:10"]).await, &["image updated"]);
    has(&cluster.refused(&["label", "pod", "web", "color=blue"], "").await, &["already has a value"]);
    has(
        &cluster.refused(&["patch", "pod", "web", "-p", r#"{"spec":{"nodeName":"other"}}"#], "").await,
        &["Forbidden: pod updates may not change fields"],
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_watches_and_waits() {
    let cluster = Cluster::start().await;
    cluster.feed(&["create", "-f", "-"], POD).await;
    let mut watch = cluster.spawn(&["get", "pods", "-w", "--no-headers"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    has(&line, &["web", "Pending"]);
    let waiter = {
        let mut command = cluster.command(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
        tokio::spawn(async move { command.output().await.unwrap() })
    };
    let status = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    let path = "/api/v1/namespaces/default/pods/web/status";
    let changed = crate::raw::call(&cluster.api, "PATCH", path, "application/merge-patch+json", status).await;
    assert_eq!(changed.status, StatusCode::OK);
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    has(&line, &["web", "Running"]);
    let waited = timeout(PATIENCE, waiter).await.unwrap().unwrap();
    has(&String::from_utf8(waited.stdout).unwrap(), &["pod/web condition met"]);
    // The node does not answer, so the delete waits until somebody removes the pod.
    let deleter = {
        let mut command = cluster.command(&["delete", "pod", "web", "--wait"]);
        tokio::spawn(async move { command.output().await.unwrap() })
    };
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    has(&line, &["web", "Terminating"]);
    let path = "/api/v1/namespaces/default/pods/web?gracePeriodSeconds=0";
    assert_eq!(crate::raw::call(&cluster.api, "DELETE", path, "", "").await.status, StatusCode::OK);
    let deleted = timeout(PATIENCE, deleter).await.unwrap().unwrap();
    assert!(deleted.status.success());
    // Watches do not keep the server from stopping.
    cluster.stop().await;
}

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boilers.heat.example.com}
spec:
  group: heat.example.com
  scope: Namespaced
  names: {plural: boilers, singular: boiler, kind: Boiler, shortNames: [bo]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: Power, type: integer, jsonPath: .spec.power}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        description: A boiler heats water.
        properties:
          spec:
            type: object
            properties:
              power: {type: integer, maximum: 100, description: How hot it gets.}
              tags: {type: array, items: {type: string}}
";

const BOILER: &str =
    "apiVersion: heat.example.com/v1\nkind: Boiler\nmetadata: {name: one}\nspec: {power: 5, tags: [a, b]}\n";

#[tokio::test(flavor = "multi_thread")]
async fn it_defines_and_uses_custom_resources() {
    let cluster = Cluster::start().await;
    let minor = cluster.minor_version().await;
    cluster.feed(&["apply", "-f", "-"], DEFINITION).await;
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/boilers.heat.example.com", "--timeout=10s"]).await;
    has(&cluster.kubectl(&["get", "crd"]).await, &["boilers.heat.example.com"]);
    has(&cluster.feed(&["apply", "-f", "-"], BOILER).await, &["boiler.heat.example.com/one created"]);
    has(&cluster.kubectl(&["get", "bo"]).await, &["NAME", "POWER", "AGE", "one    5"]);
    let newer = BOILER.replace("power: 5, tags: [a, b]", "power: 6");
    has(&cluster.feed(&["apply", "-f", "-"], &newer).await, &["configured"]);
    assert_eq!(cluster.kubectl(&["get", "boiler", "one", "-o", "jsonpath={.spec}"]).await, r#"{"power":6}"#);
    cluster.kubectl(&["patch", "boiler", "one", "--type=merge", "-p", r#"{"spec":{"power":7}}"#]).await;
    has(&cluster.kubectl(&["describe", "boiler", "one"]).await, &["Power:", "7"]);
    let much = BOILER.replace("power: 5", "power: 500");
    has(&cluster.refused(&["apply", "-f", "-"], &much).await, &["spec.power", "500", "less than or equal to 100"]);
    cluster
        .feed(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &BOILER.replace("power: 5", "power: 8"))
        .await;
    assert_eq!(cluster.kubectl(&["get", "boiler", "one", "-o", "jsonpath={.spec.power}"]).await, "8");
    if minor >= 27 {
        let odd = BOILER.replace("power: 5", "power: 5, bogus: 1");
        has(
            &cluster.refused(&["apply", "-f", "-"], &odd).await,
            &["strict decoding error", "unknown field \"spec.bogus\""],
        );
        has(&cluster.kubectl(&["explain", "boiler.spec.power"]).await, &["How hot it gets."]);
        has(&cluster.kubectl(&["explain", "pod.spec.containers"]).await, &["image", "<string>"]);
    }
    cluster.kubectl(&["delete", "boiler", "one"]).await;
    cluster.kubectl(&["delete", "crd", "boilers.heat.example.com", "--wait"]).await;
    has(&cluster.refused(&["get", "boilers"], "").await, &["the server"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_and_the_right_authority_let_in() {
    let cluster = Cluster::start().await;
    let write = |name: &str, ca: &str, token: &str| {
        let path = cluster.path(name);
        write_kubeconfig(&path, &cluster.url, ca, token).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let stranger = write("stranger", cluster.tls.ca_pem(), "guess");
    let refused = cluster.refused(&["--kubeconfig", &stranger, "get", "pods"], "").await;
    assert!(refused.contains("Unauthorized") || refused.contains("must be logged in"), "{refused}");
    let other = ServingTls::ephemeral(&["127.0.0.1".to_owned()]).unwrap();
    let fooled = write("fooled", other.ca_pem(), cluster.api.admin_token());
    has(
        &cluster.refused(&["--kubeconfig", &fooled, "get", "pods"], "").await,
        &["certificate signed by unknown authority"],
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_clients_connect_by_the_same_file() {
    let cluster = Cluster::start().await;
    let config = kube::config::Kubeconfig::read_from(Path::new(&cluster.path("config"))).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(client.clone());
    assert!(nodes.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    cluster.stop().await;
}

/// Real sockets, and a clock that the test moves.
#[tokio::test(flavor = "current_thread")]
async fn strangers_do_not_keep_their_places() {
    let cluster = Cluster::start().await;
    let mut roots = rustls::RootCertStore::empty();
    let ca = pem::parse(cluster.tls.ca_pem()).unwrap();
    roots.add(ca.into_contents().into()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let address = cluster.url.trim_start_matches("https://").to_owned();
    let connect = async || {
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
    };
    let request = |path: &str, token: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let silent = connect().await;
    let (mut wrong, mut healthy, mut known) = (connect().await, connect().await, connect().await);
    for (stream, path, token, status) in [
        (&mut wrong, "/version", "wrong", "401"),
        (&mut healthy, "/healthz", "", "200"),
        (&mut known, "/api/v1/pods?watch=true", cluster.api.admin_token(), "200"),
    ] {
        stream.write_all(request(path, token).as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head[9..], status.as_bytes());
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    for mut stream in [silent, wrong, healthy] {
        // Whatever is left of the answer, and then the end, with or without a goodbye of TLS.
        let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "a stranger is still connected");
    }
    // Whoever is known stays.
    assert_eq!(
        crate::raw::post(&cluster.api, "/api/v1/namespaces/default/pods", &crate::pod("late")).await.status,
        201
    );
    let mut seen = Vec::new();
    while !seen.windows(4).any(|bytes| bytes == b"late") {
        seen.push(timeout(PATIENCE, known.read_u8()).await.unwrap().unwrap());
    }
    cluster.stop.cancel();
    cluster.server.await.unwrap().unwrap();
}
