#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::device::report::StateReport;

const INTERVAL: Duration = Duration::from_secs(1);

fn device(number: usize) -> DeviceId {
    format!("default/d{number}").parse().unwrap()
}

fn state(word: &str) -> Changes {
    let report: StateReport = serde_json::from_value(json!({ "device": { "state": word } })).unwrap();
    report.changes()
}

fn report(id: &str, word: &str) -> Batch {
    let (node, id) = (NodeName::new("edge-1").unwrap(), MessageId::new(id).unwrap());
    Batch { node, reports: vec![id], changes: state(word) }
}

fn ids(batch: &Batch) -> Vec<&str> {
    batch.reports.iter().map(MessageId::as_str).collect()
}

fn known(version: &str) -> Known {
    Known { owner: Uid::new("u").unwrap(), version: version.into(), status: DeviceStatusStatus::default() }
}

#[test]
fn the_first_report_is_due_at_once_and_what_follows_makes_one_write() {
    let (mut board, start) = (Board::new(INTERVAL), Instant::now());
    board.put(&device(1), report("1", "online"), start);
    let first = board.take(start).unwrap();
    for (id, word) in [("2", "offline"), ("3", "ok")] {
        board.put(&device(1), report(id, word), start);
    }
    assert_eq!(board.due(), None, "one write at a time");
    board.written(&first, known("7"), start);
    assert_eq!(board.due(), Some(start + INTERVAL));
    assert!(board.take(start + INTERVAL - Duration::from_millis(1)).is_none());
    let second = board.take(start + INTERVAL).unwrap();
    assert_eq!(ids(&second.batch), ["2", "3"]);
    assert_eq!(second.batch.changes, state("ok"), "the newest wins");
    assert_eq!(second.known.as_ref().unwrap().version, "7", "it need not be read");
    board.written(&second, known("8"), start + INTERVAL);
    assert_eq!(board.due(), None);
}

#[test]
fn what_failed_is_tried_again_with_what_came_since() {
    let (mut board, start) = (Board::new(Duration::ZERO), Instant::now());
    board.put(&device(1), report("1", "online"), start);
    let mut now = start;
    for attempt in 2..20 {
        let job = board.take(now).unwrap();
        board.put(&device(1), report(&attempt.to_string(), &attempt.to_string()), now);
        board.failed(&job, now);
        let due = board.due().unwrap();
        assert!(due > now && due <= now + Duration::from_secs(6), "with a pause that has a bound");
        now = due;
    }
    let job = board.take(now).unwrap();
    assert_eq!((ids(&job.batch).len(), &job.batch.changes, &job.known), (19, &state("19"), &None));
    board.written(&job, known("1"), now);
    board.put(&device(1), report("x", "ok"), now);
    assert_eq!(board.due(), Some(now), "a success ends the pauses");
}

#[test]
fn devices_take_turns_whoever_reports_most() {
    let (mut board, start) = (Board::new(INTERVAL), Instant::now());
    for number in 0..100 {
        board.put(&device(number), report("a", "online"), start);
        board.put(&device(0), report(&format!("more-{number}"), "online"), start);
    }
    let mut order = Vec::new();
    // One write at a time, each of which takes so long that all are late.
    let mut now = start;
    for round in 0..200 {
        let job = board.take(now).unwrap();
        now += Duration::from_millis(20);
        board.written(&job, known("1"), now);
        board.put(&job.device, report(&round.to_string(), "online"), now);
        order.push(job.device);
    }
    let expected: Vec<_> = (0..100).chain(0..100).map(device).collect();
    assert_eq!(order, expected);
}

#[test]
fn memory_is_one_entry_per_device_however_much_it_reports() {
    let (mut board, start) = (Board::new(INTERVAL), Instant::now());
    for number in 0..10_000 {
        board.put(&device(1), report(&number.to_string(), "online"), start);
    }
    let job = board.take(start).unwrap();
    assert_eq!(job.batch.reports.len(), REPORTS);
    assert_eq!(job.batch.reports.last().unwrap().as_str(), "9999");
    board.put(&device(1), report("again", "online"), start);
    board.put(&device(1), report("again", "online"), start);
    board.written(&job, known("1"), start);
    let job = board.take(start + INTERVAL).unwrap();
    assert_eq!(ids(&job.batch), ["again"], "a repetition is confirmed once");
    board.given_up(&job, start);
    assert_eq!((board.devices().count(), board.due()), (0, None));
}

#[test]
fn a_write_of_a_device_that_is_gone_does_not_touch_its_successor() {
    let (mut board, start) = (Board::new(INTERVAL), Instant::now());
    board.put(&device(1), report("1", "online"), start);
    let old = board.take(start).unwrap();
    board.put(&device(1), report("2", "online"), start);
    assert_eq!(ids(&board.forget(&device(1)).unwrap()), ["2"]);
    board.put(&device(1), report("3", "online"), start);
    let new = board.take(start).unwrap();
    board.written(&old, known("1"), start);
    board.put(&device(1), report("4", "online"), start);
    assert_eq!(board.due(), None, "the new one is still being written");
    board.written(&new, known("2"), start);
    assert_eq!(board.take(start + INTERVAL).unwrap().known.unwrap().version, "2");
}

#[test]
fn a_node_that_has_lost_the_device_says_nothing_about_it() {
    let (mut board, start) = (Board::new(INTERVAL), Instant::now());
    board.put(&device(1), report("1", "online"), start);
    let job = board.take(start).unwrap();
    board.put(&device(1), report("2", "offline"), start);
    let node = NodeName::new("edge-2").unwrap();
    board.put(&device(1), Batch { node: node.clone(), ..report("3", "ok") }, start);
    board.failed(&job, start);
    let job = board.take(start + INTERVAL).unwrap();
    assert_eq!((&job.batch.node, ids(&job.batch), &job.batch.changes), (&node, vec!["3"], &state("ok")));
}
