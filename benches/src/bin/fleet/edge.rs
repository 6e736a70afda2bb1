//! One light edge: a session over a link, and the versions of what it has.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use kubeedge_core::{
    inventory::InventoryQuestion,
    message::Message,
    names::{DeviceId, SystemClock, WallClock as _},
    resource::ResourceType,
    session::{Keepalive, Outbound, Receipt, Session, SessionConfig, SessionEvent, Ticket, Until},
    transport::{CloudEndpoint, Link, LinkError, TransportHandle},
    words::Operation,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    gate::Gate,
    probe,
    shelf::{Arrival, Shelf},
    tally::Tally,
    uplink::{Uplink, UplinkPlan},
};

/// Longest pause between two dials.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// For the cloud to answer the close of a link.
const FAREWELL: Duration = Duration::from_secs(5);

/// What edges are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Be connected.
    Online,
    /// Be disconnected, and remember what one has.
    Offline,
    /// End.
    Gone,
}

/// How an edge behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Good,
    /// It keeps the link alive and never reads from it.
    NeverReads,
    /// It reads and never acknowledges.
    NeverAcknowledges,
}

/// What edges share.
pub(crate) struct Common {
    pub(crate) tally: Tally,
    pub(crate) gate: Gate,
    pub(crate) keepalive: Duration,
    pub(crate) uplinks: UplinkPlan,
    pub(crate) manner: Manner,
}

/// One light edge.
pub(crate) struct Edge {
    endpoint: CloudEndpoint,
    transport: TransportHandle,
    common: Arc<Common>,
    wanted: watch::Receiver<Wanted>,
    shelf: Shelf,
    registered: bool,
    /// The devices that came.
    devices: Vec<DeviceId>,
}

impl Edge {
    pub(crate) fn new(
        endpoint: CloudEndpoint,
        transport: TransportHandle,
        common: Arc<Common>,
        wanted: watch::Receiver<Wanted>,
    ) -> Self {
        Self { endpoint, transport, common, wanted, shelf: Shelf::default(), registered: false, devices: Vec::new() }
    }

    /// Runs until it is to be gone.
    pub(crate) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let wanted = *self.wanted.borrow_and_update();
            match wanted {
                Wanted::Gone => return,
                Wanted::Offline => {
                    if self.wanted.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                Wanted::Online => {}
            }
            match self.dial().await {
                Ok(link) => {
                    let end = self.serve(link).await;
                    self.common.tally.disconnected(end.as_ref());
                    if end.is_none() {
                        continue;
                    }
                    pause = FIRST_PAUSE;
                }
                Err(error) => self.common.tally.failed("dial", &error),
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn dial(&self) -> Result<Box<dyn Link>, LinkError> {
        let _turn = self.common.gate.enter().await;
        let start = Instant::now();
        let link = self.transport.dial(self.endpoint.clone()).await?;
        self.common.tally.connected(start.elapsed());
        Ok(link)
    }

    /// Serves a link to its end; the reason is absent if it was ours.
    async fn serve(&mut self, mut link: Box<dyn Link>) -> Option<LinkError> {
        let end = Box::pin(self.converse(&mut link)).await.err();
        let _closed = tokio::time::timeout(FAREWELL, link.close()).await;
        end
    }

    async fn converse(&mut self, link: &mut Box<dyn Link>) -> Result<(), LinkError> {
        let now = Instant::now();
        // So that those who came together do not stay together.
        let every = self.common.keepalive.mul_f64(0.9 + 0.1 * fastrand::f64());
        let config = SessionConfig::edge().keepalive(Keepalive::Send { every });
        let mut session = Session::new(config, now.into_std());
        let mut uplink = Uplink::new(&self.common.uplinks, !self.registered, now);
        let mut asked = HashMap::new();
        let reads = self.common.manner != Manner::NeverReads;
        loop {
            while let Some(event) = session.poll_event() {
                self.happened(&mut session, event, &mut asked);
            }
            while let Some(message) = session.poll_transmit() {
                link.feed(message).await?;
            }
            link.flush().await?;
            let due = session.poll_timeout().map_or_else(Instant::now, Instant::from_std).min(uplink.due());
            tokio::select! {
                message = link.next(), if reads => match message {
                    Some(message) => session.handle_message(Instant::now().into_std(), message?),
                    None => return Err(LinkError::Closed),
                },
                () = sleep_until(due) => {
                    let now = Instant::now();
                    session.handle_timeout(now.into_std(), SystemClock.now());
                    if let Some(message) = uplink.next(&self.common.uplinks, &self.endpoint.node, &self.devices, now) {
                        let request = Outbound { message, until: Until::Replied };
                        if let Ok(ticket) = session.submit(now.into_std(), request) {
                            asked.insert(ticket, now);
                        }
                    }
                }
                changed = self.wanted.changed() => {
                    if changed.is_err() || *self.wanted.borrow() != Wanted::Online {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn happened(&mut self, session: &mut Session, event: SessionEvent, asked: &mut HashMap<Ticket, Instant>) {
        match event {
            SessionEvent::Deliver(message) if InventoryQuestion::is_asked_by(&message) => {
                // One that cannot be read is not answered, and the cloud goes by its records.
                if let Ok(question) = InventoryQuestion::read(&message) {
                    let answer = self.shelf.answer(&question).message(&message, SystemClock.now());
                    let answer = Outbound { message: answer, until: Until::Written };
                    let _full = session.submit(Instant::now().into_std(), answer);
                }
            }
            SessionEvent::Deliver(message) => {
                let arrival = self.shelf.apply(&message);
                self.common.tally.arrived(arrival, &message);
                if arrival == Arrival::New && message.operation == Operation::Insert {
                    self.devices.extend(device_of(&message));
                }
                if arrival == Arrival::New
                    && let Some(age) = probe::age(&message)
                {
                    self.common.tally.delivered.add(age);
                }
                self.acknowledge(session, &message);
            }
            // It would come again otherwise.
            SessionEvent::Late(message) => self.acknowledge(session, &message),
            SessionEvent::Settled(ticket, settled) => {
                let since = asked.remove(&ticket);
                if let (Some(since), Ok(Receipt::Reply(message))) = (since, settled) {
                    self.registered = true;
                    self.common.tally.answered(&message, since.elapsed());
                }
            }
            _ => {}
        }
    }

    fn acknowledge(&self, session: &mut Session, message: &Message) {
        if self.common.manner == Manner::Good {
            let message = message.acknowledgement(SystemClock.now());
            // If there is no room, the cloud sends it again.
            let _full = session.submit(Instant::now().into_std(), Outbound { message, until: Until::Written });
        }
    }
}

fn device_of(message: &Message) -> Option<DeviceId> {
    let path = message.resource.object().filter(|path| path.kind == ResourceType::Device)?;
    Some(DeviceId::new(path.namespace.clone()?, path.name.clone()?))
}
