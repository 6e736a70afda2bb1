use std::{fmt, path::PathBuf, time::Duration};

use kubeedge_core::names::SharedClock;

use crate::Backoff;

/// What a mapper says of itself, and where EdgeCore is.
#[derive(Clone)]
#[non_exhaustive]
pub struct DmiMapperConfig {
    /// Its name, one per mapper of the node.
    pub name: String,
    /// Its version; default that of this crate.
    pub version: String,
    /// Version of its API; default `v1.0.0`, as the Go framework has it.
    pub api_version: String,
    /// The protocol whose devices it looks after, spelled as in `spec.protocol.protocolName`.
    pub protocol: String,
    /// Path of its own socket, which EdgeCore calls. Its folder is made if it is missing, with mode 0750; the socket has
    /// mode 0660.
    pub socket: PathBuf,
    /// Path of the socket of EdgeCore; default `/etc/kubeedge/dmi.sock`.
    pub edgecore: PathBuf,
    /// Stamps values.
    pub clock: SharedClock,
    /// Longest time for one call to EdgeCore; default 5 s.
    pub call_timeout: Duration,
    /// Pauses between tries to register; default 1 s up to 10 s.
    pub backoff: Backoff,
}

impl DmiMapperConfig {
    /// The mapper `name` for the devices of `protocol`, which listens at `socket`; all else by default.
    pub fn new(
        name: impl Into<String>,
        protocol: impl Into<String>,
        socket: impl Into<PathBuf>,
        clock: SharedClock,
    ) -> Self {
        Self {
            name: name.into(),
            version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
            api_version: "v1.0.0".to_owned(),
            protocol: protocol.into(),
            socket: socket.into(),
            edgecore: "/etc/kubeedge/dmi.sock".into(),
            clock,
            call_timeout: Duration::from_secs(5),
            backoff: Backoff::default(),
        }
    }
}

impl fmt::Debug for DmiMapperConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmiMapperConfig")
            .field("name", &self.name)
            .field("protocol", &self.protocol)
            .field("socket", &self.socket)
            .field("edgecore", &self.edgecore)
            .finish_non_exhaustive()
    }
}
