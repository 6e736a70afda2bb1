//! A connection that receives, for subscriptions whose filters do not overlap.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use kubeedge_core::{
    bus::{BusError, Event},
    service::Causes,
    topic::TopicFilter,
};
use rumqttc::mqttbytes::{
    QoS,
    v4::{Packet, PubAck, PubComp, PubRec, Publish, SubAck, Subscribe, SubscribeReasonCode, Unsubscribe},
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    MqttOptions, Shared,
    connect::{Dialer, Link, leave},
    keepalive::{Due, Keepalive},
    publisher::Lost,
};
use crate::bus::{
    overlap::overlap,
    packet::{event_in, qos_out},
    queue::{Holds, Queue},
    wire::{Turn, WireError},
};

/// How far a subscription is on the present connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Asked(u16),
    Standing,
}

/// A subscription at the broker.
#[derive(Debug)]
struct Entry {
    filter: TopicFilter,
    queue: Arc<Queue>,
    stage: Stage,
    /// Who waits for it to stand for the first time.
    ready: Option<oneshot::Sender<Result<(), BusError>>>,
}

#[derive(Debug, Default)]
struct State {
    retired: bool,
    entries: Vec<Entry>,
    last_id: u16,
}

/// A connection that receives, and the subscriptions on it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) number: usize,
    /// Whether its subscribers hold publishers: those do so for each other, but not for the rest.
    pub(super) holds: bool,
    connected: AtomicBool,
    state: Mutex<State>,
    changed: Notify,
}

impl Lane {
    pub(super) fn new(number: usize, holds: bool) -> Self {
        let (connected, state, changed) = (AtomicBool::new(false), Mutex::default(), Notify::new());
        Self { number, holds, connected, state, changed }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscription and gives its answer; `None` if its filter overlaps with another, or the lane is over.
    pub(super) fn add(
        &self,
        filter: &TopicFilter,
        queue: &Arc<Queue>,
    ) -> Option<oneshot::Receiver<Result<(), BusError>>> {
        let mut state = self.state();
        if state.retired || state.entries.iter().any(|entry| overlap(&entry.filter, filter)) {
            return None;
        }
        let (ready, answer) = oneshot::channel();
        let (filter, queue) = (filter.clone(), Arc::clone(queue));
        state.entries.push(Entry { filter, queue, stage: Stage::New, ready: Some(ready) });
        self.changed.notify_one();
        Some(answer)
    }

    /// Has the lane look at its subscriptions again.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    pub(super) fn is_retired(&self) -> bool {
        self.state().retired
    }

    /// Ends all of its subscriptions.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.retired = true;
        for entry in state.entries.drain(..) {
            entry.queue.close();
        }
    }

    /// Forgets who has left, and says whether nobody is left; then nobody can come any more.
    fn retire_if_idle(&self) -> bool {
        let mut state = self.state();
        state.entries.retain(|entry| !entry.queue.is_abandoned());
        state.retired = state.entries.is_empty();
        state.retired
    }

    fn lost(&self) {
        self.connected.store(false, Ordering::Relaxed);
        for entry in &mut self.state().entries {
            entry.stage = Stage::New;
        }
    }

    /// What has to be sent so that the broker knows of the same subscriptions as we do.
    fn changes(&self, qos: QoS) -> Vec<Packet> {
        let State { entries, last_id, .. } = &mut *self.state();
        let mut id = || {
            *last_id = last_id.checked_add(1).unwrap_or(1);
            *last_id
        };
        let mut packets = Vec::new();
        entries.retain(|entry| {
            let left = entry.queue.is_abandoned();
            if left && entry.stage != Stage::New {
                let mut unsubscribe = Unsubscribe::new(entry.filter.as_str());
                unsubscribe.pkid = id();
                packets.push(Packet::Unsubscribe(unsubscribe));
            }
            !left
        });
        for entry in entries.iter_mut().filter(|entry| entry.stage == Stage::New) {
            let mut subscribe = Subscribe::new(entry.filter.as_str(), qos);
            subscribe.pkid = id();
            entry.stage = Stage::Asked(subscribe.pkid);
            packets.push(Packet::Subscribe(subscribe));
        }
        packets
    }

    fn answered(&self, ack: &SubAck) {
        let mut state = self.state();
        let Some(index) = state.entries.iter().position(|entry| entry.stage == Stage::Asked(ack.pkid)) else { return };
        if let [SubscribeReasonCode::Success(_)] = ack.return_codes[..] {
            let entry = &mut state.entries[index];
            entry.stage = Stage::Standing;
            match entry.ready.take() {
                // Whoever has stopped to wait has dropped the subscription too.
                Some(ready) => drop(ready.send(Ok(()))),
                None => entry.queue.resync(),
            }
            return;
        }
        let entry = state.entries.remove(index);
        let why = format!("the broker refused the subscription to {}", entry.filter);
        tracing::warn!(filter = %entry.filter, "the mqtt broker refused a subscription");
        match entry.ready {
            Some(ready) => drop(ready.send(Err(BusError::Refused(why)))),
            None => entry.queue.close(),
        }
    }

    fn deliver(&self, event: &Event) -> Holds {
        let mut holds = Holds::default();
        for entry in self.state().entries.iter().filter(|entry| entry.filter.matches(&event.topic)) {
            if let Some(hold) = entry.queue.offer(event.clone()) {
                holds.push(hold);
            }
        }
        holds
    }
}

