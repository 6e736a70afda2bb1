//! Commands to devices, from applications of the node and from a cloud of ours.
//!
//! A device with a driver in this process is read and written at once, and the answer is what it says. For one that a mapper
//! of another process has, a value is desired, and the answer waits until the mapper reports it; a read is answered with what
//! the mapper reported last. Each write is told as an event of the target `audit`.

mod execute;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream, FuturesUnordered},
};
use kubeedge_core::{
    bus::{BusHandle, Event},
    device::command::{CommandResult, DeviceCommand},
    message::{Content, Message},
    meta::MetaHandle,
    names::{DeviceId, SharedClock},
    resource::Resource,
    service::{BoxError, Causes},
    topic::{DeviceTopic, Topic, TopicFilter},
    twin::TwinHandle,
    uplink::{Inbound, UplinkHandle},
    words::{Group, Operation, Source},
};
use kubeedge_mapper::MapperHost;
use kubeedge_twin::listen;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Where applications publish commands.
const FILTER: &str = "$hw/events/device/+/+/command";
/// Commands of the cloud that wait; one more is answered 429.
const WAITING: usize = 64;
/// Commands that are carried out at a time; more of applications wait on the bus.
const RUNNING: usize = 16;

/// What commands are carried out with.
#[derive(Clone)]
pub struct Commands {
    store: MetaHandle,
    twins: TwinHandle,
    mapper: Option<MapperHost>,
    clock: SharedClock,
}

impl Commands {
    /// Methods of devices are looked up in `store`. Without a mapper all devices go through their twins.
    pub fn new(store: MetaHandle, twins: TwinHandle, mapper: Option<MapperHost>, clock: SharedClock) -> Self {
        Self { store, twins, mapper, clock }
    }

    /// Carries out a command. `origin` says on whose behalf, for the audit.
    ///
    /// # Cancel safety
    /// If the future is dropped, what is under way may or may not be done.
    pub async fn execute(&self, device: &DeviceId, command: DeviceCommand, origin: &str) -> CommandResult {
        let limit = match command.timeout {
            0 => Duration::from_secs(10),
            millis => Duration::from_millis(millis).min(Duration::from_secs(50)),
        };
        let event_id = command.event_id.clone();
        let mut result = CommandResult { event_id, ..CommandResult::default() };
        let outcome = tokio::time::timeout(limit, self.carry_out(device, command, origin, &mut result.values)).await;
        if let Err(failure) = outcome.unwrap_or_else(|_| Err(execute::Failure::late())) {
            (result.code, result.reason) = (Some(failure.code), failure.reason);
        }
        result.timestamp = self.clock.now();
        result
    }

    /// Takes commands of a cloud out of the messages for `others`, and the part that carries out all commands.
    pub fn serve(self, others: Inbound) -> (Inbound, CommandsDriver) {
        let (queue, queued) = mpsc::channel(WAITING);
        let clock = self.clock.clone();
        let inbound = Inbound::new(tower::service_fn(move |message: Message| {
            let (queue, others, clock) = (queue.clone(), others.clone(), clock.clone());
            async move {
                let Resource::DeviceCommand(device) = &message.resource else { return others.oneshot(message).await };
                if message.parent.is_some() {
                    return Ok(None);
                }
                let device = device.clone();
                match queue.try_send((device, message)) {
                    Ok(()) => Ok(None),
                    Err(
                        mpsc::error::TrySendError::Full((_, message)) | mpsc::error::TrySendError::Closed((_, message)),
                    ) => {
                        let busy = CommandResult::refused("", clock.now(), 429, "too many commands wait at the node");
                        answer(&message, &busy, &clock).map(Some).map_err(BoxError::from)
                    }
                }
            }
        }));
        (inbound, CommandsDriver { commands: Arc::new(self), queued })
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").field("mapper", &self.mapper).finish_non_exhaustive()
    }
}

/// Carries out commands of applications and of the cloud.
#[must_use = "no command is carried out unless it runs"]
#[derive(Debug)]
pub struct CommandsDriver {
    commands: Arc<Commands>,
    queued: mpsc::Receiver<(DeviceId, Message)>,
}

impl CommandsDriver {
    /// Runs until `shutdown`: commands of applications come over `bus`, and those of the cloud are answered over `uplink`.
    ///
    /// # Cancel safety
    /// Commands under way may or may not be done, and are not answered.
    pub async fn run(mut self, bus: Option<BusHandle>, uplink: UplinkHandle, shutdown: CancellationToken) {
        let _stopped = shutdown.run_until_cancelled(self.work(bus.as_ref(), &uplink)).await;
    }

    async fn work(&mut self, bus: Option<&BusHandle>, uplink: &UplinkHandle) {
        let mut requests: BoxStream<'static, Event> = match (bus, TopicFilter::new(FILTER)) {
            (Some(bus), Ok(filter)) => listen(bus.clone(), filter),
            _ => stream::pending().boxed(),
        };
        let mut running: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            let room = running.len() < RUNNING;
            tokio::select! {
                Some(()) = running.next(), if !running.is_empty() => {}
                Some(event) = requests.next(), if room => running.extend(self.of_application(event, bus)),
                Some((device, message)) = self.queued.recv(), if room => running.push(self.of_cloud(device, message, uplink.clone())),
                else => return,
            }
        }
    }

    fn of_application(&self, event: Event, bus: Option<&BusHandle>) -> Option<BoxFuture<'static, ()>> {
        let Some(DeviceTopic::Command(device)) = DeviceTopic::parse(&event.topic) else { return None };
        let (commands, bus) = (Arc::clone(&self.commands), bus?.clone());
        Some(Box::pin(async move {
            let result = match serde_json::from_slice::<DeviceCommand>(&event.payload) {
                Ok(command) => commands.execute(&device, command, "mqtt").await,
                Err(error) => CommandResult::refused("", commands.clock.now(), 400, error.to_string()),
            };
            let topic: Topic = DeviceTopic::CommandResult(device).topic();
            let payload = Bytes::from(serde_json::to_vec(&result).unwrap_or_default());
            if let Err(error) = bus.publish(Event::new(topic.clone(), payload)).await {
                tracing::warn!(%topic, error = %Causes(&error), "answer to a command is not published");
            }
        }))
    }

    fn of_cloud(&self, device: DeviceId, message: Message, uplink: UplinkHandle) -> BoxFuture<'static, ()> {
        let commands = Arc::clone(&self.commands);
        Box::pin(async move {
            let result = match message.content.parse::<DeviceCommand>() {
                Ok(command) => commands.execute(&device, command, "cloud").await,
                Err(error) => CommandResult::refused("", commands.clock.now(), 400, Causes(&error).to_string()),
            };
            // A cloud that is gone meanwhile does not wait any more.
            match answer(&message, &result, &commands.clock) {
                Ok(answer) => drop(uplink.send(answer).await),
                Err(error) => tracing::warn!(error = %Causes(&error), "answer to a command cannot be written"),
            }
        })
    }
}

fn answer(
    command: &Message,
    result: &CommandResult,
    clock: &SharedClock,
) -> Result<Message, kubeedge_core::message::ContentError> {
    let resource = command.resource.clone();
    let answer = Message::new(clock.now(), Source::Twin, Group::Resource, Operation::Response, resource);
    Ok(answer.answering(&command.id).content(Content::json(result)?))
}
