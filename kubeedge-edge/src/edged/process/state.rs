//! What the process runtime writes down about sandboxes and containers.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use kubeedge_core::names::{Uid, UnixMillis};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::edged::runtime::{ContainerConfig, ContainerId, Exit, SandboxConfig, SandboxId};

/// File of a sandbox, in its directory.
pub(super) const SANDBOX_FILE: &str = "sandbox.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) id: String,
    pub(super) uid: Uid,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) hostname: String,
    pub(super) attempt: u32,
    pub(super) ready: bool,
    pub(super) created_at: UnixMillis,
    pub(super) log_directory: PathBuf,
}

impl SandboxRecord {
    pub(super) fn new(id: &SandboxId, config: &SandboxConfig, now: UnixMillis) -> Self {
        Self {
            id: id.as_str().into(),
            uid: config.uid.clone(),
            namespace: config.namespace.to_string(),
            name: config.name.to_string(),
            hostname: config.hostname.clone(),
            attempt: config.attempt,
            ready: true,
            created_at: now,
            log_directory: config.log_directory.clone(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) attempt: u32,
    pub(super) image: String,
    pub(super) spec_hash: String,
    pub(super) log_path: PathBuf,
    pub(super) state: StateRecord,
}

impl ContainerRecord {
    pub(super) fn new(id: &ContainerId, config: &ContainerConfig, log_path: PathBuf) -> Self {
        Self {
            id: id.as_str().into(),
            name: config.name.clone(),
            attempt: config.attempt,
            image: config.image.name.clone(),
            spec_hash: config.spec_hash.clone(),
            log_path,
            state: StateRecord::Created,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum StateRecord {
    Created,
    /// The process may run already.
    Starting {
        started_at: UnixMillis,
    },
    Running {
        pid: i32,
        start_ticks: u64,
        boot_id: String,
        started_at: UnixMillis,
    },
    Exited {
        started_at: Option<UnixMillis>,
        finished_at: Option<UnixMillis>,
        code: i32,
        signal: Option<i32>,
        reason: String,
        message: String,
    },
}

impl StateRecord {
    pub(super) fn exited(started_at: Option<UnixMillis>, exit: &Exit) -> Self {
        Self::Exited {
            started_at,
            finished_at: exit.finished_at,
            code: exit.code,
            signal: exit.signal,
            reason: exit.reason.clone(),
            message: exit.message.clone(),
        }
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        match self {
            Self::Exited { finished_at, code, signal, reason, message, .. } => Some(Exit {
                code: *code,
                signal: *signal,
                finished_at: *finished_at,
                reason: reason.clone(),
                message: message.clone(),
            }),
            _ => None,
        }
    }

    pub(super) fn started_at(&self) -> Option<UnixMillis> {
        match self {
            Self::Created => None,
            Self::Starting { started_at } | Self::Running { started_at, .. } => Some(*started_at),
            Self::Exited { started_at, .. } => *started_at,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Running { .. })
    }
}

/// A directory that only we may look into.
pub(in crate::edged) fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file as a whole or not at all.
pub(super) fn save(path: &Path, value: &impl Serialize) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_private_dir(parent)?;
    }
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(value).map_err(io::Error::other)?)?;
    drop(file);
    fs::rename(new, path)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}

/// Reads all sandboxes and their containers. What is damaged, as after a power cut, is removed: its processes are gone.
pub(super) fn load(root: &Path) -> io::Result<Vec<(SandboxRecord, Vec<ContainerRecord>)>> {
    let mut loaded = Vec::new();
    for entry in fs::read_dir(root)? {
        let dir = entry?.path();
        let Ok(sandbox) = read::<SandboxRecord>(&dir.join(SANDBOX_FILE)) else {
            tracing::warn!(dir = %dir.display(), "removing a damaged sandbox");
            _ = fs::remove_dir_all(&dir);
            continue;
        };
        let mut containers = Vec::new();
        for of_container in fs::read_dir(&dir)?.flatten().filter(|entry| entry.path().is_dir()) {
            for file in fs::read_dir(of_container.path())?.flatten().map(|entry| entry.path()) {
                if file.extension().is_none_or(|extension| extension != "json") {
                    continue;
                }
                match read::<ContainerRecord>(&file) {
                    Ok(record) => containers.push(record),
                    Err(error) => {
                        tracing::warn!(file = %file.display(), error = %error, "removing a damaged container state");
                        _ = fs::remove_file(&file);
                    }
                }
            }
        }
        loaded.push((sandbox, containers));
    }
    Ok(loaded)
}
