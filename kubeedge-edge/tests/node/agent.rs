//! The agent that a configuration describes.

use std::{path::Path, time::Duration};

use futures_util::StreamExt as _;
use kubeedge_core::{
    bus::{Event, Overflow},
    topic::{Topic, TopicFilter},
    wire::json,
    words::{Operation, Source},
};
use kubeedge_edge::{
    bus::BrokerError,
    config::{EdgeCore, EdgeCoreConfig, StartError},
};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::server::{Authority, Server, within};

fn config(folder: &Path, bus: &str) -> EdgeCoreConfig {
    config_for("127.0.0.1:1", folder, bus)
}

fn config_for(server: &str, folder: &Path, bus: &str) -> EdgeCoreConfig {
    let dir = folder.display();
    let text = format!(
        "database: {{dataSource: {dir}/db/edge.db}}
modules:
  edgeHub:
    httpServer: https://127.0.0.1:1
    websocket: {{server: '{server}'}}
    tlsCaFile: {dir}/ca.crt
    tlsCertFile: {dir}/edge.crt
    tlsPrivateKeyFile: {dir}/edge.key
  eventBus: {bus}
  deviceTwin: {{dmiSockPath: {dir}}}
  edged:
    hostnameOverride: edge-1
    rootDirectory: {dir}/kubelet
    tailoredKubeletConfig: {{containerRuntimeEndpoint: 'native://', podLogsDir: {dir}/pods}}
"
    );
    EdgeCoreConfig::from_yaml(&text).unwrap().0
}

#[tokio::test]
async fn an_agent_without_certificate_and_cloud_serves_its_node() {
    let folder = TempDir::new().unwrap();
    let config = config(folder.path(), "{mqttMode: 0, mqttServerInternal: 'tcp://127.0.0.1:0'}");
    // The second start finds what the first has left.
    for _ in 0..2 {
        let agent = EdgeCore::from_config(&config).unwrap().token_file(None).start().await.unwrap();
        assert_eq!(agent.node().name().as_str(), "edge-1");
        assert!(agent.mqtt_addr().is_some() && agent.node().pods().is_some());
        let bus = agent.node().bus().unwrap();
        let mut heard = bus.subscribe(TopicFilter::new("a/b").unwrap(), Overflow::DropOldest).await.unwrap();
        bus.publish(Event::new(Topic::new("a/b").unwrap(), "x")).await.unwrap();
        within(heard.next()).await.unwrap();
        within(agent.shutdown(Duration::from_secs(10))).await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_with_a_certificate_connects_at_once() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new();
    authority.write_files("edge-1", folder.path());
    let server = Server::new(authority.acceptor("127.0.0.1")).await;
    let config =
        config_for(&server.addr().to_string(), folder.path(), "{mqttMode: 0, mqttServerInternal: 'tcp://127.0.0.1:0'}");
    let agent = EdgeCore::from_config(&config).unwrap().token_file(None).start().await.unwrap();
    let (mut socket, _) = server.accept().await;
    let first = within(socket.next()).await.unwrap().unwrap();
    let first = json::decode(first.to_text().unwrap()).unwrap();
    assert_eq!(first.operation, Operation::Keepalive);
    within(agent.node().link_state().wait_for(|state| state.is_connected())).await.unwrap();
    // The node registers itself over the link.
    let request = loop {
        let frame = within(socket.next()).await.unwrap().unwrap();
        let message = json::decode(frame.to_text().unwrap()).unwrap();
        if message.operation != Operation::Keepalive {
            break message;
        }
    };
    assert_eq!(request.source, Source::Edged);
    within(agent.shutdown(Duration::from_secs(10))).await.unwrap();
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    within(rest).await;
}

#[tokio::test]
async fn an_external_broker_that_is_away_stops_nobody() {
    let folder = TempDir::new().unwrap();
    for mode in [1, 2] {
        let bus = format!(
            "{{mqttMode: {mode}, mqttServerInternal: 'tcp://127.0.0.1:0', mqttServerExternal: 'tcp://127.0.0.1:1'}}"
        );
        let agent =
            EdgeCore::from_config(&config(folder.path(), &bus)).unwrap().token_file(None).start().await.unwrap();
        if mode == 1 {
            let bus = agent.node().bus().unwrap();
            let mut heard = bus.subscribe(TopicFilter::new("a/b").unwrap(), Overflow::DropOldest).await.unwrap();
            let event =
                Event { qos: kubeedge_core::bus::Qos::AtMostOnce, ..Event::new(Topic::new("a/b").unwrap(), "x") };
            let (published, heard) = tokio::join!(bus.publish(event), within(heard.next()));
            published.unwrap();
            heard.unwrap();
        }
        within(agent.shutdown(Duration::from_secs(10))).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_told() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bus = format!("{{mqttMode: 0, mqttServerInternal: 'tcp://{}'}}", taken.local_addr().unwrap());
    let refused = EdgeCore::from_config(&config(folder.path(), &bus)).unwrap().start().await.unwrap_err();
    assert!(matches!(refused, StartError::Broker(_)), "{refused:?}");

    let mut config = config(folder.path(), "{enable: false}");
    config.modules.edge_hub.http_server = "http://cloud".into();
    let refused = EdgeCore::from_config(&config).unwrap().start().await.unwrap_err();
    assert!(matches!(refused, StartError::Certificates(_)), "{refused:?}");
}

#[tokio::test]
async fn the_broker_of_the_agent_is_for_this_machine_unless_there_is_a_password() {
    let folder = TempDir::new().unwrap();
    let open = config(folder.path(), "{mqttMode: 0, mqttServerInternal: 'tcp://0.0.0.0:0'}");
    let refused = EdgeCore::from_config(&open).unwrap().token_file(None).start().await;
    assert!(matches!(refused.unwrap_err(), StartError::Broker(BrokerError::Exposed(_))));
    let default = EdgeCoreConfig::default().modules.event_bus.mqtt_server_internal;
    assert!(default.starts_with("tcp://127.0.0.1:"), "{default}");
}
