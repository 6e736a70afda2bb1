use std::path::PathBuf;

use kubeedge_core::config::BadValue;

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
    /// The file is not YAML.
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
    pub(super) fn syntax(origin: &str, err: &serde_saphyr::Error) -> Self {
        let (line, column) = err.location().map_or((1, 1), |location| (location.line(), location.column()));
        let text = err.without_snippet().to_string();
        let place = format!(" at line {line}, column {column}");
        let reason = text.lines().next().unwrap_or_default();
        let reason = reason.strip_suffix(&*place).unwrap_or(reason).to_owned();
        Self::Syntax { origin: origin.to_owned(), line, column, reason }
    }

    pub(super) fn value(key: &str, value: &serde_json::Value, why: &str) -> Self {
        Self::Value(BadValue::new(key, value, why))
    }
}