/// Receives over one connection after the other, until `shutdown` or until nobody is subscribed.
pub(super) async fn run(lane: Arc<Lane>, shared: &Shared, shutdown: &CancellationToken) {
    let client_id = match lane.number {
        0 => shared.options.subscriber_id.clone(),
        number => format!("{}-{number}", shared.options.subscriber_id),
    };
    let mut dialer = Dialer::new(client_id, &shared.options);
    while !lane.retire_if_idle() {
        let Some(link) = dialer.link(shared, shutdown).await else { return };
        lane.connected.store(true, Ordering::Relaxed);
        let mut connection = Connection::new(&lane, link, &shared.options);
        let ended = tokio::select! {
            ended = connection.receive(qos_out(shared.options.subscribe_qos)) => ended,
            () = shutdown.cancelled() => Ok(()),
        };
        match ended {
            Ok(()) => leave(connection.link).await,
            Err(error) => tracing::warn!(error = %Causes(&error), "lost the mqtt broker while subscribed"),
        }
        lane.lost();
        if shutdown.is_cancelled() {
            return;
        }
    }
}

/// A connection and what was received over it.
struct Connection<'a> {
    lane: &'a Lane,
    link: Link,
    keepalive: Keepalive,
    /// Subscribers that the last event waits for; nothing more is read until then.
    held: Holds,
    /// Its confirmation.
    reply: Option<Packet>,
    /// Ids of QoS 2 messages that were delivered and not released.
    received: BTreeSet<u16>,
}

impl<'a> Connection<'a> {
    fn new(lane: &'a Lane, link: Link, options: &MqttOptions) -> Self {
        let keepalive = Keepalive::new(options.keep_alive, Instant::now());
        let (held, reply, received) = (Holds::default(), None, BTreeSet::new());
        Self { lane, link, keepalive, held, reply, received }
    }

    /// Ends well when nobody is subscribed any more.
    async fn receive(&mut self, qos: QoS) -> Result<(), Lost> {
        self.update(qos)?;
        loop {
            let held = !self.held.is_empty();
            let read = !held && self.link.has_room();
            tokio::select! {
                turn = self.link.turn(read) => match turn? {
                    Turn::Packet(packet) => self.handle(packet)?,
                    Turn::Flushed => {}
                    Turn::Closed => return Err(Lost::Closed),
                },
                () = self.held.admitted(), if held => self.answer()?,
                () = self.lane.changed.notified() => {
                    if self.lane.state().entries.iter().all(|entry| entry.queue.is_abandoned()) {
                        return Ok(());
                    }
                    self.update(qos)?;
                }
                () = sleep_until(self.keepalive.next()) => {
                    if !read {
                        self.keepalive.heard();
                    }
                    match self.keepalive.tick(Instant::now()) {
                        Due::Ping => self.link.queue(&Packet::PingReq)?,
                        Due::Dead => return Err(Lost::Dead),
                    }
                }
            }
        }
    }

    fn update(&mut self, qos: QoS) -> Result<(), WireError> {
        self.lane.changes(qos).iter().try_for_each(|packet| self.link.queue(packet))
    }

    fn handle(&mut self, packet: Packet) -> Result<(), WireError> {
        self.keepalive.heard();
        match packet {
            Packet::Publish(publish) => self.deliver(publish)?,
            Packet::PubRel(release) => {
                self.received.remove(&release.pkid);
                self.link.queue(&Packet::PubComp(PubComp::new(release.pkid)))?;
            }
            Packet::SubAck(ack) => self.lane.answered(&ack),
            _ => {}
        }
        Ok(())
    }

    fn deliver(&mut self, publish: Publish) -> Result<(), WireError> {
        let id = publish.pkid;
        let (reply, fresh) = match publish.qos {
            QoS::AtMostOnce => (None, true),
            QoS::AtLeastOnce => (Some(Packet::PubAck(PubAck::new(id))), true),
            QoS::ExactlyOnce => (Some(Packet::PubRec(PubRec::new(id))), self.received.insert(id)),
        };
        self.reply = reply;
        if fresh {
            match event_in(publish) {
                Ok(event) => self.held = self.lane.deliver(&event),
                Err(error) => tracing::debug!(%error, "the mqtt broker sent a bad topic"),
            }
        }
        if self.held.is_empty() { self.answer() } else { Ok(()) }
    }

    /// Confirms the last event, which its subscriber has by now.
    fn answer(&mut self) -> Result<(), WireError> {
        match self.reply.take() {
            Some(reply) => self.link.queue(&reply),
            None => Ok(()),
        }
    }
}
