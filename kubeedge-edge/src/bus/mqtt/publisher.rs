//! The connection that publishes.

use std::{collections::VecDeque, sync::atomic::Ordering};

use kubeedge_core::{
    bus::{BusError, Event, Qos},
    service::Causes,
};
use rumqttc::mqttbytes::v4::{Packet, PubRel};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    MqttOptions, Shared,
    connect::{Dialer, Link, leave},
    keepalive::{Due, Keepalive},
};
use crate::bus::{
    inflight::Inflight,
    packet::publish_out,
    wire::{Turn, WireError},
};

/// QoS 1 and 2 messages that are sent and not confirmed, at most.
const WINDOW: u16 = 64;

/// An event to publish, and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    event: Event,
    done: oneshot::Sender<Result<(), BusError>>,
}

impl Job {
    pub(super) fn new(event: Event) -> (Self, oneshot::Receiver<Result<(), BusError>>) {
        let (done, outcome) = oneshot::channel();
        (Self { event, done }, outcome)
    }

    /// Nobody who has stopped to wait needs the answer.
    fn settle(self, outcome: Result<(), BusError>) {
        let _ = self.done.send(outcome);
    }
}

/// Why the connection was given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker does not answer")]
    Dead,
    #[error("connection is of no more use")]
    Wire(#[from] WireError),
}

/// Publishes over one connection after the other, until `shutdown` or until nobody can publish any more.
pub(super) async fn run(shared: &Shared, mut jobs: mpsc::Receiver<Job>, shutdown: &CancellationToken) {
    let mut dialer = Dialer::new(shared.options.publisher_id.clone(), &shared.options);
    let mut unsent = VecDeque::new();
    while let Some(link) = dialer.link(shared, shutdown).await {
        shared.connected.store(true, Ordering::Relaxed);
        let mut connection = Connection::new(link, &shared.options, std::mem::take(&mut unsent));
        let ended = tokio::select! {
            ended = connection.publish(&mut jobs) => ended,
            () = shutdown.cancelled() => Ok(()),
        };
        shared.connected.store(false, Ordering::Relaxed);
        match ended {
            Ok(()) => return leave(connection.link).await,
            Err(error) => tracing::warn!(error = %Causes(&error), "lost the mqtt broker while publishing"),
        }
        unsent = connection.salvage();
    }
}

/// A connection and what was sent over it.
struct Connection {
    link: Link,
    keepalive: Keepalive,
    /// From an earlier connection, to be sent first.
    unsent: VecDeque<Job>,
    inflight: Inflight<Job>,
    /// QoS 0, queued and not yet written.
    unwritten: Vec<Job>,
}

impl Connection {
    fn new(link: Link, options: &MqttOptions, unsent: VecDeque<Job>) -> Self {
        let keepalive = Keepalive::new(options.keep_alive, Instant::now());
        Self { link, keepalive, unsent, inflight: Inflight::new(WINDOW), unwritten: Vec::new() }
    }

    async fn publish(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Result<(), Lost> {
        loop {
            let send = self.inflight.has_room() && self.link.has_room();
            tokio::select! {
                turn = self.link.turn(true) => match turn? {
                    Turn::Packet(packet) => self.handle(&packet)?,
                    Turn::Flushed => self.unwritten.drain(..).for_each(|job| job.settle(Ok(()))),
                    Turn::Closed => return Err(Lost::Closed),
                },
                job = next(&mut self.unsent, jobs), if send => match job {
                    Some(job) => self.send(job)?,
                    // Every bus is gone, and with them everybody who waits.
                    None => return Ok(()),
                },
                () = sleep_until(self.keepalive.next()) => match self.keepalive.tick(Instant::now()) {
                    Due::Ping => self.link.queue(&Packet::PingReq)?,
                    Due::Dead => return Err(Lost::Dead),
                },
            }
        }
    }

    fn send(&mut self, job: Job) -> Result<(), WireError> {
        if job.done.is_closed() {
            return Ok(());
        }
        let event = job.event.clone();
        let id = match event.qos {
            Qos::AtMostOnce => {
                self.unwritten.push(job);
                0
            }
            qos => self.inflight.insert(qos, job),
        };
        self.link.queue(&Packet::Publish(publish_out(event, id)))
    }

    fn handle(&mut self, packet: &Packet) -> Result<(), WireError> {
        self.keepalive.heard();
        let done = match packet {
            Packet::PubAck(ack) => self.inflight.acked(ack.pkid),
            Packet::PubComp(complete) => self.inflight.completed(complete.pkid),
            Packet::PubRec(received) => {
                self.inflight.received(received.pkid);
                self.link.queue(&Packet::PubRel(PubRel::new(received.pkid)))?;
                None
            }
            _ => None,
        };
        if let Some(job) = done {
            job.settle(Ok(()));
        }
        Ok(())
    }

    /// What the next connection has to send again. What must not arrive twice, or may be lost, is answered instead.
    fn salvage(mut self) -> VecDeque<Job> {
        let (again, over): (Vec<_>, Vec<_>) = self.inflight.drain().partition(|job| job.event.qos == Qos::AtLeastOnce);
        over.into_iter().chain(self.unwritten).for_each(|job| job.settle(Err(BusError::Disconnected)));
        let mut unsent = VecDeque::from(again);
        unsent.append(&mut self.unsent);
        unsent
    }
}

async fn next(unsent: &mut VecDeque<Job>, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
    match unsent.pop_front() {
        Some(job) => Some(job),
        None => jobs.recv().await,
    }
}
