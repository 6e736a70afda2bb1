//! `edgecore.yaml`, and the assembly of the reference `edgecore` from it.
//!
//! [`EdgeCoreConfig`] reads the file as KubeEdge writes it: missing keys have upstream's defaults, keys may be spelled in
//! any case, keys that are not used are told as [`ConfigWarning`]s. [`EdgeCore`] makes all the parts that it asks for,
//! with public calls only: whatever it can do, an embedder can do with [`EdgeNode`](crate::node::EdgeNode).
//!
//! Upstream: `staging/src/github.com/kubeedge/api/apis/componentconfig/edgecore/v1alpha2`.

mod assembly;
mod certificates;
mod keys;
mod pair;
mod rules;
mod units;
mod validate;

use std::path::{Path, PathBuf};

use kubeedge_core::config::overlay;
pub use kubeedge_core::config::{BadValue, ConfigWarning};

pub use self::{
    assembly::{EdgeCore, EdgeCoreHandle, StartError},
    keys::{
        BrokerTls, DatabaseConfig, DeviceTwinConfig, EdgeCoreConfig, EdgeHubConfig, EdgedModuleConfig, EventBusConfig,
        InternalBroker, KubeletConfig, MapperModuleConfig, MetaManagerConfig, Modules, QuicConfig, WebSocketConfig,
    },
};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is not YAML.
    #[error("{origin}:{line}:{column}: {reason}")]
    Syntax {
        /// The file.
        origin: String,
        /// Line in it, from 1.
        line: u64,
        /// Column in it, from 1.
        column: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A key has a value that it cannot have.
    #[error(transparent)]
    Value(#[from] BadValue),
}

impl ConfigError {
    pub(crate) fn value(key: &str, value: impl std::fmt::Display, why: impl Into<String>) -> Self {
        BadValue::new(key, value, why).into()
    }

    fn syntax(origin: &str, error: &serde_saphyr::Error) -> Self {
        let (line, column) = error.location().map_or((1, 1), |location| (location.line(), location.column()));
        let text = error.without_snippet().to_string();
        let place = format!(" at line {line}, column {column}");
        let reason = text.lines().next().unwrap_or_default();
        let reason = reason.strip_suffix(&*place).unwrap_or(reason).to_owned();
        Self::Syntax { origin: origin.to_owned(), line, column, reason }
    }
}

impl EdgeCoreConfig {
    /// Reads `edgecore.yaml`, and tells which of its keys have no effect.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and its value, or the place of a syntax error.
    pub fn from_yaml(text: &str) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        Self::parse(text, "edgecore.yaml")
    }

    /// Reads the file at `path`; see [`EdgeCoreConfig::from_yaml`].
    pub fn load(path: impl AsRef<Path>) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, origin: &str) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let given: serde_json::Value = match text.trim() {
            "" => serde_json::Value::Null,
            _ => serde_saphyr::from_str(text).map_err(|error| ConfigError::syntax(origin, &error))?,
        };
        let (config, warnings) = overlay(&Self::default(), given, &rules::RULES)?;
        validate::check(&config)?;
        Ok((config, warnings))
    }
}

#[cfg(test)]
mod tests;
