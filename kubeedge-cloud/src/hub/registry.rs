//! Who is connected.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use kubeedge_core::{message::Message, names::NodeName, transport::Extensions};
use tokio::sync::oneshot;

use super::{
    downlink::Downlink,
    feed::{Changed, SessionFeed},
    mailbox::{AskError, Asked, Mailbox},
};

/// Number of a session: grows with each connection, of whatever node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(u64);

impl fmt::Display for SessionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Nothing can be sent to a node that is not connected. It is brought to the truth when it connects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {0} is not connected")]
pub struct NotConnected(pub NodeName);

/// Why the hub ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The node has connected anew.
    Replaced,
    /// The node was deleted in Kubernetes.
    NodeDeleted,
    /// More changes waited for it than may.
    QueueFull,
    /// The cloud stops.
    Shutdown,
}

/// Sends to nodes, and tells which are connected. Cheap to clone.
#[derive(Clone)]
pub struct HubHandle(Arc<Registry>);

struct Registry {
    limit: usize,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    by_node: HashMap<NodeName, Seat>,
    /// Handshakes that may still become sessions of nodes that are not in `by_node`.
    admitted: usize,
    last: u64,
    feeds: Vec<Weak<Changed>>,
}

impl Sessions {
    /// Tells all who follow that there is news of `node`.
    fn tell(&mut self, node: &NodeName) {
        self.feeds.retain(|feed| feed.upgrade().inspect(|feed| feed.add(node)).is_some());
    }
}

struct Seat {
    number: SessionNumber,
    mailbox: Arc<Mailbox>,
}

/// None of the locks is held while anything can panic, and what they guard is consistent between calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to become the session of a node; given back when dropped.
#[derive(Debug)]
pub(super) struct Admission {
    hub: HubHandle,
    counted: bool,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.counted {
            lock(&self.hub.0.sessions).admitted -= 1;
        }
    }
}

