//! A node that is gone from one moment to the next, at every step that it takes on its disk.

use std::{
    collections::BTreeSet,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kubeedge_core::{
    layer::OutboxLayer,
    message::{Content, Message},
    meta::{MetaHandle, MetaRequest},
    outbox::{self, Entry, Stream, Subject, WhenFull},
    testing::MemoryStore,
};
use kubeedge_edge::{
    hub::{OutboxConfig, OutboxSender},
    meta::SqliteStore,
};
use tempfile::TempDir;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::{Layer as _, ServiceExt as _};

use crate::{
    cloud::{Cloud, Rig, acknowledging, config, query, within},
    outbox_streams::{event, is_event},
};

/// When the power goes: before or after the store has done its so-manieth call.
#[derive(Clone, Copy, Debug)]
struct PowerCut {
    call: usize,
    after: bool,
}

/// A store that does nothing any more once the power is gone.
fn cut(store: MetaHandle, cut: Option<PowerCut>, gone: &Arc<Notify>) -> MetaHandle {
    let (calls, gone) = (Arc::new(AtomicUsize::new(0)), Arc::clone(gone));
    MetaHandle::new(tower::service_fn(move |request: MetaRequest| {
        let (store, gone, call) = (store.clone(), Arc::clone(&gone), calls.fetch_add(1, Ordering::Relaxed));
        async move {
            match cut {
                Some(cut) if call > cut.call || (call == cut.call && !cut.after) => {
                    gone.notify_one();
                    pending().await
                }
                Some(cut) if call == cut.call => {
                    let _ = store.oneshot(request).await;
                    gone.notify_one();
                    pending().await
                }
                _ => store.oneshot(request).await,
            }
        }
    }))
}

/// What a message says, and whether it is of the stream.
type Said = (bool, String);

fn said(message: &Message) -> Said {
    (is_event(message), message.content.as_text().unwrap())
}

/// What was seen in one life of the node.
#[derive(Debug, Default)]
struct Life {
    /// Reports that were told that they are stored.
    stored: Vec<Said>,
    /// What the cloud got.
    sent: Vec<Said>,
    /// Whether the power went.
    is_cut: bool,
}

/// Reports in order, each after the one before is stored.
async fn report(store: &MetaHandle, stored: &mut Vec<Said>) {
    for number in 0..4_u32 {
        let state = query("twin").content(Content::text(&number.to_string()));
        let device = if number % 2 == 0 { "boiler" } else { "pump" };
        let writes = [
            outbox::leave(&Subject::new(device).unwrap(), &state),
            outbox::append(&Stream::events(), &event(number), WhenFull::DropOldest),
        ];
        store.commit(writes.into()).await.unwrap();
        stored.extend([said(&state), said(&event(number))]);
    }
}

async fn serve(cloud: &mut Cloud, sent: &mut Vec<Said>) {
    loop {
        let message = cloud.expect().await;
        sent.push(said(&message));
        if !is_event(&message) {
            cloud.reply(&message, Content::ok()).await;
        }
    }
}

async fn live(store: MetaHandle, power_cut: Option<PowerCut>, reports: bool) -> Life {
    let gone = Arc::new(Notify::new());
    let store = MetaHandle::new(OutboxLayer::default().layer(cut(store, power_cut, &gone)));
    let rig = Rig::new(config(), 64, acknowledging());
    let sender = OutboxSender::new(OutboxConfig::default(), store.clone(), rig.uplink.clone());
    let mut sending = JoinSet::new();
    sending.spawn(sender.run(CancellationToken::new()));
    let mut cloud = rig.accept().await;
    let mut life = Life::default();
    let finished = async {
        if reports {
            report(&store, &mut life.stored).await;
        }
        while !store.list(outbox::selector()).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = within(finished) => {}
        () = gone.notified() => life.is_cut = true,
        () = serve(&mut cloud, &mut life.sent) => {}
    }
    sending.shutdown().await;
    // What was on the wire still arrives.
    drop(rig);
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(20), cloud.next()).await {
        life.sent.push(said(&message));
    }
    life
}

/// Every entry that is there: what it says.
async fn left(store: &MetaHandle) -> BTreeSet<Said> {
    let entries = store.list(outbox::selector()).await.unwrap();
    assert!(entries.iter().all(|entry| Entry::of(&entry.key).is_some()));
    entries.iter().map(|entry| said(&outbox::message(entry).unwrap())).collect()
}

fn check(first: &Life, left: &BTreeSet<Said>, second: &Life, cut: PowerCut) {
    let all: BTreeSet<&Said> = first.sent.iter().chain(&second.sent).collect();
    for said in first.stored.iter().filter(|(is_event, _)| *is_event) {
        assert!(all.contains(said), "event {said:?} was stored and is lost, {cut:?}: {first:?} {second:?}");
    }
    for device in [0, 1] {
        let newest = first
            .stored
            .iter()
            .rev()
            .find(|(is_event, number)| !is_event && number.parse::<u32>().unwrap() % 2 == device);
        let Some((_, newest)) = newest else { continue };
        let arrived = |(is_event, number): &&&Said| !is_event && number.parse::<u32>().unwrap() % 2 == device;
        let last = all.iter().filter(arrived).map(|(_, number)| number).max();
        assert!(last >= Some(newest), "state {newest} is lost, {cut:?}: {first:?} {second:?}");
    }
    let again: BTreeSet<Said> = second.sent.iter().cloned().collect();
    assert_eq!(again, *left, "what was settled does not come again, {cut:?}");
    let events: Vec<_> = second.sent.iter().filter(|(is_event, _)| *is_event).collect();
    assert!(events.is_sorted(), "{events:?}");
}

/// Lives twice on the same store, the first time until the power cut; whether there was one.
async fn crash(cut: PowerCut, open: impl AsyncFn() -> MetaHandle) -> bool {
    let first = live(open().await, Some(cut), true).await;
    let left = left(&open().await).await;
    let second = live(open().await, None, false).await;
    check(&first, &left, &second, cut);
    first.is_cut
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_loses_nothing_and_repeats_nothing_that_was_settled() {
    let mut steps = 0;
    for call in 0.. {
        let mut is_cut = false;
        for after in [false, true] {
            let memory = MemoryStore::new();
            is_cut |= crash(PowerCut { call, after }, async || MetaHandle::of(memory.clone())).await;
        }
        if !is_cut {
            break;
        }
        steps += 1;
    }
    assert!(steps > 15, "{steps} calls of the store");
}

#[tokio::test]
async fn a_crash_at_any_step_loses_nothing_on_a_real_disk() {
    for call in (0..24).step_by(2) {
        for after in [false, true] {
            let folder = TempDir::new().unwrap();
            // The store of the life before is dropped by now, and lets go of its file.
            let open = async || MetaHandle::of(SqliteStore::open(folder.path().join("edge.db")).unwrap());
            crash(PowerCut { call, after }, open).await;
        }
    }
}
