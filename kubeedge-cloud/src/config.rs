//! `cloudcore.yaml`.
//!
//! Read as Go cloudcore reads it: over the defaults, keys in any case, lists replaced. Keys that nothing here uses are
//! accepted, and named to the caller. One section is our own: [`EmbeddedApiConfig`].
//!
//! Upstream: `api/apis/componentconfig/cloudcore/v1alpha1` (v1.21 to v1.23).

mod error;
mod fold;
mod keys;
mod validate;

use std::path::Path;

pub use self::{
    error::ConfigError,
    keys::{
        CloudCoreConfig, CloudHubConfig, EmbeddedApiConfig, HttpsConfig, KubeApiConfig, ModuleConfig, ModulesConfig,
        WebSocketConfig,
    },
};

impl CloudCoreConfig {
    /// Reads the file; also gives the keys that are not used, as paths such as `modules.router`.
    ///
    /// Blocks on the file system.
    ///
    /// # Errors
    /// [`ConfigError`] tells the place in the file, or the key and its value.
    pub fn load(path: impl AsRef<Path>) -> Result<(Self, Vec<String>), ConfigError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads YAML; `origin` is what errors call it.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn parse(text: &str, origin: &str) -> Result<(Self, Vec<String>), ConfigError> {
        let mut unused = Vec::new();
        let config = if text.trim().is_empty() {
            Self::default()
        } else {
            serde_saphyr::with_deserializer_from_str(text, |deserializer| {
                serde_ignored::deserialize(fold::AnyCase(deserializer), |path| unused.push(path.to_string()))
            })
            .map_err(|err| ConfigError::yaml(origin, &err))?
        };
        config.validate()?;
        Ok((config, unused))
    }
}

#[cfg(test)]
mod tests;
