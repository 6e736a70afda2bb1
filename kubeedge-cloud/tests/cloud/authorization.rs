//! Upstream's authorization switched on: in whose name calls are made, and what is refused.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::Request;
use kube::{Client, client::Body};
use kubeedge_cloud::hub::{Authorization, Destination, FromNode};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use crate::support::{Credentials, Edge, SOON, Site, builder, create, pod};

/// A call of the API: method, path, and the user and the group in whose name it is made.
type Call = (String, String, Option<(String, String)>);

/// A client of the same API that keeps what is asked of it.
fn recording(client: Client) -> (Client, Arc<Mutex<Vec<Call>>>) {
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let kept = calls.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let who = header("impersonate-user").zip(header("impersonate-group"));
        kept.lock().unwrap().push((request.method().to_string(), request.uri().path().to_owned(), who));
        let client = client.clone();
        async move { client.send(request).await }
    });
    (Client::new(service, "default"), calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_asks_for_is_done_in_its_name_when_authorization_is_enforced() {
    let site = Site::new().await;
    let (client, calls) = recording(site.client.clone());
    let cloud = builder(client).authorization(Authorization::Enforce).spawn().await.unwrap();
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.compared().await;
    let labels = json!({ "kubernetes.io/hostname": "edge-1", "node-role.kubernetes.io/edge": "", "zone": "a" });
    let answer = edge.ask("insert", "null/node/edge-1", json!({ "metadata": { "labels": labels } })).await;
    assert_eq!(answer["content"]["Err"], Value::Null);
    assert_eq!(answer["content"]["Object"]["metadata"]["labels"], labels, "the role is written by the cloud");
    let made = create(&site.pods(), pod("web", "edge-1", &[])).await;
    edge.got("default/pod/web").await;
    let patch = json!({ "metadata": { "uid": made.metadata.uid }, "status": { "phase": "Running" } });
    let answer = edge.ask("patch", "default/podpatch/web", json!(patch.to_string())).await;
    assert_eq!(answer["content"]["Err"], Value::Null);

    let as_node = Some(("system:node:edge-1".to_owned(), "system:nodes".to_owned()));
    let who = |method: &str, path: &str| {
        let calls = calls.lock().unwrap();
        let of: Vec<_> =
            calls.iter().filter(|call| call.0 == method && call.1 == path).map(|call| call.2.clone()).collect();
        of
    };
    for (method, path) in [("POST", "/api/v1/nodes"), ("PATCH", "/api/v1/namespaces/default/pods/web/status")] {
        assert_eq!(who(method, path), std::slice::from_ref(&as_node), "{method} {path}");
    }
    let patches = who("PATCH", "/api/v1/nodes/edge-1");
    assert!(!patches.is_empty() && patches.iter().all(Option::is_none), "{patches:?}");

    let answer = edge.ask("query", "default/service/kubernetes", Value::Null).await;
    let status = &answer["content"]["Err"]["ErrStatus"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(403), &json!("Forbidden")));
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn otherwise_calls_are_made_in_the_name_of_the_cloud() {
    let site = Site::new().await;
    for authorization in [Authorization::Off, Authorization::LogOnly] {
        let (client, calls) = recording(site.client.clone());
        let cloud = builder(client).authorization(authorization).spawn().await.unwrap();
        let mut edge = Edge::connect(&cloud, "edge-1").await;
        edge.compared().await;
        edge.ask("insert", "null/node/edge-1", json!({ "metadata": {} })).await;
        let all = calls.lock().unwrap().clone();
        assert!(all.iter().any(|call| call.0 == "POST" && call.1 == "/api/v1/nodes"));
        assert!(all.iter().all(|call| call.2.is_none()), "{authorization:?}: {all:?}");
        cloud.shutdown(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_node_tasks_reach_the_part_that_takes_them() {
    let site = Site::new().await;
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = taken.clone();
    let part = tower::service_fn(move |from: FromNode| {
        kept.lock().unwrap().push(format!("{} {}", from.message.operation, from.message.resource));
        std::future::ready(Ok::<_, Infallible>(None))
    });
    let cloud = site.builder().route(Destination::Tasks, part).spawn().await.unwrap();
    let credentials = Credentials::of(&cloud.client(), "edge-1").await;
    let stream = TcpStream::connect(cloud.https_addr()).await.unwrap();
    let name = ServerName::from(cloud.https_addr().ip());
    let mut stream = TlsConnector::from(credentials.tls()).connect(name, stream).await.unwrap();
    let body = r#"{"NodeName":"edge-1","State":"Upgrading","Event":"Upgrade","Action":"Success"}"#;
    let head = "POST /task/upgrade/name/job-1/node/edge-1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _end = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(*taken.lock().unwrap(), ["upgrade task/job-1/node/edge-1"]);
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_of_one_address_do_not_keep_nodes_out() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let mut flood = Vec::new();
    for _ in 0..700 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        flood.push(socket.connect(cloud.websocket_addr()).await.unwrap());
    }
    let begin = std::time::Instant::now();
    for name in ["edge-1", "edge-2", "edge-3"] {
        let mut edge = Edge::connect(&cloud, name).await;
        edge.compared().await;
    }
    assert!(begin.elapsed() < SOON / 2, "nobody waited for the flood to time out: {:?}", begin.elapsed());
    drop(flood);
    cloud.shutdown(SOON).await;
}
