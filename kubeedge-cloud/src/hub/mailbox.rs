//! Where others leave what a connection is to send.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use futures_util::task::AtomicWaker;
use kubeedge_core::{message::Message, names::Uid, transport::Extensions};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    downlink::{Downlink, DownlinkQueue, ObjectChange},
    registry::CloseReason,
};

/// Questions that may wait for one node.
const ASKS: usize = 256;

/// Why a node has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It is not connected, or the session ended first.
    #[error("node is not connected")]
    NotConnected,
    /// Too many questions wait for it.
    #[error("too many questions wait for the node")]
    Busy,
    /// It did not answer in time.
    #[error("node did not answer in time")]
    NoReply,
}

pub(super) type Reply = oneshot::Sender<Result<Message, AskError>>;

/// A question to a node.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) message: Message,
    pub(super) reply: Reply,
}

/// What waits for the session of one node. Dropped with it.
#[derive(Debug)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    waker: AtomicWaker,
    pub(super) extensions: Extensions,
    /// Cancelled when the session is no longer that of its node.
    pub(super) left: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    queue: DownlinkQueue,
    asks: VecDeque<Asked>,
    closing: Option<CloseReason>,
    /// No conversation takes anything any more.
    ended: bool,
}

impl Mailbox {
    pub(super) fn new(extensions: Extensions) -> Self {
        Self { state: Mutex::default(), waker: AtomicWaker::new(), extensions, left: CancellationToken::new() }
    }

    /// The lock is not held while anything can panic, and what it guards is consistent between calls.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes `waker` at the next change.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(super) fn put(&self, downlink: Downlink) {
        let mut state = self.state();
        match downlink {
            Downlink::Object(change) => {
                if state.queue.put(change).is_err() {
                    state.closing.get_or_insert(CloseReason::QueueFull);
                }
            }
            Downlink::Notice(message) => state.queue.put_notice(message),
            Downlink::Answer(message) => state.queue.put_answer(message),
        }
        drop(state);
        self.waker.wake();
    }

    pub(super) fn ask(&self, asked: Asked) -> Result<(), AskError> {
        let mut state = self.state();
        if state.ended {
            return Err(AskError::NotConnected);
        }
        if state.asks.len() >= ASKS {
            return Err(AskError::Busy);
        }
        state.asks.push_back(asked);
        drop(state);
        self.waker.wake();
        Ok(())
    }

    pub(super) fn next_object(&self) -> Option<ObjectChange> {
        self.state().queue.next_object()
    }

    pub(super) fn next_notice(&self) -> Option<Message> {
        self.state().queue.next_notice()
    }

    pub(super) fn next_ask(&self) -> Option<Asked> {
        self.state().asks.pop_front()
    }

    pub(super) fn settle(&self, uid: &Uid, acknowledged: bool) -> Option<ObjectChange> {
        self.state().queue.settle(uid, acknowledged)
    }

    pub(super) fn unsettled(&self) -> Vec<ObjectChange> {
        self.state().queue.unsettled().cloned().collect()
    }

    pub(super) fn rest(&self, uid: &Uid) -> bool {
        self.state().queue.rest(uid)
    }

    pub(super) fn rested(&self, uid: &Uid) {
        self.state().queue.rested(uid);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.state().queue.dropped()
    }

    /// Asks the conversation to end; the first reason counts.
    pub(super) fn close(&self, reason: CloseReason) {
        self.state().closing.get_or_insert(reason);
        self.waker.wake();
    }

    pub(super) fn closing(&self) -> Option<CloseReason> {
        self.state().closing
    }

    /// Nobody will answer any more.
    pub(super) fn refuse_asks(&self) {
        let asks = {
            let mut state = self.state();
            state.ended = true;
            std::mem::take(&mut state.asks)
        };
        for asked in asks {
            drop(asked.reply.send(Err(AskError::NotConnected)));
        }
    }
}
