//! The guided tour: a cloud, an edge node, a device and a workload in one process, over real sockets.

mod relay;
mod screen;
mod tour;

use std::{path::PathBuf, time::Duration};

pub use self::{
    relay::Relay,
    screen::Screen,
    tour::{Ended, Tour},
};

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder of the data; a fresh temporary one if not given.
    pub data: Option<PathBuf>,
    /// Folder with the manifests to use in place of the built-in ones.
    pub manifests: Option<PathBuf>,
}

/// A step that was not seen to work.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct StepFailed {
    /// The step.
    pub step: &'static str,
    /// Why, in one line.
    pub cause: String,
}

/// Longest time that a step may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
