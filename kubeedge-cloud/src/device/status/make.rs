//! Making a DeviceStatus.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ObjectMeta, PostParams, Preconditions},
};
use kubeedge_core::{
    device::DeviceStatusStatus,
    names::{DeviceId, Uid},
};

use crate::{crds::DeviceStatus, device::board::Known};

/// The object of the Device with this UID, made if there is none. One that belonged to an earlier device of that name is
/// replaced.
pub(super) async fn make(client: &Client, device: &DeviceId, uid: &Uid) -> Result<Known, Error> {
    let api: Api<DeviceStatus> = Api::namespaced(client.clone(), device.namespace().as_str());
    let name = device.name().as_str();
    let object = fresh(device, uid);
    let exists = match api.create(&PostParams::default(), &object).await {
        Err(Error::Api(status)) if status.is_already_exists() => api.get_opt(name).await?,
        made => return known(uid, made?),
    };
    // It went away between two looks: to be tried again.
    let there = exists.ok_or_else(|| replaced(name))?;
    if is_of(&there, uid) {
        return known(uid, there);
    }
    let preconditions = Some(Preconditions { uid: there.metadata.uid, resource_version: None });
    match api.delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
        Ok(_) => {}
        Err(Error::Api(status)) if status.is_not_found() => {}
        Err(err) => return Err(err),
    }
    known(uid, api.create(&PostParams::default(), &object).await?)
}

/// The object of the Device with this UID as it is now, made if there is none.
pub(super) async fn look(client: &Client, device: &DeviceId, uid: &Uid) -> Result<Known, Error> {
    let api: Api<DeviceStatus> = Api::namespaced(client.clone(), device.namespace().as_str());
    match api.get_opt(device.name().as_str()).await? {
        Some(there) if is_of(&there, uid) => known(uid, there),
        _ => make(client, device, uid).await,
    }
}

/// One that nobody owns was made by hand, and is taken.
fn is_of(there: &DeviceStatus, uid: &Uid) -> bool {
    let owners = there.metadata.owner_references.as_deref().unwrap_or_default();
    owners.is_empty() || owners.iter().any(|owner| owner.uid == uid.as_str())
}

fn fresh(device: &DeviceId, uid: &Uid) -> DeviceStatus {
    let owner = OwnerReference {
        api_version: format!("{}/{}", kubeedge_core::device::GROUP, kubeedge_core::device::VERSION),
        kind: "Device".into(),
        name: device.name().to_string(),
        uid: uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let metadata = ObjectMeta {
        name: Some(device.name().to_string()),
        namespace: Some(device.namespace().to_string()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    DeviceStatus { metadata, status: Some(DeviceStatusStatus::default()), ..DeviceStatus::default() }
}

fn known(owner: &Uid, object: DeviceStatus) -> Result<Known, Error> {
    let name = object.metadata.name.unwrap_or_default();
    let version = object.metadata.resource_version.ok_or_else(|| replaced(&name))?;
    Ok(Known { owner: owner.clone(), version, status: object.status.unwrap_or_default() })
}

fn replaced(name: &str) -> Error {
    let status = kube::core::Status::failure(&format!("devicestatus {name} is being replaced"), "Conflict");
    Error::Api(Box::new(status.with_code(409)))
}
