use std::{net::IpAddr, path::Path};

use super::{CloudCoreConfig, ConfigError, SyncControllerConfig};

impl CloudCoreConfig {
    /// Upstream: `api/apis/componentconfig/cloudcore/v1alpha1/validation`. Other than there, a port may be 0, for any.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let hub = &self.modules.cloud_hub;
        if !hub.enable {
            return Err(ConfigError::value(
                "modules.cloudHub.enable",
                &false.into(),
                "it must be true: nodes have nowhere to connect",
            ));
        }
        if !hub.websocket.enable && !hub.quic.enable {
            let key = "modules.cloudHub.websocket.enable";
            let why = "it must be true, or modules.cloudHub.quic.enable: nodes have nowhere to connect";
            return Err(ConfigError::value(key, &false.into(), why));
        }
        let commands = &self.modules.device_controller.command_server;
        for (key, address) in [
            ("modules.admission.address", &self.modules.admission.address),
            ("modules.deviceController.commandServer.address", &commands.address),
            ("modules.cloudHub.websocket.address", &hub.websocket.address),
            ("modules.cloudHub.quic.address", &hub.quic.address),
            ("modules.cloudHub.https.address", &hub.https.address),
            ("embeddedAPI.address", &self.embedded_api.address),
        ] {
            ip(key, address)?;
        }
        if commands.address.parse().is_ok_and(|ip: IpAddr| !ip.to_canonical().is_loopback()) {
            let key = "modules.deviceController.commandServer.address";
            let why = "it must be one of this machine's own, such as 127.0.0.1: nobody is asked who he is";
            return Err(ConfigError::value(key, &commands.address.as_str().into(), why));
        }
        for address in &hub.advertise_address {
            ip("modules.cloudHub.advertiseAddress", address)?;
        }
        for (key, number) in [
            ("modules.cloudHub.keepaliveInterval", hub.keepalive_interval),
            ("modules.cloudHub.nodeLimit", hub.node_limit),
            ("modules.cloudHub.writeTimeout", hub.write_timeout),
            ("modules.cloudHub.edgeCertSigningDuration", hub.edge_cert_signing_duration),
            ("modules.cloudHub.tokenRefreshDuration", hub.token_refresh_duration),
        ] {
            if number == 0 {
                return Err(ConfigError::value(key, &number.into(), "it must be greater than 0"));
            }
        }
        let authorization = &hub.authorization;
        if authorization.enable && !authorization.modes.iter().any(|mode| mode.node.enable) {
            let modes = serde_json::json!(authorization.modes);
            let why = "one of them must be node with enable: true, as there is no other";
            return Err(ConfigError::value("modules.cloudHub.authorization.modes", &modes, why));
        }
        self.validate_ledger()?;
        let kube_config = &self.kube_api_config.kube_config;
        if self.embedded_api.enable {
            let path = &self.embedded_api.data_source;
            if path.file_name().is_none() {
                return Err(ConfigError::value(
                    "embeddedAPI.dataSource",
                    &path.display().to_string().into(),
                    "it must be the path of a file",
                ));
            }
        } else if !kube_config.is_empty() {
            let path = Path::new(kube_config);
            if !path.is_absolute() {
                return Err(ConfigError::value(
                    "kubeAPIConfig.kubeConfig",
                    &kube_config.as_str().into(),
                    "it must be an absolute path",
                ));
            }
            if !path.exists() {
                return Err(ConfigError::value(
                    "kubeAPIConfig.kubeConfig",
                    &kube_config.as_str().into(),
                    "there is no such file",
                ));
            }
        }
        Ok(())
    }

    fn validate_ledger(&self) -> Result<(), ConfigError> {
        let sync = &self.modules.sync_controller;
        let refused = |why| Err(ConfigError::value("modules.syncController.ledger", &sync.ledger.as_str().into(), why));
        match sync.ledger.as_str() {
            SyncControllerConfig::SQLITE if !self.embedded_api.enable => {
                refused("it needs embeddedAPI.enable: other clouds of a cluster would not see the records")
            }
            SyncControllerConfig::SQLITE if sync.ledger_data_source.file_name().is_none() => Err(ConfigError::value(
                "modules.syncController.ledgerDataSource",
                &sync.ledger_data_source.display().to_string().into(),
                "it must be the path of a file",
            )),
            SyncControllerConfig::SQLITE if sync.ledger_data_source == self.embedded_api.data_source => {
                Err(ConfigError::value(
                    "modules.syncController.ledgerDataSource",
                    &sync.ledger_data_source.display().to_string().into(),
                    "it must not be that of embeddedAPI",
                ))
            }
            SyncControllerConfig::CRD | SyncControllerConfig::SQLITE => Ok(()),
            _ => refused("it must be crd or sqlite"),
        }
    }
}

fn ip(key: &str, address: &str) -> Result<(), ConfigError> {
    match address.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(ConfigError::value(key, &address.into(), "it must be an IP address")),
    }
}
