//! Connections that have not shaken hands yet: how many there may be, and who has to go when there are more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Connections of one listener that are not sessions yet; further ones wait in its backlog.
const ROOM: usize = 4096;
/// Of those, handshakes under way: each costs memory, and the peer decides how long it takes.
const HANDSHAKES: usize = 512;
/// A handshake that takes longer gives its place to one that waits. Without others waiting it may take its time.
const PATIENCE: Duration = Duration::from_secs(2);
/// A peer that has something to say has said it by then; one that has not may be sent away.
const SILENCE: Duration = Duration::from_millis(250);
/// Seats that no session takes.
const SPARE: usize = 16;
/// Between two looks for those that have to go.
const LOOK: Duration = Duration::from_millis(100);
/// The part of a crowd that is sent away at one look.
const PART: usize = 16;

/// Bounds the connections of one listener that are not sessions yet. Cheap to clone.
///
/// A peer that connects and says nothing costs a file descriptor and little memory. When there is no room for others, those
/// go that have been silent for longest, and then those that have waited for longest; so a crowd does not keep out those
/// that come later. Handshakes that dawdle lose their place only when others wait for one, and of those that wait the
/// newest is served first: in a crowd it is the one that still cares.
#[derive(Clone)]
pub(super) struct Lobby(Arc<Shared>);

struct Shared {
    room: Arc<Semaphore>,
    seats: Seats,
    handshakes: usize,
    at_once: usize,
    guests: Mutex<Guests>,
}

/// Each in the order in which they came; a guest is in one of the three.
#[derive(Default)]
struct Guests {
    last: u64,
    silent: BTreeMap<u64, Place>,
    waiting: BTreeMap<u64, (oneshot::Sender<()>, Place)>,
    shaking: BTreeMap<u64, Place>,
}

struct Place {
    since: Instant,
    gone: CancellationToken,
}

impl Place {
    fn new(gone: &CancellationToken) -> Self {
        Self { since: Instant::now(), gone: gone.clone() }
    }

    /// Sends the guest away if it has been here for so long.
    fn leave_after(&self, patience: Duration) -> bool {
        let leaves = self.since + patience <= Instant::now();
        if leaves {
            self.gone.cancel();
        }
        leaves
    }
}

/// Room for a connection that is still to come.
pub(super) struct Room {
    _room: OwnedSemaphorePermit,
    seat: Seat,
}

/// The seats of a listener: sockets that may be open at a time. Cheap to clone.
#[derive(Clone)]
pub(super) struct Seats(Arc<Semaphore>);

