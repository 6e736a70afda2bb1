use std::time::Duration;

use kubeedge_core::{
    answer::{Answer, ApiStatus},
    message::{Content, Message},
    meta::MetaHandle,
    outbox::{self, Subject},
    testing::MemoryStore,
};
use kubeedge_edge::hub::{OutboxConfig, OutboxDepth, OutboxSender};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::cloud::{Cloud, Rig, acknowledging, config, query, within};

/// An outbox that is sent over a hub.
struct Post {
    rig: Rig,
    store: MetaHandle,
    depth: OutboxDepth,
    stop: CancellationToken,
    sending: JoinHandle<()>,
}

impl Post {
    fn new(memory: &MemoryStore) -> Self {
        let rig = Rig::new(config(), 64, acknowledging());
        let store = MetaHandle::of(memory.clone());
        let sender = OutboxSender::new(OutboxConfig::default(), store.clone(), rig.uplink.clone());
        let (depth, stop) = (sender.depth(), CancellationToken::new());
        let sending = tokio::spawn(sender.run(stop.clone()));
        Self { rig, store, depth, stop, sending }
    }

    async fn leave(&self, subject: &str, message: &Message) {
        self.store.commit(vec![outbox::leave(&Subject::new(subject).unwrap(), message)]).await.unwrap();
    }

    async fn left(&self) -> Vec<String> {
        let entries = self.store.list(outbox::selector()).await.unwrap();
        entries.iter().map(|entry| entry.key.name.to_string()).collect()
    }

    async fn emptied(&mut self) {
        // The sender may not have seen the newest entry yet: the store decides.
        within(async {
            while !self.left().await.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.depth.emptied().await;
        })
        .await;
    }
}

fn message(value: &str) -> Message {
    query("twin").content(Content::text(value))
}

fn text(message: &Message) -> String {
    message.content.as_text().unwrap()
}

