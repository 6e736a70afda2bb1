//! Links that end in order: half of them at a time.

use super::*;

/// A session with one of each kind on its way, all written.
fn busy(config: SessionConfig, now: Instant) -> (Session, [Message; 2], [Ticket; 2]) {
    let mut session = Session::new(config, now);
    let (object, request) = (update("web", 1), update("db", 1));
    let tickets =
        [session.submit(now, acked(object.clone())).unwrap(), session.submit(now, replied(request.clone())).unwrap()];
    transmits(&mut session);
    (session, [object, request], tickets)
}

#[test]
fn a_session_that_finishes_takes_nothing_new_and_settles_what_it_has() {
    let now = Instant::now();
    let (mut edge, [object, request], tickets) = busy(SessionConfig::edge().window(4), now);
    let delivered = update("late", 1);
    edge.handle_message(now, delivered.clone());
    edge.finish();
    edge.finish();
    for refused in [acked(update("new", 1)), replied(update("new", 1))] {
        assert_eq!(edge.submit(now, refused.clone()), Err(SubmitError::Ended(refused.into())));
    }
    assert_eq!(edge.window_left(), 0);
    edge.handle_message(now, update("new", 1));
    assert_eq!(events(&mut edge), [SessionEvent::Deliver(delivered.clone())], "the new one comes in the next session");
    edge.submit(now, written(delivered.acknowledgement(WALL))).expect("what was delivered may be acknowledged");
    assert!(!edge.is_finished());
    assert!(transmits(&mut edge).iter().any(|sent| sent.parent.as_ref() == Some(&delivered.id)));
    events(&mut edge);
    edge.handle_timeout(at(now, 5), WALL);
    assert!(transmits(&mut edge).contains(&object), "it is still sent again");
    let reply = request.acknowledgement(WALL);
    edge.handle_message(now, reply.clone());
    edge.handle_message(now, object.acknowledgement(WALL));
    assert_eq!(settled(&mut edge), [(tickets[1], Ok(Receipt::Reply(reply))), (tickets[0], Ok(Receipt::Done))]);
    assert!(edge.is_finished());
}

#[test]
fn a_peer_that_sends_no_more_settles_nothing_but_may_still_be_written_to() {
    let now = Instant::now();
    let (mut cloud, [object, _], tickets) = busy(SessionConfig::cloud(), now);
    let answer = cloud.submit(now, written(update("answer", 1))).unwrap();
    cloud.peer_finished();
    let lost: Vec<_> = tickets.into_iter().map(|ticket| (ticket, Err(Unsettled::LinkEnded))).collect();
    assert_eq!(settled(&mut cloud), lost);
    assert!(matches!(cloud.submit(now, acked(object.clone())), Err(SubmitError::Ended(_))));
    cloud.handle_message(now, object.acknowledgement(WALL));
    assert_eq!(events(&mut cloud), [], "what a closed half says is not heard");
    assert!(!cloud.is_finished());
    assert_eq!(transmits(&mut cloud).len(), 1);
    assert_eq!(settled(&mut cloud), [(answer, Ok(Receipt::Done))]);
    assert!(cloud.is_finished());
}

#[test]
fn what_waited_for_the_link_when_the_peer_finished_is_told_so_and_not_written() {
    let now = Instant::now();
    let mut edge = Session::new(SessionConfig::edge(), now);
    let object = edge.submit(now, acked(update("web", 1))).unwrap();
    edge.submit(now, written(update("answer", 1))).unwrap();
    edge.peer_finished();
    assert_eq!(transmits(&mut edge).len(), 1);
    assert_eq!(settled(&mut edge).first(), Some(&(object, Err(Unsettled::LinkEnded))));
    edge.handle_timeout(at(now, 60), WALL);
    assert_eq!((transmits(&mut edge), edge.poll_timeout()), (vec![], None), "it need not be told that we live");
}

#[test]
fn silence_ends_a_half_closed_session_of_the_cloud() {
    let now = Instant::now();
    let mut cloud = Session::new(SessionConfig::cloud(), now);
    cloud.submit(now, written(update("answer", 1))).unwrap();
    cloud.peer_finished();
    cloud.handle_timeout(at(now, 30), WALL);
    assert_eq!(events(&mut cloud).pop(), Some(SessionEvent::Ended(SessionEnd::KeepaliveMissed)));
    assert_eq!((cloud.poll_timeout(), cloud.transmit_len()), (None, 0));
}