/// Dropping it leaves.
pub(super) struct Seat(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Seats {
    fn new(seats: usize) -> Self {
        Self(Arc::new(Semaphore::new(seats.clamp(1, Semaphore::MAX_PERMITS))))
    }

    async fn take(&self) -> Option<Seat> {
        self.0.clone().acquire_owned().await.ok().map(Seat)
    }

    /// Whether one more session may stay: the last seats are for those that are turned away, so that they are told.
    pub(super) fn suffice(&self) -> bool {
        self.0.available_permits() >= SPARE
    }
}

/// A connection in the lobby. Dropping it makes room.
pub(super) struct Guest {
    lobby: Lobby,
    number: u64,
    gone: CancellationToken,
    _room: OwnedSemaphorePermit,
}

impl Lobby {
    /// Every connection needs a seat, from its begin to the end of its session.
    pub(super) fn new(seats: usize) -> Self {
        Self::of(ROOM, HANDSHAKES, seats)
    }

    fn of(room: usize, handshakes: usize, seats: usize) -> Self {
        let at_once = (room / PART).max(1);
        let (room, seats) = (Arc::new(Semaphore::new(room)), Seats::new(seats));
        Self(Arc::new(Shared { room, seats, handshakes, at_once, guests: Mutex::default() }))
    }

    /// Whether there are seats for a session, and some to spare for those that will be turned away.
    pub(super) fn seats(&self) -> Seats {
        self.0.seats.clone()
    }

    /// Waits for room for one more. If there is none, some have to go.
    pub(super) async fn room(&self) -> Room {
        loop {
            let place = async { Some((self.0.room.clone().acquire_owned().await.ok()?, self.0.seats.take().await?)) };
            if let Ok(Some((room, seat))) = timeout(LOOK, place).await {
                return Room { _room: room, seat };
            }
            self.guests().make_room(self.0.at_once);
        }
    }

    /// Somebody has come for whom there is room. As long as nothing is heard of it, it counts as silent.
    pub(super) fn welcome(&self, room: Room) -> (Guest, Seat) {
        let Room { _room: room, seat } = room;
        let gone = CancellationToken::new();
        let mut guests = self.guests();
        guests.last += 1;
        let number = guests.last;
        guests.silent.insert(number, Place::new(&gone));
        drop(guests);
        (Guest { lobby: self.clone(), number, gone, _room: room }, seat)
    }

    /// How many handshakes are under way.
    pub(super) fn handshakes(&self) -> usize {
        self.guests().shaking.len()
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        // Nothing panics under the lock.
        self.0.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guests {
    /// Gives free places to those that came last.
    fn serve(&mut self, places: usize) {
        while self.shaking.len() < places
            && let Some((number, (served, Place { gone, .. }))) = self.waiting.pop_last()
        {
            // One that has gone meanwhile has left nothing behind.
            if served.send(()).is_ok() {
                self.shaking.insert(number, Place::new(&gone));
            }
        }
    }

    /// Sends away the oldest handshake, if it takes too long.
    fn hurry(&self) {
        if let Some(oldest) = self.shaking.values().find(|place| !place.gone.is_cancelled()) {
            oldest.leave_after(PATIENCE);
        }
    }

    /// Sends away some of those that have been silent, or have waited, for longest.
    fn make_room(&mut self, at_once: usize) {
        for _ in 0..at_once {
            if let Some(oldest) = self.silent.first_entry()
                && oldest.get().leave_after(SILENCE)
            {
                oldest.remove();
            } else if let Some(oldest) = self.waiting.first_entry()
                && oldest.get().1.leave_after(PATIENCE)
            {
                oldest.remove();
            } else {
                return;
            }
        }
    }
}

impl Guest {
    /// Resolves when the guest has to go, because others need its place.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// The peer has spoken: waits for a place for its handshake.
    pub(super) async fn shake(&mut self) {
        let lobby = self.lobby.clone();
        let (sender, mut served) = oneshot::channel();
        {
            let mut guests = lobby.guests();
            guests.silent.remove(&self.number);
            guests.waiting.insert(self.number, (sender, Place::new(&self.gone)));
            guests.serve(lobby.0.handshakes);
        }
        loop {
            tokio::select! {
                biased;
                served = &mut served => match served {
                    Ok(()) => return,
                    // It has to go.
                    Err(_) => std::future::pending().await,
                },
                () = sleep(LOOK) => lobby.guests().hurry(),
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.lobby.guests();
        guests.silent.remove(&self.number);
        guests.waiting.remove(&self.number);
        guests.shaking.remove(&self.number);
        guests.serve(self.lobby.0.handshakes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn enter(lobby: &Lobby) -> Guest {
        lobby.welcome(lobby.room().await).0
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_only_just_come_is_not_the_longest_silent() {
        let lobby = Lobby::of(2, 2, 100);
        let mut first = enter(&lobby).await;
        first.shake().await;
        // Nobody comes for long.
        let room = lobby.room().await;
        sleep(Duration::from_secs(3600)).await;
        let (second, _seat) = lobby.welcome(room);
        assert!(timeout(LOOK * 2, lobby.room()).await.is_err());
        assert!(!second.gone().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_says_nothing_keeps_nobody_out() {
        let lobby = Lobby::of(3, 2, 100);
        let (first, mut second, third) = (enter(&lobby).await, enter(&lobby).await, enter(&lobby).await);
        second.shake().await;
        let mut fourth = Box::pin(enter(&lobby));
        assert!(timeout(SILENCE + LOOK, &mut fourth).await.is_err(), "as long as the first is still there");
        assert!(first.gone().is_cancelled(), "it has been silent for longest");
        assert!(!second.gone().is_cancelled() && !third.gone().is_cancelled());
        drop(first);
        let _fourth = fourth.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_dawdles_gives_its_place_only_to_one_that_waits() {
        let lobby = Lobby::of(10, 1, 100);
        let mut slow = enter(&lobby).await;
        slow.shake().await;
        sleep(Duration::from_secs(60)).await;
        assert!(!slow.gone().is_cancelled());
        let gone = slow.gone();
        let leaving = tokio::spawn(async move {
            gone.cancelled().await;
            drop(slow);
        });
        let mut other = enter(&lobby).await;
        assert!(timeout(Duration::from_secs(1), other.shake()).await.is_ok());
        assert!(leaving.await.is_ok());
        // The next one has to wait until this one is slow, too.
        let mut next = enter(&lobby).await;
        assert!(timeout(Duration::from_secs(1), next.shake()).await.is_err());
        assert!(!other.gone().is_cancelled());
        drop(next);
        // Of two that wait, the newest is served first.
        let (mut older, mut newer) = (enter(&lobby).await, enter(&lobby).await);
        let (mut served_older, mut served_newer) = (Box::pin(older.shake()), Box::pin(newer.shake()));
        assert!(timeout(Duration::from_millis(1), &mut served_older).await.is_err());
        assert!(timeout(Duration::from_millis(1), &mut served_newer).await.is_err());
        drop(other);
        assert!(timeout(Duration::from_secs(1), served_newer).await.is_ok());
        assert!(timeout(Duration::from_secs(1), served_older).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_leave_seats_for_those_that_are_turned_away() {
        let lobby = Lobby::of(100, 100, SPARE + 2);
        let seats = lobby.seats();
        let (guest, first) = lobby.welcome(lobby.room().await);
        drop(guest);
        assert!(seats.suffice(), "for itself and another");
        let (_guest, _second) = lobby.welcome(lobby.room().await);
        assert!(seats.suffice());
        let (_other, third) = lobby.welcome(lobby.room().await);
        assert!(!seats.suffice(), "there is a seat to be told so, but not to stay");
        drop((first, third));
        assert!(seats.suffice());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_say_nothing_give_up_their_seats() {
        let lobby = Lobby::of(100, 100, 2);
        let (_session, (silent, seat)) = (lobby.welcome(lobby.room().await).1, lobby.welcome(lobby.room().await));
        let gone = silent.gone();
        tokio::spawn(async move {
            gone.cancelled().await;
            drop((silent, seat));
        });
        assert!(timeout(SILENCE + LOOK * 3, lobby.room()).await.is_ok());
    }
}
