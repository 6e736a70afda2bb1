#![allow(clippy::unwrap_used)]
use super::*;

fn parse(text: &str) -> Result<(CloudCoreConfig, Vec<ConfigWarning>), ConfigError> {
    CloudCoreConfig::parse(text, "cloudcore.yaml")
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn what_is_missing_has_the_defaults_of_upstream() {
    let (config, unused) = parse("").unwrap();
    let hub = &config.modules.cloud_hub;
    assert_eq!((hub.websocket.port, hub.https.port, hub.node_limit, hub.keepalive_interval), (10000, 10002, 500, 30));
    assert!(config.modules.sync_controller.enable && !config.embedded_api.enable);
    assert_eq!(unused, []);
    let (other, _) = parse("modules:\n  cloudHub:\n    https: {port: 0}\n").unwrap();
    assert_eq!((other.modules.cloud_hub.https.port, other.modules.cloud_hub.https.address.as_str()), (0, "0.0.0.0"));
}

#[test]
fn keys_may_be_written_in_any_case_and_the_unused_are_named() {
    let text = "
apiVersion: cloudcore.config.kubeedge.io/v1alpha1
kind: CloudCore
KubeApiConfig: {qps: 100}
embeddedapi: {Enable: true, DATASOURCE: /tmp/a.db}
modules:
  CloudHub:
    NodeLimit: 7
    tlscafile: /a
    quic: {enable: false, maxIncomingStreams: 10000}
  router: {enable: false}
  cloudhubb: {enable: true}
";
    let (config, warnings) = parse(text).unwrap();
    assert_eq!(config.modules.cloud_hub.node_limit, 7);
    assert_eq!(config.modules.cloud_hub.tls_ca_file, Path::new("/a"));
    assert!(config.embedded_api.enable);
    let mut told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    told.sort();
    assert_eq!(
        told,
        [
            "kubeAPIConfig.qps has no effect here",
            "modules.cloudHub.quic.maxIncomingStreams has no effect here",
            "modules.cloudhubb is not a known key",
            "modules.router has no effect here",
        ]
    );
}

#[test]
fn errors_tell_the_place() {
    assert_eq!(error("modules:\n  cloudHub: [\n"), "cloudcore.yaml:2:13: unclosed bracket '['");
    let text = error("modules:\n  cloudHub: {}\n  cloudHub: {}\n");
    assert!(text.starts_with("cloudcore.yaml:3:3: duplicate mapping key"), "{text}");
    let err = CloudCoreConfig::load("/nonexistent/cloudcore.yaml").unwrap_err();
    assert_eq!(err.to_string(), "cannot read /nonexistent/cloudcore.yaml");
}

#[test]
fn errors_tell_the_key_and_the_value() {
    let hub = |text: &str| error(&format!("modules:\n  cloudHub:\n    {text}\n"));
    for (text, expected) in [
        ("nodeLimit: many", r#"modules.cloudHub.nodeLimit is "many": it must be a whole number of 0 or more"#),
        ("nodeLimit: 0", "modules.cloudHub.nodeLimit is 0: it must be greater than 0"),
        (
            "websocket: {port: abc}",
            r#"modules.cloudHub.websocket.port is "abc": it must be a whole number of 0 or more"#,
        ),
        ("https: {port: 70000}", "modules.cloudHub.https.port is 70000: it must be at most 65535"),
        ("enable: false", "modules.cloudHub.enable is false: it must be true: nodes have nowhere to connect"),
        (
            "websocket: {address: localhost}",
            r#"modules.cloudHub.websocket.address is "localhost": it must be an IP address"#,
        ),
        ("advertiseAddress: 10.0.0.1", r#"modules.cloudHub.advertiseAddress is "10.0.0.1": it must be a list of text"#),
        ("advertiseAddress: [10.0.0.1, 7]", "modules.cloudHub.advertiseAddress[1] is 7: it must be text"),
        ("advertiseAddress: [10.0.0.1, x]", r#"modules.cloudHub.advertiseAddress is "x": it must be an IP address"#),
    ] {
        assert_eq!(hub(text), expected);
    }
    assert_eq!(error("embeddedAPI: {port: 65536}"), "embeddedAPI.port is 65536: it must be at most 65535");
    assert_eq!(
        error("kubeAPIConfig: {kubeConfig: config}"),
        r#"kubeAPIConfig.kubeConfig is "config": it must be an absolute path"#
    );
    assert_eq!(
        error("kubeAPIConfig: {kubeConfig: /nonexistent/config}"),
        r#"kubeAPIConfig.kubeConfig is "/nonexistent/config": there is no such file"#
    );
}

#[test]
fn writes_of_a_device_status_are_a_second_apart_unless_told_otherwise() {
    let interval = |text: &str| {
        let (config, warnings) = parse(text).unwrap();
        assert_eq!(warnings, []);
        config.modules.device_controller.status_interval
    };
    assert_eq!(interval(""), 1000);
    assert_eq!(interval("modules: {deviceController: {statusInterval: 0}}"), 0);
    let text = error("modules: {deviceController: {statusInterval: 1s}}");
    assert_eq!(text, r#"modules.deviceController.statusInterval is "1s": it must be a whole number of 0 or more"#);
}

#[test]
fn the_ledger_is_one_of_two() {
    let sync = |embedded: bool, text: &str| {
        parse(&format!("embeddedAPI: {{enable: {embedded}}}\nmodules:\n  syncController: {text}\n"))
    };
    let (config, warnings) = sync(true, "{ledger: sqlite, ledgerDataSource: /tmp/l.db, nodeleases: false}").unwrap();
    let read = &config.modules.sync_controller;
    assert_eq!((read.ledger.as_str(), read.ledger_data_source.as_path()), ("sqlite", Path::new("/tmp/l.db")));
    assert!(read.enable && !read.node_leases && warnings.is_empty());
    for (embedded, text, expected) in [
        (true, "{ledger: etcd}", r#"modules.syncController.ledger is "etcd": it must be crd or sqlite"#),
        (
            false,
            "{ledger: sqlite}",
            "modules.syncController.ledger is \"sqlite\": it needs embeddedAPI.enable: other clouds of a cluster would not \
             see the records",
        ),
        (
            true,
            "{ledger: sqlite, ledgerDataSource: /}",
            r#"modules.syncController.ledgerDataSource is "/": it must be the path of a file"#,
        ),
        (
            true,
            "{ledger: sqlite, ledgerDataSource: /var/lib/kubeedge/apiserver.db}",
            "modules.syncController.ledgerDataSource is \"/var/lib/kubeedge/apiserver.db\": it must not be that of \
             embeddedAPI",
        ),
    ] {
        assert_eq!(sync(embedded, text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn sections_left_empty_and_lists_are_as_upstream_has_them() {
    let (config, warnings) = parse("# nothing\nmodules:\n  cloudHub:\n  edgeController: {enable: }\n").unwrap();
    assert_eq!((config, warnings), (CloudCoreConfig::default(), Vec::new()));
    let (config, _) = parse("modules: {cloudHub: {advertiseAddress: [10.0.0.1, '::1'], dnsNames: []}}").unwrap();
    assert_eq!(config.modules.cloud_hub.advertise_address, ["10.0.0.1", "::1"]);
    assert_eq!(parse("# only a comment\n").unwrap().0, CloudCoreConfig::default());
}

#[test]
fn authorization_is_read_as_upstream_writes_it() {
    use crate::hub::Authorization;
    let level = |text: &str| {
        let (config, warnings) = parse(&format!("modules: {{cloudHub: {{authorization: {text}}}}}")).unwrap();
        assert_eq!(warnings, []);
        config.modules.cloud_hub.authorization.level()
    };
    assert_eq!(level("{}"), Authorization::Off);
    assert_eq!(level("{enable: false, debug: false, modes: []}"), Authorization::Off);
    assert_eq!(level("{enable: true}"), Authorization::LogOnly);
    assert_eq!(level("{enable: true, debug: true, modes: [{node: {enable: true}}]}"), Authorization::LogOnly);
    assert_eq!(level("{enable: true, debug: false, modes: [{node: {enable: true}}]}"), Authorization::Enforce);
    let text = error("modules: {cloudHub: {authorization: {enable: true, modes: [{node: {}}]}}}");
    let expected = r#"modules.cloudHub.authorization.modes is [{"node":{"enable":false}}]: one of them must be node with enable: true, as there is no other"#;
    assert_eq!(text, expected);
}