async fn answer(cloud: &mut Cloud, request: &Message, status: u16) {
    let refused = Answer::Refused(ApiStatus::failure(status, "Because", "no"));
    cloud.reply(request, refused.to_object_resp().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_goes_until_it_is_answered_and_then_no_more() {
    let mut post = Post::new(&MemoryStore::new());
    let mut cloud = post.rig.accept().await;
    post.leave("twin/default/boiler", &message("1")).await;
    let sent = cloud.expect().await;
    assert_eq!(text(&sent), "1");
    assert_eq!(post.left().await, ["twin/default/boiler"], "it stays until it is answered");
    cloud.reply(&sent, Content::ok()).await;
    post.emptied().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_the_link_broke_is_sent_again() {
    let mut post = Post::new(&MemoryStore::new());
    let mut cloud = post.rig.accept().await;
    post.leave("a", &message("1")).await;
    let first = cloud.expect().await;
    drop(cloud);
    let mut cloud = post.rig.accept().await;
    let again = cloud.expect().await;
    assert_eq!(
        (&again.id, text(&again)),
        (&first.id, "1".to_owned()),
        "the same message, so the cloud can know it again"
    );
    cloud.reply(&again, Content::ok()).await;
    post.emptied().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_left_without_a_link_goes_when_there_is_one_and_only_the_newest() {
    let mut post = Post::new(&MemoryStore::new());
    for value in ["1", "2", "3"] {
        post.leave("a", &message(value)).await;
    }
    post.leave("b", &message("only")).await;
    let mut cloud = post.rig.accept().await;
    let (first, second) = (cloud.expect().await, cloud.expect().await);
    assert_eq!((text(&first), text(&second)), ("3".to_owned(), "only".to_owned()));
    cloud.reply(&second, Content::ok()).await;
    cloud.reply(&first, Content::ok()).await;
    post.emptied().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_replaced_under_way_is_sent_anew_and_only_then_settled() {
    let mut post = Post::new(&MemoryStore::new());
    let mut cloud = post.rig.accept().await;
    post.leave("a", &message("old")).await;
    let old = cloud.expect().await;
    post.leave("a", &message("new")).await;
    cloud.reply(&old, Content::ok()).await;
    let new = cloud.expect().await;
    assert_eq!(text(&new), "new");
    assert_eq!(post.left().await, ["a"], "the answer to the old one does not settle the new one");
    cloud.reply(&new, Content::ok()).await;
    post.emptied().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_sends_what_was_not_answered() {
    let memory = MemoryStore::new();
    let post = Post::new(&memory);
    let mut cloud = post.rig.accept().await;
    post.leave("a", &message("1")).await;
    cloud.expect().await;
    post.stop.cancel();
    within(post.sending).await.unwrap();
    drop((cloud, post.rig));

    let mut post = Post::new(&memory);
    let mut cloud = post.rig.accept().await;
    let again = cloud.expect().await;
    assert_eq!(text(&again), "1");
    cloud.reply(&again, Content::ok()).await;
    post.emptied().await;
}

#[tokio::test(start_paused = true)]
async fn refusals_for_good_drop_an_entry_and_others_are_tried_again() {
    let mut post = Post::new(&MemoryStore::new());
    let mut cloud = post.rig.accept().await;
    for status in [400, 403, 404, 422] {
        post.leave("a", &message("bad")).await;
        let sent = cloud.expect().await;
        answer(&mut cloud, &sent, status).await;
        post.emptied().await;
    }
    post.leave("b", &message("later")).await;
    for status in [409, 429, 500, 503] {
        let sent = cloud.expect().await;
        let refused = Instant::now();
        answer(&mut cloud, &sent, status).await;
        let again = cloud.expect().await;
        assert!(refused.elapsed() >= Duration::from_millis(500), "not at once after {status}");
        answer(&mut cloud, &again, status).await;
    }
    let sent = cloud.expect().await;
    let failed = sent.refusal(kubeedge_core::names::UnixMillis(1), sent.source.clone(), &"broken");
    cloud.send(failed).await;
    let sent = cloud.expect().await;
    cloud.reply(&sent, Content::ok()).await;
    post.emptied().await;
}

#[tokio::test(start_paused = true)]
async fn entries_that_are_never_answered_do_not_hold_up_the_others() {
    let post = Post::new(&MemoryStore::new());
    let mut cloud = post.rig.accept().await;
    for count in 0..40 {
        post.leave(&format!("dead/{count}"), &message("dead")).await;
    }
    // Long enough for every dead entry to have had its turn and to be tried again and again.
    let mut dead = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(400) {
        assert_eq!(text(&cloud.expect().await), "dead");
        dead += 1;
    }
    assert!(dead > 40, "what is not answered is sent again");
    post.leave("live", &message("live")).await;
    let left = Instant::now();
    loop {
        let sent = cloud.expect().await;
        if text(&sent) == "live" {
            break;
        }
    }
    assert!(left.elapsed() < Duration::from_secs(1), "after {:?}", left.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_does_not_end_the_sender() {
    let memory = MemoryStore::new();
    let mut post = Post::new(&memory);
    let mut cloud = post.rig.accept().await;
    post.leave("a", &message("1")).await;
    let sent = cloud.expect().await;
    memory.fail_commits(true);
    cloud.reply(&sent, Content::ok()).await;
    // It could not be taken away, so it comes again.
    let again = cloud.expect().await;
    assert_eq!(again.id, sent.id);
    memory.fail_commits(false);
    cloud.reply(&again, Content::ok()).await;
    post.emptied().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_entry_is_dropped() {
    let mut post = Post::new(&MemoryStore::new());
    let damaged = kubeedge_core::meta::Record::new(outbox::key(&Subject::new("bad").unwrap()), vec![0xff, 0x00]);
    post.store.put(damaged).await.unwrap();
    post.leave("good", &message("1")).await;
    let mut cloud = post.rig.accept().await;
    let sent = cloud.expect().await;
    assert_eq!(text(&sent), "1");
    cloud.reply(&sent, Content::ok()).await;
    post.emptied().await;
}
