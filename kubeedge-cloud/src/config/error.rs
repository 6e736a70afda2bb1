use std::path::PathBuf;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not YAML, or a key has a value of the wrong type.
    #[error("{origin}:{line}: {message}")]
    Yaml {
        /// The file.
        origin: String,
        /// Line in it, from 1.
        line: u64,
        /// What is wrong there.
        message: String,
    },
    /// A key has a value that it cannot have.
    #[error("{key}: {value:?} {why}")]
    Value {
        /// Path of the key, `modules.cloudHub.nodeLimit` for instance.
        key: String,
        /// The value.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
}

impl ConfigError {
    pub(super) fn yaml(origin: &str, err: &serde_saphyr::Error) -> Self {
        let line = err.location().map_or(1, |location| location.line());
        let text = err.without_snippet().to_string();
        let message = text.lines().next().unwrap_or_default().to_owned();
        Self::Yaml { origin: origin.to_owned(), line, message }
    }

    pub(super) fn value(key: &str, value: &dyn std::fmt::Display, why: &'static str) -> Self {
        Self::Value { key: key.to_owned(), value: value.to_string(), why }
    }
}
