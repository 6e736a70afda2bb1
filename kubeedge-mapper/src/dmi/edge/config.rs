use std::{fmt, path::PathBuf, time::Duration};

use kubeedge_core::{meta::MetaHandle, twin::TwinHandle};

use crate::Backoff;

/// What the side of EdgeCore needs.
#[derive(Clone)]
#[non_exhaustive]
pub struct DmiConfig {
    /// Path of the socket that mappers call. Its folder is made if it is missing, with mode 0750; the socket has mode
    /// 0660, so that mappers need to be of the owner or its group.
    pub socket: PathBuf,
    /// Where mappers, and what they were told, are kept.
    pub store: MetaHandle,
    /// Where values and states go.
    pub twins: TwinHandle,
    /// Longest time for one call to a mapper or to the twins; default 10 s.
    pub call_timeout: Duration,
    /// Pauses between tries of what failed, and of listening at the socket; default 1 s up to 30 s.
    pub backoff: Backoff,
    /// Reports of all mappers that are under way at the same time; default 1024. One more is answered with
    /// `RESOURCE_EXHAUSTED`.
    pub reports: usize,
    /// Protocols that mappers may register for; default 64. One more is answered with `RESOURCE_EXHAUSTED`.
    pub mappers: usize,
}

impl DmiConfig {
    /// The name of the socket within its folder.
    pub const SOCKET_NAME: &str = "dmi.sock";

    /// The defaults.
    pub fn new(socket: impl Into<PathBuf>, store: MetaHandle, twins: TwinHandle) -> Self {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(30) };
        let (socket, call_timeout) = (socket.into(), Duration::from_secs(10));
        Self { socket, store, twins, call_timeout, backoff, reports: 1024, mappers: 64 }
    }
}

impl fmt::Debug for DmiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmiConfig")
            .field("socket", &self.socket)
            .field("call_timeout", &self.call_timeout)
            .field("backoff", &self.backoff)
            .field("reports", &self.reports)
            .field("mappers", &self.mappers)
            .finish_non_exhaustive()
    }
}
