#![allow(clippy::unwrap_used)]
use super::*;

const NATIVE: &str = "tailoredKubeletConfig: {containerRuntimeEndpoint: 'native://'}";

fn read(modules: &str) -> Result<(EdgeCoreConfig, Vec<ConfigWarning>), ConfigError> {
    EdgeCoreConfig::from_yaml(&format!("modules: {{edged: {{{NATIVE}}}, {modules}}}"))
}

fn error(modules: &str) -> String {
    read(modules).unwrap_err().to_string()
}

#[test]
fn missing_keys_have_the_defaults_of_upstream() {
    let (config, warnings) = read("").unwrap();
    assert!(warnings.is_empty());
    let hub = &config.modules.edge_hub;
    assert_eq!((hub.heartbeat, hub.message_qps, hub.message_burst), (15, 30, 60));
    assert_eq!(hub.project_id, "e632aba927ea4ac2b575ec1603d56f10");
    assert_eq!(hub.tls_cert_file, "/etc/kubeedge/certs/server.crt");
    assert_eq!(config.database.data_source, "/var/lib/kubeedge/edgecore.db");
    assert_eq!(config.modules.event_bus.mqtt_mode, 2);
    assert_eq!(config.modules.edged.kubelet.max_pods, 110);
}

/// What `edgecore --defaultconfig` of upstream prints, cut to one key of each kind, and edited as operators do.
#[test]
fn a_file_of_upstream_is_read_and_what_has_no_effect_is_told() {
    let text = "
apiVersion: edgecore.config.kubeedge.io/v1alpha2
kind: EdgeCore
database: {aliasName: default, DataSource: /tmp/edge.db, driverName: sqlite3}
featureGates: {requireAuthorization: true}
modules:
  dbTest: {enable: false}
  devicetwin: {enable: true, dmiSockPath: /run/dmi/}
  edgeHub:
    enable: true
    heartbeat: 20
    messageQPS: 0
    quic: {enable: false, server: '127.0.0.1:10001'}
    token: ''
    webSocket: {enable: true, server: 'cloud:10000', readDeadline: 15, writeDeadLine: 7}
  edgeStream: {enable: false, server: '127.0.0.1:10004'}
  edged:
    hostnameOverride: gw-1
    nodeLabels: {site: roof, empty: }
    reportEvent: false
    hostNameOveride: gw-2
    tailoredKubeletConfig:
      containerRuntimeEndpoint: native://
      evictionHard: {memory.available: 100Mi}
      nodeStatusUpdateFrequency: 30s
  eventBus: {eventBusTLS: {enable: false, tlsMqttCAFile: /ca}, mqttQOS: 1}
  metaManager: {metaServer: {enable: false}, remoteQueryTimeout: 5}
  serviceBus:
  taskManager: {enable: false}
  edgeHubb: {enable: true}
";
    let (config, warnings) = EdgeCoreConfig::from_yaml(text).unwrap();
    assert_eq!(config.database.data_source, "/tmp/edge.db", "keys are found in any case");
    assert_eq!(config.modules.edge_hub.websocket.server, "cloud:10000");
    assert_eq!(config.modules.edge_hub.websocket.write_deadline, 7);
    assert_eq!((config.modules.edge_hub.heartbeat, config.modules.edge_hub.message_qps), (20, 0));
    assert_eq!((config.modules.event_bus.tls.ca_file.as_str(), config.modules.event_bus.mqtt_qos), ("/ca", 1));
    assert_eq!(config.modules.device_twin.dmi_sock_path, "/run/dmi/");
    assert_eq!(config.modules.meta_manager.remote_query_timeout, 5);
    assert_eq!(config.modules.edged.node_labels.len(), 2);
    assert_eq!(config.modules.edged.kubelet.node_status_update_frequency, "30s");
    let mut told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    told.sort();
    assert_eq!(
        told,
        [
            "database.aliasName has no effect here",
            "featureGates has no effect here",
            "modules.dbTest has no effect here",
            "modules.edgeHub.websocket.readDeadline has no effect here",
            "modules.edgeHubb is not a known key",
            "modules.edgeStream has no effect here",
            "modules.edged.hostNameOveride is not a known key",
            "modules.edged.reportEvent has no effect here",
            "modules.edged.tailoredKubeletConfig.evictionHard has no effect here",
            "modules.metaManager.metaServer has no effect here",
            "modules.serviceBus has no effect here",
            "modules.taskManager has no effect here",
        ]
    );
}

#[test]
fn wrong_values_are_named_with_their_keys() {
    for (modules, expected) in [
        ("edgeHub: 7", "modules.edgeHub is 7: it must be a section"),
        ("edgeHub: {heartbeat: 12s}", "modules.edgeHub.heartbeat is \"12s\": it must be a whole number of 0 or more"),
        ("edgeHub: {heartbeat: -1}", "modules.edgeHub.heartbeat is -1: it must be a whole number of 0 or more"),
        ("edgeHub: {heartbeat: 0}", "modules.edgeHub.heartbeat is 0: it must be 1 s or more"),
        ("edgeHub: {enable: 'yes'}", "modules.edgeHub.enable is \"yes\": it must be true or false"),
        ("edgeHub: {token: [1]}", "modules.edgeHub.token is [1]: it must be text"),
        ("edgeHub: {projectID: a/b}", "modules.edgeHub.projectID is \"a/b\": it must be one segment of a path"),
        (
            "eventBus: {mqttMode: 3}",
            "modules.eventBus.mqttMode is 3: it must be 0 (internal), 1 (both) or 2 (external)",
        ),
    ] {
        assert_eq!(error(modules), expected);
    }
    assert!(error("edgeHub: {quic: {enable: true}}").starts_with("modules.edgeHub.quic.enable is true:"));
    assert!(error("edgeHub: {websocket: {enable: false}}").starts_with("modules.edgeHub.quic.enable is false:"));
    let quic = "modules:\n  edged: {enable: false}\n  edgeHub: {websocket: {enable: false}, quic: {enable: true, server: 'cloud:10001'}}\n";
    let quic = EdgeCoreConfig::from_yaml(quic);
    assert_eq!(quic.is_ok(), cfg!(feature = "quic"));
    let yaml = |text: &str| EdgeCoreConfig::from_yaml(text).unwrap_err().to_string();
    assert_eq!(yaml("modules:\n  edged: [\n"), "edgecore.yaml:2:10: unclosed bracket '['");
    assert_eq!(yaml("- a"), "the file is [\"a\"]: a file of sections is needed");
}

#[test]
fn a_container_engine_is_refused_with_a_way_out() {
    let error = EdgeCoreConfig::from_yaml("").unwrap_err().to_string();
    assert!(
        error.starts_with(
            "modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint is \
             \"unix:///run/containerd/containerd.sock\": this version has only the process runtime"
        ),
        "{error}"
    );
    assert!(EdgeCoreConfig::from_yaml("modules: {edged: {enable: false}}").is_ok());
}

#[test]
fn the_file_is_named() {
    let error = EdgeCoreConfig::load("/nonexistent/edgecore.yaml").unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nonexistent/edgecore.yaml");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.yaml");
    std::fs::write(&path, "\nmodules: [\n").unwrap();
    let error = EdgeCoreConfig::load(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{}:2:10: unclosed bracket '['", path.display()));
}
