//! `cloudcore.yaml`.
//!
//! Read as Go cloudcore reads it: over the defaults, keys in any case, lists replaced. Keys that nothing here uses are
//! accepted, and named to the caller. Of our own are the section
//! [`EmbeddedApiConfig`] and some keys of [`SyncControllerConfig`] and [`DeviceControllerConfig`], and [`AdmissionConfig`].
//!
//! Upstream: `api/apis/componentconfig/cloudcore/v1alpha1` (v1.21 to v1.23).

mod error;
mod keys;
mod unused;
mod validate;

use std::path::Path;

pub use kubeedge_core::config::{BadValue, ConfigWarning};

use kubeedge_core::config::overlay;

pub use self::{
    error::ConfigError,
    keys::{
        AdmissionConfig, AuthorizationConfig, AuthorizationMode, CloudCoreConfig, CloudHubConfig, CommandServerConfig,
        DeviceControllerConfig, EmbeddedApiConfig, HttpsConfig, KubeApiConfig, ModuleConfig, ModulesConfig, QuicConfig,
        SyncControllerConfig, WebSocketConfig,
    },
};

impl CloudCoreConfig {
    /// Reads the file, and tells which of its keys have no effect.
    ///
    /// Blocks on the file system.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and its value, or the place of a syntax error.
    pub fn load(path: impl AsRef<Path>) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads YAML; `origin` is what errors call it.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn parse(text: &str, origin: &str) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let given: serde_json::Value = match text.trim() {
            "" => serde_json::Value::Null,
            _ => serde_saphyr::from_str(text).map_err(|err| ConfigError::syntax(origin, &err))?,
        };
        let (config, warnings) = overlay(&Self::default(), given, &unused::RULES)?;
        config.validate()?;
        Ok((config, warnings))
    }
}

#[cfg(test)]
mod tests;
