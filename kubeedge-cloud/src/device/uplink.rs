//! Reports of nodes about their devices.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    answer::{Answer, ApiStatus},
    message::{Content, ContentError, Message},
    names::{DeviceId, NodeName, SharedClock},
    resource::{Resource, ResourceType},
    words::{Group, Operation, Source},
};

use super::{
    membership::Membership,
    report::{StateReport, TwinReport},
    status::Statuses,
};
use crate::{hub::FromNode, sync::Truth};

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

impl DeviceUplinks {
    pub(super) fn new(truth: Truth, statuses: Arc<Statuses>, membership: Arc<Membership>, clock: SharedClock) -> Self {
        Self(Arc::new(Parts { truth, statuses, membership, clock }))
    }

    pub(super) async fn handle(self, from: FromNode) -> Option<Message> {
        let FromNode { node, message } = from;
        let parts = &*self.0;
        let taken = match &message.resource {
            Resource::DeviceTwin(device) => parts.take_twin(&node, device, &message).await,
            Resource::DeviceState(device) => parts.take_state(&node, device, &message).await,
            Resource::MembershipDetail => {
                if parts.truth.ready(&[ResourceType::Device], PATIENCE).await.is_ok() {
                    parts.membership.tell_all(&node);
                }
                Ok(false)
            }
            other => {
                tracing::debug!(%node, resource = %other, "nothing is known of this report");
                return None;
            }
        };
        let content = match taken {
            // Confirmed when it is durable.
            Ok(true) => return None,
            Ok(false) => Content::ok(),
            // To a Go edge any answer is a confirmation, so it gets none of what may work later, and sends it again.
            Err(status) if status.code >= 500 || matches!(status.code, 409 | 429) => {
                tracing::warn!(%node, resource = %message.resource, message = status.message, "report not taken");
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
    /// Whether the report waits to be written.
    async fn take_twin(&self, node: &NodeName, device: &DeviceId, message: &Message) -> Result<bool, ApiStatus> {
        let report = message.content.parse::<TwinReport>().map_err(|err| unreadable(device, &err))?;
        self.truth.ready(&[ResourceType::Device], PATIENCE).await?;
        self.statuses.report((node, &message.id), device, |properties| report.changes(properties))
    }

    /// Whether the report waits to be written.
    async fn take_state(&self, node: &NodeName, device: &DeviceId, message: &Message) -> Result<bool, ApiStatus> {
        let report = message.content.parse::<StateReport>().map_err(|err| unreadable(device, &err))?;
        self.truth.ready(&[ResourceType::Device], PATIENCE).await?;
        self.statuses.report((node, &message.id), device, |_| report.changes())
    }
}

fn unreadable(device: &DeviceId, err: &ContentError) -> ApiStatus {
    ApiStatus::failure(400, "BadRequest", format!("report about device {device}: {err}"))
}
