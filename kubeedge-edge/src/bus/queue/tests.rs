#![allow(clippy::unwrap_used)]
use kubeedge_core::topic::Topic;
use tokio_test::{assert_pending, assert_ready, task::spawn};

use super::*;

fn event(topic: &str, number: u8) -> Event {
    Event::new(Topic::new(topic).unwrap(), vec![number])
}

fn casual(number: u8) -> Event {
    Event { qos: Qos::AtMostOnce, ..event("t", number) }
}

/// What waits, by payload; `L` for lagged with its number, `R` for resynced.
fn read(queue: &Queue) -> Vec<String> {
    let mut items = Vec::new();
    while let std::task::Poll::Ready(Some(item)) = spawn(queue.next()).poll() {
        items.push(match item {
            BusEvent::Message(event) => event.payload[0].to_string(),
            BusEvent::Lagged(number) => format!("L{number}"),
            BusEvent::Resynced => "R".to_owned(),
            _ => unreachable!(),
        });
    }
    items
}

#[test]
fn a_full_queue_holds_publishers_in_their_order() {
    let queue = Queue::new(2, Policy::Hold);
    assert!(queue.offer(event("t", 1)).is_none());
    assert!(queue.offer(event("t", 2)).is_none());
    let mut third = queue.offer(event("t", 3)).unwrap();
    let mut fourth = queue.offer(event("t", 4)).unwrap();
    let mut third = spawn(third.admitted());
    let mut fourth = spawn(fourth.admitted());
    assert_pending!(third.poll());
    assert_pending!(fourth.poll());
    assert!(matches!(assert_ready!(spawn(queue.next()).poll()), Some(BusEvent::Message(e)) if e.payload[0] == 1));
    assert_ready!(third.poll());
    assert_pending!(fourth.poll());
    assert_eq!(read(&queue), ["2", "3", "4"]);
    assert_ready!(fourth.poll());
}

#[test]
fn a_publisher_that_gives_up_takes_its_event_back() {
    let queue = Queue::new(1, Policy::Hold);
    assert!(queue.offer(event("t", 1)).is_none());
    for _ in 0..1000 {
        drop(queue.offer(event("t", 2)).unwrap());
    }
    assert_eq!(read(&queue), ["1"]);
}

#[test]
fn an_admitted_event_stays_when_its_publisher_goes() {
    let queue = Queue::new(1, Policy::Hold);
    assert!(queue.offer(event("t", 1)).is_none());
    let hold = queue.offer(event("t", 2)).unwrap();
    assert!(assert_ready!(spawn(queue.next()).poll()).is_some());
    drop(hold);
    assert_eq!(read(&queue), ["2"]);
}

#[test]
fn drop_oldest_counts_what_it_drops() {
    let queue = Queue::new(2, Policy::DropOldest);
    for number in 1..=5 {
        assert!(queue.offer(event("t", number)).is_none());
    }
    assert_eq!(read(&queue), ["L3", "4", "5"]);
}

#[test]
fn keep_latest_keeps_one_of_each_topic() {
    let queue = Queue::new(2, Policy::KeepLatest);
    for number in 1..=3 {
        queue.offer(event("a", number));
        queue.offer(event("b", number + 10));
    }
    assert_eq!(read(&queue), ["3", "13"]);
    for (topic, number) in [("a", 1), ("b", 2), ("c", 3)] {
        queue.offer(event(topic, number));
    }
    assert_eq!(read(&queue), ["L1", "2", "3"]);
}

#[test]
fn reconnects_nobody_read_of_are_told_once() {
    let queue = Queue::new(2, Policy::DropOldest);
    queue.resync();
    queue.offer(event("t", 1));
    queue.resync();
    queue.resync();
    assert_eq!(read(&queue), ["1", "R"]);
}

#[test]
fn a_closed_queue_is_read_to_its_end_and_lets_publishers_go() {
    let queue = Queue::new(1, Policy::Hold);
    queue.offer(event("t", 1));
    let mut hold = queue.offer(event("t", 2)).unwrap();
    let mut held = spawn(hold.admitted());
    assert_pending!(held.poll());
    queue.close();
    assert!(held.is_woken());
    assert_ready!(held.poll());
    assert!(queue.offer(event("t", 3)).is_none());
    assert_eq!(read(&queue), ["1", "2"]);
    assert!(assert_ready!(spawn(queue.next()).poll()).is_none());
}

#[test]
fn a_dropped_subscription_lets_publishers_go_and_tells_its_source() {
    let queue = Queue::new(1, Policy::Hold);
    let (told, telling) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let source = Arc::clone(&told);
    let open = subscription(Arc::clone(&queue), move || source.notify_one());
    queue.offer(event("t", 1));
    let mut hold = queue.offer(event("t", 2)).unwrap();
    drop(open);
    assert_ready!(spawn(hold.admitted()).poll());
    assert_ready!(spawn(told.notified()).poll());
    assert!(queue.is_abandoned());
    drop(telling);
}

#[tokio::test(start_paused = true)]
async fn patience_ends_with_a_cut_but_only_drops_what_may_be_lost() {
    let patience = Duration::from_secs(1);
    let queue = Queue::new(1, Policy::HoldFor(patience));
    queue.offer(casual(1));
    let start = Instant::now();
    queue.offer(casual(2)).unwrap().admitted().await;
    assert_eq!(start.elapsed(), patience);
    assert!(queue.offer(casual(3)).is_none(), "no patience is left");
    assert_eq!(read(&queue), ["1"]);

    queue.offer(event("t", 4));
    let mut hold = queue.offer(event("t", 5)).unwrap();
    hold.admitted().await;
    assert_eq!(queue.next().await, None, "an event that must arrive has not: the queue is cut");
}

#[tokio::test(start_paused = true)]
async fn patience_comes_back_when_the_reader_has_caught_up() {
    let queue = Queue::new(1, Policy::HoldFor(Duration::from_secs(1)));
    for round in 0..10 {
        assert!(queue.offer(event("t", round)).is_none());
        let mut hold = queue.offer(event("t", round)).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(900), hold.admitted()).await.is_err());
        assert_eq!(read(&queue).len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_steady_but_slow_reader_uses_its_patience_up() {
    let queue = Queue::new(1, Policy::HoldFor(Duration::from_secs(1)));
    queue.offer(event("t", 0));
    let mut cut = false;
    for round in 0..10 {
        let Some(mut hold) = queue.offer(event("t", round)) else {
            cut = true;
            break;
        };
        let slow = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            queue.next().await
        };
        tokio::join!(hold.admitted(), slow);
    }
    assert!(cut);
}