impl HubHandle {
    /// A handle to a hub that lets in so many nodes.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Registry { limit, sessions: Mutex::default() }))
    }

    /// Sends something to a node. Returns at once: an object replaces an older version of it that still waits, and is
    /// sent until it is acknowledged or the session ends.
    ///
    /// # Errors
    /// [`NotConnected`]; nothing is kept for the node then.
    pub fn send(&self, node: &NodeName, downlink: Downlink) -> Result<(), NotConnected> {
        let mailbox = lock(&self.0.sessions).by_node.get(node).map(|seat| seat.mailbox.clone());
        mailbox.ok_or_else(|| NotConnected(node.clone()))?.put(downlink);
        Ok(())
    }

    /// Asks a node something, and waits for its answer for as long as the hub's session waits for answers: a minute by
    /// default.
    ///
    /// # Errors
    /// [`AskError`]; except for [`Busy`](AskError::Busy) the node may have the question.
    ///
    /// # Cancel safety
    /// A dropped future stops waiting; the question may have been sent.
    pub async fn ask(&self, node: &NodeName, message: Message) -> Result<Message, AskError> {
        let mailbox = lock(&self.0.sessions).by_node.get(node).map(|seat| seat.mailbox.clone());
        let (reply, answer) = oneshot::channel();
        mailbox.ok_or(AskError::NotConnected)?.ask(Asked { message, reply })?;
        answer.await.unwrap_or(Err(AskError::NotConnected))
    }

    /// What the session of `node` may do beyond KubeEdge's protocol; `None` if it is not connected.
    pub fn extensions(&self, node: &NodeName) -> Option<Extensions> {
        lock(&self.0.sessions).by_node.get(node).map(|seat| seat.mailbox.extensions)
    }

    /// The nodes that are connected, with the number of their session.
    pub fn connected(&self) -> BTreeMap<NodeName, SessionNumber> {
        lock(&self.0.sessions).by_node.iter().map(|(node, seat)| (node.clone(), seat.number)).collect()
    }

    /// The session of `node`, if it is connected.
    pub fn session(&self, node: &NodeName) -> Option<SessionNumber> {
        lock(&self.0.sessions).by_node.get(node).map(|seat| seat.number)
    }

    /// Follows all sessions.
    pub fn follow(&self) -> SessionFeed {
        let mut sessions = lock(&self.0.sessions);
        let changed = Arc::new(Changed::of(sessions.by_node.keys().cloned().collect()));
        sessions.feeds.push(Arc::downgrade(&changed));
        drop(sessions);
        SessionFeed::new(self.clone(), changed)
    }

    /// Resolves when the session `number` of `node` has ended; at once if there is no such session.
    pub async fn ended(&self, node: &NodeName, number: SessionNumber) {
        let mailbox = {
            let sessions = lock(&self.0.sessions);
            let seat = sessions.by_node.get(node).filter(|seat| seat.number == number);
            seat.map(|seat| seat.mailbox.clone())
        };
        if let Some(mailbox) = mailbox {
            mailbox.left.cancelled().await;
        }
    }

    /// Ends the session of `node`, if there is one.
    pub fn close(&self, node: &NodeName, reason: CloseReason) {
        if let Some(seat) = lock(&self.0.sessions).by_node.get(node) {
            seat.mailbox.close(reason);
        }
    }

    /// Ends the session `number` of `node`, and no other.
    pub fn close_session(&self, node: &NodeName, number: SessionNumber, reason: CloseReason) {
        if let Some(seat) = lock(&self.0.sessions).by_node.get(node).filter(|seat| seat.number == number) {
            seat.mailbox.close(reason);
        }
    }

    /// Ends all sessions.
    pub(super) fn close_all(&self, reason: CloseReason) {
        lock(&self.0.sessions).by_node.values().for_each(|seat| seat.mailbox.close(reason));
    }

    /// Lets `node` in unless too many others are; a node that is connected may always connect anew.
    pub(super) fn admit(&self, node: &NodeName) -> Option<Admission> {
        let mut sessions = lock(&self.0.sessions);
        let counted = !sessions.by_node.contains_key(node);
        if counted {
            if sessions.by_node.len() + sessions.admitted >= self.0.limit {
                return None;
            }
            sessions.admitted += 1;
        }
        Some(Admission { hub: self.clone(), counted })
    }

    /// Makes an admitted connection the session of `node`; an older one ends.
    pub(super) fn enter(
        &self,
        node: &NodeName,
        admission: Admission,
        extensions: Extensions,
    ) -> (SessionNumber, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::new(extensions));
        let (number, old) = {
            let mut sessions = lock(&self.0.sessions);
            sessions.last += 1;
            let number = SessionNumber(sessions.last);
            let seat = Seat { number, mailbox: mailbox.clone() };
            let old = sessions.by_node.insert(node.clone(), seat);
            sessions.tell(node);
            (number, old)
        };
        drop(admission);
        if let Some(old) = old {
            old.mailbox.left.cancel();
            old.mailbox.close(CloseReason::Replaced);
        }
        (number, mailbox)
    }

    /// The session has ended. One that was replaced is no longer here, so its end changes nothing.
    pub(crate) fn leave(&self, node: &NodeName, number: SessionNumber) {
        {
            let mut sessions = lock(&self.0.sessions);
            if sessions.by_node.get(node).is_none_or(|seat| seat.number != number) {
                return;
            }
            if let Some(seat) = sessions.by_node.remove(node) {
                seat.mailbox.left.cancel();
            }
            sessions.tell(node);
        }
    }
}

