//! Streams of the outbox, and its limits, over a hub.

use std::time::Duration;

use kubeedge_core::{
    layer::OutboxLayer,
    message::{Content, Message},
    meta::{MetaError, MetaHandle},
    names::UnixMillis,
    outbox::{self, OutboxLimits, Stream, StreamLimit, Subject, WhenFull},
    resource::{ObjectPath, ResourceType},
    testing::MemoryStore,
    words::{Group, Operation, Source},
};
use kubeedge_edge::hub::{HubConfig, OutboxConfig, OutboxDepth, OutboxSender, RateLimit};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

use crate::cloud::{Cloud, Rig, acknowledging, config, query, within};

/// An outbox within limits that is sent over a hub.
struct Post {
    rig: Rig,
    memory: MemoryStore,
    store: MetaHandle,
    depth: OutboxDepth,
    _sending: JoinSet<()>,
}

impl Post {
    fn new(config: HubConfig, limits: OutboxLimits) -> Self {
        let rig = Rig::new(config, 64, acknowledging());
        let (memory, layer) = (MemoryStore::new(), OutboxLayer::new(limits));
        let store = MetaHandle::new(layer.layer(MetaHandle::of(memory.clone())));
        let sender = OutboxSender::new(OutboxConfig::default(), store.clone(), rig.uplink.clone()).drops(layer.drops());
        let (depth, mut sending) = (sender.depth(), JoinSet::new());
        sending.spawn(sender.run(CancellationToken::new()));
        Self { rig, memory, store, depth, _sending: sending }
    }

    async fn leave(&self, subject: &str, value: &str) -> Result<(), MetaError> {
        let subject = Subject::new(subject).unwrap();
        self.store.commit(vec![outbox::leave(&subject, &query("twin").content(Content::text(value)))]).await.map(drop)
    }

    async fn append(&self, stream: &Stream, messages: impl IntoIterator<Item = Message>) {
        let writes = messages.into_iter().map(|message| outbox::append(stream, &message, WhenFull::DropOldest));
        self.store.commit(writes.collect()).await.unwrap();
    }

    async fn entries(&self) -> usize {
        self.store.list(outbox::selector()).await.unwrap().len()
    }

    async fn emptied(&mut self) {
        within(async {
            while self.entries().await > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.depth.emptied().await;
        })
        .await;
    }
}

/// An event of a pod, which no cloud answers.
pub(crate) fn event(number: u32) -> Message {
    let path = ObjectPath::namespaced("default", ResourceType::Event, "web").unwrap();
    Message::new(UnixMillis(1), Source::Edged, Group::Meta, Operation::Insert, path)
        .content(Content::text(&number.to_string()))
}

pub(crate) fn is_event(message: &Message) -> bool {
    message.resource.object().is_some_and(|path| path.kind == ResourceType::Event)
}

