//! `config.yaml` of a mapper, as the mapper framework has it.

use std::{net::SocketAddr, path::Path};

use serde::Deserialize;

/// `config.yaml` of a mapper. Unknown keys are accepted, as upstream does.
///
/// Upstream: `pkg/config` of the mapper framework.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MapperFile {
    /// The socket that EdgeCore calls.
    pub grpc_server: GrpcServer,
    /// The mapper itself.
    pub common: Common,
}

/// `grpc_server`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcServer {
    /// Path of the socket; needed.
    pub socket_path: String,
}

/// `common`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Common {
    /// Name of the mapper; needed.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Version of its API.
    pub api_version: String,
    /// The protocol whose devices it looks after; needed.
    pub protocol: String,
    /// Where the REST API listens, as upstream does not: there this key is not used, and templates have 127.0.0.1.
    pub address: String,
    /// The socket of EdgeCore.
    pub edgecore_sock: String,
    /// Port of the REST API; upstream's default is 7777.
    pub http_port: Port,
}

/// A port, as a number or as a text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Port {
    /// As a number.
    Number(u16),
    /// As a text, empty for the default.
    Text(String),
}

impl Default for Port {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// A `config.yaml` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapperFileError {
    /// The file cannot be read.
    #[error("mapper configuration {0} cannot be read")]
    Read(String, #[source] std::io::Error),
    /// It is no YAML of this shape.
    #[error("mapper configuration is malformed")]
    Malformed(#[source] serde_saphyr::Error),
    /// A value that is missing or wrong.
    #[error("{key} is {value:?}: {reason}")]
    Value {
        /// Its key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should be.
        reason: &'static str,
    },
}

impl MapperFile {
    /// Reads a file, and checks it.
    ///
    /// # Errors
    /// [`MapperFileError`] names the key.
    pub fn load(path: &Path) -> Result<Self, MapperFileError> {
        let text = std::fs::read_to_string(path);
        Self::parse(&text.map_err(|error| MapperFileError::Read(path.display().to_string(), error))?)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// As for [`MapperFile::load`].
    pub fn parse(text: &str) -> Result<Self, MapperFileError> {
        let file: Self = serde_saphyr::from_str(text).map_err(MapperFileError::Malformed)?;
        let needed = [
            ("grpc_server.socket_path", &file.grpc_server.socket_path),
            ("common.name", &file.common.name),
            ("common.protocol", &file.common.protocol),
        ];
        for (key, value) in needed {
            if value.is_empty() {
                return Err(MapperFileError::Value { key, value: String::new(), reason: "it is needed" });
            }
        }
        file.listen()?;
        Ok(file)
    }

    /// Where the REST API listens: loopback, if the file does not say otherwise.
    ///
    /// # Errors
    /// [`MapperFileError::Value`] for what is no address or port.
    pub fn listen(&self) -> Result<SocketAddr, MapperFileError> {
        let wrong = |key, value: &str, reason| MapperFileError::Value { key, value: value.to_owned(), reason };
        let ip = match self.common.address.as_str() {
            "" => "127.0.0.1",
            address => address,
        };
        let ip = ip.parse().map_err(|_| wrong("common.address", ip, "it must be an IP address"))?;
        let port = match &self.common.http_port {
            Port::Number(port) => *port,
            Port::Text(text) if text.is_empty() => 7777,
            Port::Text(text) => text.parse().map_err(|_| wrong("common.http_port", text, "it must be a port"))?,
        };
        Ok(SocketAddr::new(ip, port))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_template_of_the_framework_is_read() {
        let text = "grpc_server:\n  socket_path: /etc/kubeedge/modbus.sock\ncommon:\n  name: Modbus-mapper\n  \
            version: v1.13.0\n  api_version: v1.0.0\n  protocol: modbus\n  address: 127.0.0.1\n  \
            edgecore_sock: /etc/kubeedge/dmi.sock\n";
        let file = MapperFile::parse(text).unwrap();
        assert_eq!(file.common.protocol, "modbus");
        assert_eq!(file.listen().unwrap().to_string(), "127.0.0.1:7777");
        let other = MapperFile::parse(&text.replace("127.0.0.1", "\"0.0.0.0\"\n  http_port: \"8080\"")).unwrap();
        assert_eq!(other.listen().unwrap().to_string(), "0.0.0.0:8080");
        let error = MapperFile::parse(&text.replace("protocol: modbus", "protocol: ''")).unwrap_err();
        assert_eq!(error.to_string(), "common.protocol is \"\": it is needed");
        assert!(MapperFile::parse(&text.replace("127.0.0.1", "everywhere")).is_err());
    }
}