#[cfg(test)]
impl HubHandle {
    /// A session of `node` without a connection: gives the messages that are sent once.
    pub(crate) fn sit(&self, node: &NodeName) -> impl Fn() -> Option<kubeedge_core::message::Message> + use<> {
        let admission = self.admit(node).expect("room");
        let (_, mailbox) = self.enter(node, admission, Extensions::none());
        move || mailbox.next_notice()
    }
}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubHandle").field("sessions", &lock(&self.0.sessions).by_node.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    #[test]
    fn the_end_of_a_replaced_session_does_not_touch_the_new_one() {
        let hub = HubHandle::new(1);
        let (first, old) = hub.enter(&node("a"), hub.admit(&node("a")).unwrap(), Extensions::none());
        let (second, _new) = hub.enter(&node("a"), hub.admit(&node("a")).unwrap(), Extensions::none());
        assert_eq!(old.closing(), Some(CloseReason::Replaced));
        hub.leave(&node("a"), first);
        assert_eq!(hub.session(&node("a")), Some(second));
        hub.leave(&node("a"), second);
        assert!(hub.connected().is_empty());
    }

    #[test]
    fn the_limit_counts_handshakes_too() {
        let hub = HubHandle::new(2);
        let first = hub.admit(&node("a")).unwrap();
        let second = hub.admit(&node("b")).unwrap();
        assert!(hub.admit(&node("c")).is_none());
        drop(second);
        let third = hub.admit(&node("c")).unwrap();
        hub.enter(&node("a"), first, Extensions::none());
        assert!(hub.admit(&node("a")).is_some(), "who is in may come back");
        drop(third);
        assert!(hub.admit(&node("d")).is_some());
    }

    #[test]
    fn nothing_is_kept_for_the_absent() {
        let hub = HubHandle::new(1);
        let notice = kubeedge_core::message::Message::new(
            kubeedge_core::names::UnixMillis(0),
            kubeedge_core::words::Source::CloudHub,
            kubeedge_core::words::Group::Twin,
            kubeedge_core::words::Operation::Update,
            kubeedge_core::resource::Resource::Membership,
        );
        assert_eq!(hub.send(&node("a"), Downlink::Notice(notice)), Err(NotConnected(node("a"))));
    }

    /// A ledger that cannot be read, and counts who waits for it.
    #[derive(Default)]
    struct Away(Arc<()>);

    #[async_trait::async_trait]
    impl crate::sync::SyncLedger for Away {
        async fn list(&self, _: &NodeName) -> Result<Vec<crate::sync::LedgerEntry>, crate::sync::LedgerError> {
            let _waiting = self.0.clone();
            std::future::pending().await
        }

        async fn record(&self, _: &NodeName, _: &crate::sync::LedgerEntry) -> Result<(), crate::sync::LedgerError> {
            Ok(())
        }

        async fn forget(&self, _: &NodeName, _: &crate::sync::LedgerEntry) -> Result<(), crate::sync::LedgerError> {
            Ok(())
        }

        async fn nodes(&self) -> Result<Vec<NodeName>, crate::sync::LedgerError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn sessions_that_come_and_go_while_the_api_is_away_leave_nothing() {
        let (service, _api) =
            tower_test::mock::pair::<http::Request<kube::client::Body>, http::Response<kube::client::Body>>();
        let hub = HubHandle::new(10);
        let truth = crate::sync::Truth::new(kube::Client::new(service, "default"), hub.clone());
        let waiting = Arc::new(());
        let log = crate::sync::DeliveryLog::new(Arc::new(Away(waiting.clone())));
        let shutdown = tokio_util::sync::CancellationToken::new();
        let greet = |_| std::future::ready(());
        let clock = Arc::new(kubeedge_core::names::SystemClock);
        let sweep = std::time::Duration::from_secs(3600);
        let controller = crate::sync::SyncController { truth, log, hub: hub.clone(), clock, kinds: Vec::new(), sweep };
        let compared = tokio::spawn(controller.run(greet, shutdown.clone()));
        // One of these is ours, and one the ledger's.
        let until = async |count: usize| {
            while Arc::strong_count(&waiting) != count + 2 {
                tokio::task::yield_now().await;
            }
        };
        let soon = std::time::Duration::from_secs(10);
        for _ in 0..3 {
            let (number, _mailbox) = hub.enter(&node("a"), hub.admit(&node("a")).unwrap(), Extensions::none());
            tokio::time::timeout(soon, until(1)).await.unwrap();
            hub.leave(&node("a"), number);
            tokio::time::timeout(soon, until(0)).await.unwrap();
        }
        shutdown.cancel();
        compared.await.unwrap();
    }
}