fn number(message: &Message) -> u32 {
    message.content.as_text().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_week_without_a_cloud_leaves_the_newest_events_in_order_and_all_of_the_state() {
    const KEPT: usize = 2000;
    let limit = StreamLimit { entries: KEPT, ..StreamLimit::default() };
    let mut post = Post::new(config(), OutboxLimits::default().stream(Stream::events(), limit));
    let start = Instant::now();
    for hour in 0..170 {
        post.append(&Stream::events(), (hour * 1000..(hour + 1) * 1000).map(event)).await;
        for device in ["boiler", "pump", "valve"] {
            post.leave(device, &hour.to_string()).await.unwrap();
        }
        tokio::time::sleep(Duration::from_hours(1)).await;
    }
    assert!(start.elapsed() > Duration::from_hours(7 * 24));
    assert_eq!(post.entries().await, KEPT + 3, "the store is bounded");
    assert_eq!((post.depth.state(), post.depth.streams()), (3, KEPT), "and what the sender remembers");
    assert_eq!(post.depth.dropped(), 170_000 - KEPT as u64);

    let mut cloud = post.rig.accept().await;
    let (mut events, mut state) = (Vec::new(), 0);
    while events.len() < KEPT || state < 3 {
        let sent = cloud.expect().await;
        if is_event(&sent) {
            events.push(number(&sent));
        } else {
            assert_eq!(number(&sent), 169, "the newest");
            cloud.reply(&sent, Content::ok()).await;
            state += 1;
        }
    }
    assert_eq!(events, (168_000..170_000).collect::<Vec<_>>());
    post.emptied().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_in_order_over_lost_links_though_some_of_it_may_come_twice() {
    let mut post = Post::new(config(), OutboxLimits::default());
    post.append(&Stream::events(), (0..500).map(event)).await;
    let mut newest = None;
    while newest != Some(499) {
        let mut cloud = post.rig.accept().await;
        let mut last = None;
        for _ in 0..37 {
            let Ok(sent) = tokio::time::timeout(Duration::from_secs(1), cloud.expect()).await else { break };
            let sent = number(&sent);
            assert!(last.is_none_or(|last| sent == last + 1), "{sent} after {last:?}");
            last = Some(sent);
        }
        newest = last.max(newest);
    }
    post.emptied().await;
}

/// A message that is answered, in a stream.
fn request(number: u32) -> Message {
    query("twin").content(Content::text(&number.to_string()))
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_answered_is_waited_for_and_a_failure_holds_up_only_its_stream() {
    let mut post = Post::new(config(), OutboxLimits::default());
    let (own, other) = (Stream::new("own").unwrap(), Stream::new("other").unwrap());
    let mut cloud = post.rig.accept().await;
    post.append(&own, (0..3).map(request)).await;
    let first = cloud.expect().await;
    assert_eq!(number(&first), 0);
    let failed = first.refusal(UnixMillis(1), first.source.clone(), &"later");
    cloud.send(failed).await;
    post.append(&other, [request(100)]).await;
    let sent = cloud.expect().await;
    assert_eq!(number(&sent), 100, "another stream goes on");
    cloud.reply(&sent, Content::ok()).await;
    for expected in 0..3 {
        let sent = cloud.expect().await;
        assert_eq!(number(&sent), expected);
        let quiet = tokio::time::timeout(Duration::from_millis(100), cloud.next()).await;
        assert!(quiet.is_err(), "the next one waits for the answer");
        cloud.reply(&sent, Content::ok()).await;
    }
    post.emptied().await;
}

async fn until_state(cloud: &mut Cloud) -> (usize, Message) {
    let mut events = 0;
    loop {
        let sent = cloud.expect().await;
        if !is_event(&sent) {
            return (events, sent);
        }
        events += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn fresh_state_passes_long_streams() {
    let limit = RateLimit { per_second: 30, burst: 60 };
    let post = Post::new(config().rate(Some(limit)), OutboxLimits::default());
    for stream in 0..10 {
        post.append(&Stream::new(format!("s{stream}")).unwrap(), (0..1000).map(event)).await;
    }
    let mut cloud = post.rig.accept().await;
    for _ in 0..200 {
        assert!(is_event(&cloud.expect().await));
    }
    for round in 0..20 {
        post.leave("boiler", &round.to_string()).await.unwrap();
        let left = Instant::now();
        let (events, sent) = until_state(&mut cloud).await;
        assert!(events <= 2 * 4, "{events} events before it, with four slots for streams");
        assert!(left.elapsed() < Duration::from_millis(500), "after {:?}", left.elapsed());
        cloud.reply(&sent, Content::ok()).await;
    }
    assert!(post.depth.streams() > 8000, "the streams are still long");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_finds_no_room_fails_and_goes_through_later() {
    let mut post = Post::new(config(), OutboxLimits::default().state(2, 1 << 20));
    post.leave("boiler", "1").await.unwrap();
    post.memory.fail_commits(true);
    assert!(matches!(post.leave("pump", "1").await, Err(MetaError::Failed(_))), "a full disk is told");
    post.memory.fail_commits(false);
    post.leave("pump", "2").await.unwrap();
    assert!(matches!(post.leave("valve", "1").await, Err(MetaError::OutboxFull(_))), "a full outbox is told");
    post.leave("boiler", "2").await.unwrap();
    let mut cloud = post.rig.accept().await;
    for _ in 0..2 {
        let sent = cloud.expect().await;
        assert_eq!(number(&sent), 2);
        cloud.reply(&sent, Content::ok()).await;
    }
    post.emptied().await;
    post.leave("valve", "3").await.unwrap();
    let sent = cloud.expect().await;
    assert_eq!(number(&sent), 3);
    cloud.reply(&sent, Content::ok()).await;
    post.emptied().await;
}
