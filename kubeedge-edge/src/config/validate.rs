use std::net::IpAddr;

use kubeedge_core::names::NodeName;

use super::{ConfigError, keys::EdgeCoreConfig, units};

/// Endpoints of the runtime that runs containers as processes.
const NATIVE: [&str; 2] = ["native://", "native:"];

/// Checks what the types of the keys do not.
pub(super) fn check(config: &EdgeCoreConfig) -> Result<(), ConfigError> {
    let wrong = |key: &str, value: &dyn std::fmt::Display, why: &str| Err(ConfigError::value(key, value, why));
    let database = &config.database;
    if database.driver_name != "sqlite3" {
        return wrong("database.driverName", &quoted(&database.driver_name), "only sqlite3 is there");
    }
    if database.data_source.is_empty() {
        return wrong("database.dataSource", &r#""""#, "it must be the path of a file");
    }
    check_hub(config)?;
    let bus = &config.modules.event_bus;
    if bus.enable {
        if bus.mqtt_mode > 2 {
            return wrong(
                "modules.eventBus.mqttMode",
                &bus.mqtt_mode,
                "it must be 0 (internal), 1 (both) or 2 (external)",
            );
        }
        if bus.mqtt_qos > 2 {
            return wrong("modules.eventBus.mqttQOS", &bus.mqtt_qos, "it must be 0, 1 or 2");
        }
        if bus.mqtt_mode < 2 && units::listen_address(&bus.mqtt_server_internal).is_none() {
            let value = quoted(&bus.mqtt_server_internal);
            return wrong("modules.eventBus.mqttServerInternal", &value, "it must be like tcp://127.0.0.1:1884");
        }
    }
    check_edged(config)
}

fn check_hub(config: &EdgeCoreConfig) -> Result<(), ConfigError> {
    let wrong = |key: &str, value: &dyn std::fmt::Display, why: &str| Err(ConfigError::value(key, value, why));
    let hub = &config.modules.edge_hub;
    if !hub.enable {
        return wrong("modules.edgeHub.enable", &false, "a node needs its link to the cloud");
    }
    if hub.quic.enable == hub.websocket.enable {
        let why = "exactly one of modules.edgeHub.websocket and modules.edgeHub.quic must be enabled";
        return wrong("modules.edgeHub.quic.enable", &hub.quic.enable, why);
    }
    if hub.quic.enable && !cfg!(feature = "quic") {
        return wrong("modules.edgeHub.quic.enable", &true, "this build has no QUIC (the feature `quic`)");
    }
    if hub.heartbeat == 0 {
        return wrong("modules.edgeHub.heartbeat", &0, "it must be 1 s or more");
    }
    if hub.project_id.is_empty() || hub.project_id.contains(['/', '?', '#']) {
        return wrong("modules.edgeHub.projectID", &quoted(&hub.project_id), "it must be one segment of a path");
    }
    Ok(())
}

fn check_edged(config: &EdgeCoreConfig) -> Result<(), ConfigError> {
    let edged = &config.modules.edged;
    let value = |key: &str, value: &str, why: &str| {
        Err(ConfigError::value(&format!("modules.edged.{key}"), quoted(value), why))
    };
    if !edged.hostname_override.is_empty()
        && let Err(error) = NodeName::new(&edged.hostname_override)
    {
        return value("hostnameOverride", &edged.hostname_override, &error.to_string());
    }
    if !edged.enable {
        return Ok(());
    }
    if !edged.node_ip.is_empty() && edged.node_ip.parse::<IpAddr>().is_err() {
        return value("nodeIP", &edged.node_ip, "it must be an IP address");
    }
    let kubelet = &edged.kubelet;
    let endpoint = &kubelet.container_runtime_endpoint;
    if !NATIVE.contains(&endpoint.as_str()) {
        return value(
            "tailoredKubeletConfig.containerRuntimeEndpoint",
            endpoint,
            "this version has only the process runtime, which native:// selects; container engines (CRI) come later. \
             Without pods, set modules.edged.enable to false",
        );
    }
    for (key, text) in [
        ("nodeStatusUpdateFrequency", &kubelet.node_status_update_frequency),
        ("nodeStatusReportFrequency", &kubelet.node_status_report_frequency),
    ] {
        if units::duration(text).is_none_or(|duration| duration.is_zero()) {
            return value(&format!("tailoredKubeletConfig.{key}"), text, "it must be a duration such as 10s");
        }
    }
    if kubelet.node_lease_duration_seconds == 0 {
        return value("tailoredKubeletConfig.nodeLeaseDurationSeconds", "0", "it must be 1 or more");
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
