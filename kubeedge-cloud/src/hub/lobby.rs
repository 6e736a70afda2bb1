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

/// A connection in the lobby. Dropping it makes room.
pub(super) struct Guest {
    lobby: Lobby,
    number: u64,
    gone: CancellationToken,
    _room: OwnedSemaphorePermit,
}

impl Lobby {
    pub(super) fn new() -> Self {
        Self::of(ROOM, HANDSHAKES)
    }

    fn of(room: usize, handshakes: usize) -> Self {
        let at_once = (room / PART).max(1);
        Self(Arc::new(Shared { room: Arc::new(Semaphore::new(room)), handshakes, at_once, guests: Mutex::default() }))
    }

    /// Waits for room for one more. If there is none, some have to go.
    pub(super) async fn enter(&self) -> Guest {
        let room = loop {
            if let Ok(Ok(room)) = timeout(LOOK, self.0.room.clone().acquire_owned()).await {
                break room;
            }
            self.guests().make_room(self.0.at_once);
        };
        let gone = CancellationToken::new();
        let mut guests = self.guests();
        guests.last += 1;
        let number = guests.last;
        guests.silent.insert(number, Place::new(&gone));
        drop(guests);
        Guest { lobby: self.clone(), number, gone, _room: room }
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

    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_says_nothing_keeps_nobody_out() {
        let lobby = Lobby::of(3, 2);
        let (first, mut second, third) = (lobby.enter().await, lobby.enter().await, lobby.enter().await);
        second.shake().await;
        let mut fourth = Box::pin(lobby.enter());
        assert!(timeout(SILENCE + LOOK, &mut fourth).await.is_err(), "as long as the first is still there");
        assert!(first.gone().is_cancelled(), "it has been silent for longest");
        assert!(!second.gone().is_cancelled() && !third.gone().is_cancelled());
        drop(first);
        let _fourth = fourth.await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_dawdles_gives_its_place_only_to_one_that_waits() {
        let lobby = Lobby::of(10, 1);
        let mut slow = lobby.enter().await;
        slow.shake().await;
        sleep(Duration::from_secs(60)).await;
        assert!(!slow.gone().is_cancelled());
        let gone = slow.gone();
        let leaving = tokio::spawn(async move {
            gone.cancelled().await;
            drop(slow);
        });
        let mut other = lobby.enter().await;
        assert!(timeout(Duration::from_secs(1), other.shake()).await.is_ok());
        assert!(leaving.await.is_ok());
        // The next one has to wait until this one is slow, too.
        let mut next = lobby.enter().await;
        assert!(timeout(Duration::from_secs(1), next.shake()).await.is_err());
        assert!(!other.gone().is_cancelled());
        drop(next);
        // Of two that wait, the newest is served first.
        let (mut older, mut newer) = (lobby.enter().await, lobby.enter().await);
        let (mut served_older, mut served_newer) = (Box::pin(older.shake()), Box::pin(newer.shake()));
        assert!(timeout(Duration::from_millis(1), &mut served_older).await.is_err());
        assert!(timeout(Duration::from_millis(1), &mut served_newer).await.is_err());
        drop(other);
        assert!(timeout(Duration::from_secs(1), served_newer).await.is_ok());
        assert!(timeout(Duration::from_secs(1), served_older).await.is_err());
    }
}
