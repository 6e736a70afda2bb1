//! Between MQTT and the cloud: what applications upload, and what rules of the cloud publish and subscribe to.
//!
//! Upstream: `edge/pkg/eventbus`, `cloud/pkg/router/provider/eventbus`.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use kubeedge_core::{
    bus::{BusHandle, Event},
    message::{Content, Message},
    meta::{Collection, MetaError, MetaHandle, MetaKey, MetaWrite, Precondition, Record, Selector},
    names::SharedClock,
    outbox::{self, Stream, WhenFull},
    resource::Resource,
    service::{BoxError, Causes},
    topic::{Topic, TopicFilter},
    uplink::Inbound,
    words::{Group, Operation, Source},
};
use kubeedge_twin::listen;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::meta::{Change, Follower};

/// What always goes to the cloud.
const UPLOADS: [&str; 3] = ["$hw/events/upload/#", "SYS/dis/upload_records", "+/user/#"];
/// Where subscriptions of the cloud are kept, by their topics.
///
/// Upstream: table `sub_topics`.
const SUBSCRIPTIONS: &str = "sub_topics";
/// Publications of the cloud that wait for the bus.
const PUBLICATIONS: usize = 256;
/// Events that share a commit at most.
const BATCH: usize = 64;
/// How long a store that fails is left alone: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// Carries application data between the bus and the cloud.
///
/// * **Up.** What is published on `$hw/events/upload/#`, `SYS/dis/upload_records`, `+/user/#`, and on topics that rules of
///   the cloud have subscribed to, is left in the [outbox](kubeedge_core::outbox) as one of its
///   [uploads](Stream::uploads): it survives the loss of the link and of power, and when the stream is full its oldest
///   entry goes. Nothing more is taken from the bus while the store cannot take it, so publishers wait. A payload is
///   carried as text, as the channel has it; bytes that are no text are replaced, with a warning.
/// * **Down.** Publications of the cloud go to the bus in their order. At most 256 wait for it; one more is dropped with a
///   warning, as nobody waits for an answer to it. Subscriptions are kept in the store.
#[must_use = "nothing is carried unless it runs"]
pub struct CloudBridge {
    store: MetaHandle,
    bus: BusHandle,
    clock: SharedClock,
    publications: mpsc::Receiver<Event>,
}

type Listening = BTreeMap<TopicFilter, BoxStream<'static, Event>>;

impl CloudBridge {
    /// A bridge, and the service that takes messages of the cloud for the group
    /// [`User`](kubeedge_core::words::Group::User).
    pub fn new(store: MetaHandle, bus: BusHandle, clock: SharedClock) -> (Inbound, Self) {
        let (publish, publications) = mpsc::channel(PUBLICATIONS);
        let subscriptions = store.clone();
        let inbound = Inbound::new(tower::service_fn(move |message: Message| {
            let (publish, store) = (publish.clone(), subscriptions.clone());
            async move {
                carry_out(&message, &publish, &store).await?;
                // The cloud expects no answer.
                Ok::<_, BoxError>(None)
            }
        }));
        (inbound, Self { store, bus, clock, publications })
    }

    /// Runs until `shutdown`, or until the store is closed.
    ///
    /// # Cancel safety
    /// What was taken from the bus and is not in the store yet is lost, and so are publications that wait.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { store, bus, clock, mut publications } = self;
        let up = async {
            let uploads = Uploads { store, bus: bus.clone(), clock };
            uploads.run().await;
        };
        let down = async {
            while let Some(event) = publications.recv().await {
                let topic = event.topic.clone();
                if let Err(error) = bus.publish(event).await {
                    tracing::warn!(%topic, error = %Causes(&error), "publication of the cloud is lost");
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = up => {}
            () = down => {}
        }
    }
}

impl fmt::Debug for CloudBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudBridge").field("bus", &self.bus).finish_non_exhaustive()
    }
}

/// Publishes, subscribes and unsubscribes.
async fn carry_out(message: &Message, publish: &mpsc::Sender<Event>, store: &MetaHandle) -> Result<(), BoxError> {
    let Resource::Opaque(topic) = &message.resource else { return Ok(()) };
    match message.operation {
        Operation::Publish => {
            let topic = Topic::new(topic)?;
            let payload = match message.content.as_text() {
                Some(text) => Bytes::from(text),
                None => Bytes::copy_from_slice(message.content.as_json().as_bytes()),
            };
            if publish.try_send(Event::new(topic.clone(), payload)).is_err() {
                tracing::warn!(%topic, waiting = PUBLICATIONS, "publication of the cloud dropped, too many wait for the bus");
            }
        }
        Operation::Subscribe => {
            TopicFilter::new(topic)?;
            let record = Record::new(subscription(topic)?, Bytes::new());
            store.commit(vec![MetaWrite::Put(record, Precondition::Always)]).await?;
        }
        Operation::Unsubscribe => {
            store.commit(vec![MetaWrite::Delete(subscription(topic)?, Precondition::Always)]).await?;
        }
        _ => tracing::debug!(operation = %message.operation, %topic, "nothing that the event bus does"),
    }
    Ok(())
}

