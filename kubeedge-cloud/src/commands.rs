//! Commands to devices from the cloud: a device is read or written at once, wherever its node is. Ours.
//!
//! [`DeviceCommands`] asks the node, whose agent has to be ours, and tells the Device of it in an Event. Over HTTP, for
//! programs and people:
//!
//! ```sh
//! curl -d '{"write": {"threshold": "46"}, "read": ["temperature"]}' -H 'Content-Type: application/json' \
//!     http://127.0.0.1:9445/v1/namespaces/default/devices/boiler/command
//! ```
//!
//! The answer is a [`CommandResult`], its code the status of HTTP.

use std::{fmt, net::SocketAddr};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    http::StatusCode,
    routing::post,
};
use kube::Client;
use kubeedge_core::{
    answer::ApiStatus,
    device::command::{CommandResult, DeviceCommand},
    message::{Content, ContentError, Message},
    names::{DeviceId, InvalidName, NodeName, SharedClock},
    resource::Resource,
    words::{Group, Operation, Source},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    hub::{AskError, HubHandle},
    object::{ApiCalls, Kind},
};

/// Longest body of a command, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// Sends commands to devices. Cheap to clone.
#[derive(Clone)]
pub struct DeviceCommands {
    calls: ApiCalls,
    hub: HubHandle,
    clock: SharedClock,
}

/// Why a command did not reach the node of its device, or was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The Device cannot be had.
    #[error("device {device}: {}", status.message)]
    Device {
        /// The device.
        device: DeviceId,
        /// What the API says.
        status: Box<ApiStatus>,
    },
    /// It is bound to no node.
    #[error("device {0} is bound to no node")]
    Unbound(DeviceId),
    /// The node is not connected to this cloud, or does not answer, as an agent that is not ours does not.
    #[error("node {node}: {source}")]
    Node {
        /// The node.
        node: NodeName,
        /// What went wrong.
        source: AskError,
    },
    /// The answer is not one.
    #[error("answer of the node cannot be read")]
    Answer(#[from] ContentError),
}

impl CommandError {
    fn code(&self) -> u16 {
        match self {
            Self::Device { status, .. } => status.code,
            Self::Unbound(_) => 409,
            Self::Node { source: AskError::NotConnected, .. } => 503,
            Self::Node { source: AskError::Busy, .. } => 429,
            Self::Node { .. } => 504,
            Self::Answer(_) => 502,
        }
    }
}

impl DeviceCommands {
    /// Devices are looked up with `client`, and their nodes asked through `hub`.
    pub fn new(client: Client, hub: HubHandle, clock: SharedClock) -> Self {
        Self { calls: ApiCalls::new(client), hub, clock }
    }

    /// Sends a command, and waits for its answer. What was written is told in an Event of the Device, with `origin`.
    ///
    /// # Errors
    /// [`CommandError`]. A command that reached the device and failed there is no error, but a result with a code.
    ///
    /// # Cancel safety
    /// If the future is dropped, the command may be carried out all the same, and no Event tells of it.
    pub async fn send(
        &self,
        device: &DeviceId,
        command: &DeviceCommand,
        origin: &str,
    ) -> Result<CommandResult, CommandError> {
        let place = (&Kind::DEVICE, Some(device.namespace().as_str()), device.name().as_str());
        let object = self.calls.get(place).await.map_err(|status| {
            let (device, status) = (device.clone(), Box::new(status));
            CommandError::Device { device, status }
        })?;
        let node = object["spec"]["nodeName"].as_str().and_then(|name| NodeName::new(name).ok());
        let node = node.ok_or_else(|| CommandError::Unbound(device.clone()))?;
        let resource = Resource::DeviceCommand(device.clone());
        let message = Message::new(self.clock.now(), Source::DeviceController, Group::Twin, Operation::Query, resource);
        let asked = self.hub.ask(&node, message.content(Content::json(command)?)).await;
        let result = match asked {
            Ok(answer) => answer.content.parse::<CommandResult>().map_err(CommandError::Answer),
            Err(source) => Err(CommandError::Node { node, source }),
        };
        if !command.write.is_empty() {
            let failure = match &result {
                Ok(result) => result.code.map(|code| format!("{code} {}", result.reason)),
                Err(error) => Some(error.to_string()),
            };
            self.tell(device, &object, command, origin, failure.as_deref()).await;
        }
        result
    }

