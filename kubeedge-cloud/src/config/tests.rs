#![allow(clippy::unwrap_used)]
use super::*;

fn parse(text: &str) -> Result<(CloudCoreConfig, Vec<String>), ConfigError> {
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
    assert_eq!(unused, Vec::<String>::new());
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
    quic: {enable: false}
  router: {enable: false}
";
    let (config, mut unused) = parse(text).unwrap();
    assert_eq!(config.modules.cloud_hub.node_limit, 7);
    assert_eq!(config.modules.cloud_hub.tls_ca_file, Path::new("/a"));
    assert!(config.embedded_api.enable);
    unused.sort();
    assert_eq!(unused, ["kubeAPIConfig.qps", "modules.cloudHub.quic", "modules.router"]);
}

#[test]
fn errors_tell_the_place() {
    let text = "modules:\n  cloudHub:\n    nodeLimit: many\n";
    assert!(error(text).starts_with("cloudcore.yaml:3: "), "{}", error(text));
    assert!(error("modules:\n  cloudHub: [\n").starts_with("cloudcore.yaml:"), "{}", error("modules: [\n"));
    let err = CloudCoreConfig::load("/nonexistent/cloudcore.yaml").unwrap_err();
    assert_eq!(err.to_string(), "cannot read /nonexistent/cloudcore.yaml");
}

#[test]
fn errors_tell_the_key_and_the_value() {
    let hub = |text: &str| error(&format!("modules:\n  cloudHub:\n    {text}\n"));
    assert_eq!(hub("nodeLimit: 0"), r#"modules.cloudHub.nodeLimit: "0" must be greater than 0"#);
    assert_eq!(
        hub("websocket: {address: localhost}"),
        r#"modules.cloudHub.websocket.address: "localhost" must be an IP address"#
    );
    assert_eq!(
        hub("advertiseAddress: [10.0.0.1, x]"),
        r#"modules.cloudHub.advertiseAddress: "x" must be an IP address"#
    );
    assert_eq!(
        error("kubeAPIConfig: {kubeConfig: config}"),
        r#"kubeAPIConfig.kubeConfig: "config" must be an absolute path"#
    );
}