fn subscription(topic: &str) -> Result<MetaKey, BoxError> {
    Ok(MetaKey::new(Collection::new(SUBSCRIPTIONS)?, "", topic))
}

struct Uploads {
    store: MetaHandle,
    bus: BusHandle,
    clock: SharedClock,
}

impl Uploads {
    async fn run(&self) {
        let Ok(collection) = Collection::new(SUBSCRIPTIONS) else { return };
        let mut subscriptions = Follower::new(self.store.clone(), Selector::all(collection));
        let always: Vec<_> = UPLOADS.iter().filter_map(|filter| TopicFilter::new(filter).ok()).collect();
        let mut listening: Listening = always.iter().map(|filter| (filter.clone(), self.listen(filter))).collect();
        loop {
            let events = tokio::select! {
                change = subscriptions.next_patiently() => {
                    let Some(change) = change else { return };
                    self.follow(&mut listening, &always, change);
                    continue;
                }
                events = poll_fn(|cx| arrived(&mut listening, cx)) => events,
            };
            if !self.keep(events).await {
                return;
            }
        }
    }

    fn listen(&self, filter: &TopicFilter) -> BoxStream<'static, Event> {
        listen(self.bus.clone(), filter.clone())
    }

    fn follow(&self, listening: &mut Listening, always: &[TopicFilter], change: Change) {
        let filter = |key: &MetaKey| TopicFilter::new(&*key.name).ok();
        match change {
            Change::Listed(records) => {
                let wanted: Vec<_> = records.iter().filter_map(|record| filter(&record.key)).collect();
                listening.retain(|filter, _| always.contains(filter) || wanted.contains(filter));
                for filter in wanted {
                    listening.entry(filter.clone()).or_insert_with(|| self.listen(&filter));
                }
            }
            Change::Put(record) => {
                if let Some(filter) = filter(&record.key) {
                    listening.entry(filter.clone()).or_insert_with(|| self.listen(&filter));
                }
            }
            Change::Deleted(key) => {
                if let Some(filter) = filter(&key).filter(|filter| !always.contains(filter)) {
                    listening.remove(&filter);
                }
            }
        }
    }

    /// Leaves the events for the cloud, however long that takes; `false` when the store is closed.
    async fn keep(&self, events: Vec<Event>) -> bool {
        let mut batches = VecDeque::from([events.iter().map(|event| self.upload(event)).collect::<Vec<_>>()]);
        let mut pause = PAUSES[0];
        while let Some(batch) = batches.front() {
            match self.store.commit(batch.clone()).await {
                Ok(_) => drop(batches.pop_front()),
                Err(MetaError::Closed) => return false,
                // One of them is larger than the stream may be: the others must not suffer.
                Err(MetaError::OutboxFull(_)) if batch.len() > 1 => {
                    batches = batches.pop_front().into_iter().flatten().map(|write| vec![write]).collect();
                }
                Err(error @ MetaError::OutboxFull(_)) => {
                    tracing::error!(error = %Causes(&error), "upload is lost");
                    batches.pop_front();
                }
                Err(error) => {
                    tracing::warn!(error = %Causes(&error), "uploads cannot be stored, publishers wait");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
            }
        }
        true
    }

    fn upload(&self, event: &Event) -> MetaWrite {
        let text = String::from_utf8_lossy(&event.payload);
        if matches!(text, std::borrow::Cow::Owned(_)) {
            tracing::warn!(topic = %event.topic, "payload is no text, some bytes of it are replaced on the way to the cloud");
        }
        let topic = Resource::Opaque(event.topic.as_str().into());
        let message = Message::new(self.clock.now(), Source::Bus, Group::User, Operation::Upload, topic);
        outbox::append(&Stream::uploads(), &message.content(Content::text(&text)), WhenFull::DropOldest)
    }
}

/// What has arrived, each event once: one that passes several filters counts for the first of them.
fn arrived(listening: &mut Listening, cx: &mut Context<'_>) -> Poll<Vec<Event>> {
    let filters: Vec<_> = listening.keys().cloned().collect();
    let mut events = Vec::new();
    for (place, (_, stream)) in listening.iter_mut().enumerate() {
        while events.len() < BATCH
            && let Poll::Ready(Some(event)) = stream.poll_next_unpin(cx)
        {
            if !filters[..place].iter().any(|earlier| earlier.matches(&event.topic)) {
                events.push(event);
            }
        }
    }
    if events.is_empty() { Poll::Pending } else { Poll::Ready(events) }
}