    /// The audit. A command that was carried out stays so if it cannot be told.
    async fn tell(
        &self,
        device: &DeviceId,
        object: &Value,
        command: &DeviceCommand,
        origin: &str,
        failure: Option<&str>,
    ) {
        let written: Vec<_> = command.write.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (kind, outcome) = match failure {
            None => ("Normal", "done".to_owned()),
            Some(why) => ("Warning", format!("failed: {why}")),
        };
        let mut message = format!("{origin} writes {}: {outcome}", written.join(", "));
        message.truncate(message.floor_char_boundary(1024));
        tracing::info!(target: "audit", %device, message, "command to a device");
        let now = jiff::Timestamp::from_millisecond(self.clock.now().0).unwrap_or_default();
        let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let namespace = device.namespace().as_str();
        let name = device.name().as_str();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {
                "name": format!("{}.{:x}", &name[..name.floor_char_boundary(200)], fastrand::u64(..)),
                "namespace": namespace,
            },
            "involvedObject": {
                "apiVersion": object["apiVersion"], "kind": "Device", "name": name, "namespace": namespace,
                "uid": object["metadata"]["uid"],
            },
            "reason": "DeviceCommand", "message": message, "type": kind, "count": 1,
            "firstTimestamp": at, "lastTimestamp": at, "source": { "component": "devicecontroller" },
            "reportingComponent": "devicecontroller", "reportingInstance": "",
        });
        if let Err(status) = self.calls.create(&Kind::EVENT, Some(namespace), &event).await {
            tracing::warn!(%device, reason = status.message, "no Event tells of a command");
        }
    }

    /// The HTTP interface; see the [module](self). Nobody is asked who he is: put a layer before it, or serve it where only
    /// those come who may.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/namespaces/{namespace}/devices/{name}/command", post(command))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self)
    }

    /// Serves the HTTP interface on `listener` until `shutdown`, without TLS.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let served = axum::serve(listener, self.router()).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(err) = served {
            tracing::error!(%err, "commands to devices are not served any more");
        }
    }

    /// Whether other machines could command devices through `address`.
    pub(crate) fn is_exposed(address: SocketAddr) -> bool {
        !address.ip().to_canonical().is_loopback()
    }
}

impl fmt::Debug for DeviceCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCommands").field("hub", &self.hub).finish_non_exhaustive()
    }
}

async fn command(
    State(commands): State<DeviceCommands>,
    Path((namespace, name)): Path<(String, String)>,
    // A page of another site in a browser cannot send JSON without being asked first.
    body: Result<Json<DeviceCommand>, JsonRejection>,
) -> (StatusCode, Json<CommandResult>) {
    let now = commands.clock.now();
    let refused = |code, event_id: &str, reason: String| CommandResult::refused(event_id, now, code, reason);
    let result = match (DeviceId::parse(&namespace, &name), body) {
        (Err(error), _) => refused(400, "", InvalidName::to_string(&error)),
        (_, Err(rejection)) => refused(rejection.status().as_u16(), "", rejection.body_text()),
        (Ok(device), Ok(Json(command))) => match commands.send(&device, &command, "http").await {
            Ok(result) => result,
            Err(error) => refused(error.code(), &command.event_id, error.to_string()),
        },
    };
    let status = result.code.map_or(Ok(StatusCode::OK), StatusCode::from_u16);
    (status.unwrap_or(StatusCode::BAD_GATEWAY), Json(result))
}
