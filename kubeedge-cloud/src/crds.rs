//! The custom resources of KubeEdge: their definitions, and their objects as Rust types.
//!
//! [`install`] creates the definitions that a cluster lacks. [`Device`], [`DeviceModel`], [`DeviceStatus`],
//! [`ObjectSync`] and [`ClusterObjectSync`] are for use with [`kube::Api`]; they are views that hold the known fields
//! only, so an object that is to be passed on whole has to be read in another form.
//!
//! Upstream: `build/crds`, `staging/src/github.com/kubeedge/api/apis` (v1.21 to v1.23).

mod device;
mod install;
mod resource;
mod sync;

pub use self::{
    device::{Device, DeviceModel, DeviceStatus, NoSpec},
    install::{InstallError, Installed, install},
    sync::{ClusterObjectSync, ObjectSync, ObjectSyncSpec, ObjectSyncStatus, object_sync_name, parse_object_sync_name},
};
