//! A cloud from `cloudcore.yaml`, with an API of its own.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, config::Kubeconfig};
use kubeedge_cloud::{
    cloud::{CloudCore, CloudCoreError},
    config::CloudCoreConfig,
};

use crate::support::{Edge, SOON};

fn yaml(folder: &std::path::Path) -> String {
    let dir = folder.display();
    format!(
        "
embeddedAPI:
  enable: true
  port: 0
  dataSource: {dir}/cloud/api.db
  kubeconfig: {dir}/kubeconfig
modules:
  cloudHub:
    advertiseAddress: [127.0.0.1]
    tlsCAFile: {dir}/none
    tlsCAKeyFile: {dir}/none.key
    tlsCertFile: {dir}/none.crt
    tlsPrivateKeyFile: {dir}/none.crt.key
    websocket: {{address: 127.0.0.1, port: 0}}
    https: {{address: 127.0.0.1, port: 0}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_with_an_api_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (config, unused) = CloudCoreConfig::parse(&yaml(folder.path()), "cloudcore.yaml").unwrap();
    assert_eq!(unused, []);
    let cloud = CloudCore::from_config(&config).spawn().await.unwrap();
    assert_ne!(cloud.websocket_addr().port(), 0);
    assert_ne!(cloud.https_addr(), cloud.websocket_addr());
    assert!(cloud.api_url().unwrap().starts_with("https://127.0.0.1:"));

    let kubeconfig = Kubeconfig::read_from(cloud.kubeconfig().unwrap()).unwrap();
    let access =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await.unwrap();
    let client = kube::Client::try_from(access).unwrap();
    let secrets: Api<Secret> = Api::namespaced(client, "kubeedge");
    let token = secrets.get("tokensecret").await.unwrap().data.unwrap()["tokendata"].0.clone();
    assert_eq!(String::from_utf8(token).unwrap(), cloud.join_token().as_str());

    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let answer = edge.ask_as("metamanager", "meta", "query", "k8s/ca.crt", serde_json::Value::Null).await;
    assert!(answer["content"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(answer["route"]["source"], "cloudhub");
    drop(edge);

    let started = std::time::Instant::now();
    cloud.shutdown(SOON).await;
    assert!(started.elapsed() < std::time::Duration::from_secs(3), "took {:?}", started.elapsed());
    // All of it is free again: the database, and the ports.
    let cloud = CloudCore::from_config(&config).spawn().await.unwrap();
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = yaml(folder.path()).replace(
        "websocket: {address: 127.0.0.1, port: 0}",
        &format!("websocket: {{address: 127.0.0.1, port: {}}}", address.port()),
    );
    let (config, _) = CloudCoreConfig::parse(&text, "cloudcore.yaml").unwrap();
    let err = CloudCore::from_config(&config).spawn().await.unwrap_err();
    assert!(matches!(err, CloudCoreError::Bind { .. }));
    assert_eq!(err.to_string(), format!("cannot listen on {address} for the WebSocket of CloudHub"));
}
