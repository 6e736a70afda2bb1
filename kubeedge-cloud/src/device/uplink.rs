//! Reports of nodes about their devices.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kubeedge_core::{
    answer::{Answer, ApiStatus},
    device::DeviceSpec,
    message::{Content, ContentError, Message},
    names::{DeviceId, NodeName, SharedClock},
    resource::{ObjectPath, Resource, ResourceType},
    words::{Group, Operation, Source},
};
use serde::Deserialize;

use super::{
    membership::Membership,
    report::{StateReport, TwinReport},
    status::Statuses,
};
use crate::{hub::FromNode, object::NodeObject, sync::Truth};

/// For the devices to be listed after a start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Handles reports of nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DeviceUplinks(Arc<Parts>);

struct Parts {
    truth: Truth,
    statuses: Arc<Statuses>,
    membership: Arc<Membership>,
    clock: SharedClock,
}

#[derive(Deserialize)]
struct Device {
    spec: DeviceSpec,
}

impl DeviceUplinks {
    pub(super) fn new(truth: Truth, statuses: Arc<Statuses>, membership: Arc<Membership>, clock: SharedClock) -> Self {
        Self(Arc::new(Parts { truth, statuses, membership, clock }))
    }

    pub(super) async fn handle(self, from: FromNode) -> Option<Message> {
        let FromNode { node, message } = from;
        let parts = &*self.0;
        let written = match &message.resource {
            Resource::DeviceTwin(device) => parts.write_twin(&node, device, &message.content).await,
            Resource::DeviceState(device) => parts.write_state(&node, device, &message.content).await,
            Resource::MembershipDetail => {
                if parts.truth.ready(&[ResourceType::Device], PATIENCE).await.is_ok() {
                    parts.membership.tell_all(&node);
                }
                Ok(())
            }
            other => {
                tracing::debug!(%node, resource = %other, "nothing is known of this report");
                return None;
            }
        };
        let content = match written {
            Ok(()) => Content::ok(),
            // To a Go edge any answer is a confirmation, so it gets none of what may work later, and sends it again.
            Err(status) if status.code >= 500 || matches!(status.code, 409 | 429) => {
                tracing::warn!(%node, resource = %message.resource, message = status.message, "report not written");
                return None;
            }
            Err(status) => {
                tracing::warn!(%node, resource = %message.resource, message = status.message, "report refused");
                Answer::Refused(status).to_bare().ok()?
            }
        };
        let now = parts.clock.now();
        let answer =
            Message::new(now, Source::DeviceController, Group::Twin, Operation::Response, Resource::TwinConfirmation);
        Some(answer.answering(&message.id).content(content))
    }
}

impl Parts {
    async fn write_twin(&self, node: &NodeName, device: &DeviceId, content: &Content) -> Result<(), ApiStatus> {
        content.parse::<TwinReport>().map_err(|err| unreadable(device, &err))?;
        let object = self.own_device(node, device).await?;
        let spec = object.content.parse::<Device>().map_err(|err| unreadable(device, &err))?.spec;
        let properties: BTreeSet<String> = spec.properties.into_iter().map(|property| property.name).collect();
        let change = |status| match content.parse::<TwinReport>() {
            Ok(report) => report.apply(status, &properties),
            Err(_) => status,
        };
        self.statuses.write(device, &object, change).await
    }

    async fn write_state(&self, node: &NodeName, device: &DeviceId, content: &Content) -> Result<(), ApiStatus> {
        content.parse::<StateReport>().map_err(|err| unreadable(device, &err))?;
        let object = self.own_device(node, device).await?;
        let change = |status| match content.parse::<StateReport>() {
            Ok(report) => report.apply(status),
            Err(_) => status,
        };
        self.statuses.write(device, &object, change).await
    }

    /// The Device, if it is bound to the node.
    async fn own_device(&self, node: &NodeName, device: &DeviceId) -> Result<Arc<NodeObject>, ApiStatus> {
        self.truth.ready(&[ResourceType::Device], PATIENCE).await?;
        let path = ObjectPath {
            namespace: Some(device.namespace().clone()),
            kind: ResourceType::Device,
            name: Some(device.name().clone()),
        };
        let placement = self.truth.placement();
        if placement.uid(&path).is_none() {
            return Err(ApiStatus::failure(404, "NotFound", format!("device {device} not found")));
        }
        if !placement.needs(node, &path) {
            let message = format!("device {device} is forbidden to node {node}: it is not bound to the node");
            return Err(ApiStatus::failure(403, "Forbidden", message));
        }
        placement.object(&path).ok_or_else(|| {
            // It is being fetched.
            ApiStatus::failure(503, "ServiceUnavailable", format!("device {device} is not yet known"))
        })
    }
}

fn unreadable(device: &DeviceId, err: &ContentError) -> ApiStatus {
    ApiStatus::failure(400, "BadRequest", format!("report about device {device}: {err}"))
}
