//! Packet ids and the QoS 1 and 2 handshakes of one sender. Sans-IO.

use std::collections::BTreeMap;

use kubeedge_core::bus::Qos;

/// What the receiver has to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Ack,
    Received,
    Complete,
}

/// Messages sent and not yet confirmed, at most a window of them, each with what the sender remembers of it.
#[derive(Debug)]
pub(super) struct Inflight<T> {
    window: usize,
    last: u16,
    /// In the order of sending: the key is a running number, since packet ids wrap.
    open: BTreeMap<u64, (u16, Wants, T)>,
    sent: u64,
}

impl<T> Inflight<T> {
    pub(super) fn new(window: u16) -> Self {
        Self { window: usize::from(window.max(1)), last: 0, open: BTreeMap::new(), sent: 0 }
    }

    pub(super) fn has_room(&self) -> bool {
        self.open.len() < self.window
    }

    /// A packet id that is not in use, registered with `memory`. The caller has checked [`Self::has_room`].
    pub(super) fn insert(&mut self, qos: Qos, memory: T) -> u16 {
        let wants = match qos {
            Qos::ExactlyOnce => Wants::Received,
            _ => Wants::Ack,
        };
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.open.values().any(|(id, ..)| *id == self.last) {
                break;
            }
        }
        self.sent += 1;
        self.open.insert(self.sent, (self.last, wants, memory));
        self.last
    }

    fn remove(&mut self, id: u16, wanted: Wants) -> Option<T> {
        let key =
            self.open.iter().find(|(_, (open, wants, _))| *open == id && *wants == wanted).map(|(key, _)| *key)?;
        self.open.remove(&key).map(|(.., memory)| memory)
    }

    /// The receiver of a QoS 1 message, or of a request, has it.
    pub(super) fn acked(&mut self, id: u16) -> Option<T> {
        self.remove(id, Wants::Ack)
    }

    /// The receiver of a QoS 2 message has it: release it. True if such a message is open, also for the second time.
    pub(super) fn received(&mut self, id: u16) -> bool {
        let found = self.open.values_mut().find(|(open, wants, _)| *open == id && *wants != Wants::Ack);
        match found {
            Some((_, wants, _)) => {
                *wants = Wants::Complete;
                true
            }
            None => false,
        }
    }

    /// The receiver of a QoS 2 message has forgotten its id.
    pub(super) fn completed(&mut self, id: u16) -> Option<T> {
        self.remove(id, Wants::Complete)
    }

    /// All that is not confirmed, in the order of sending.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.open).into_values().map(|(.., memory)| memory)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_unique_while_open_and_skip_zero_when_they_wrap() {
        let mut inflight = Inflight::new(2);
        let held = inflight.insert(Qos::AtLeastOnce, ());
        for _ in 0..70_000 {
            let id = inflight.insert(Qos::AtLeastOnce, ());
            assert!(id != held && id != 0);
            assert!(!inflight.has_room());
            inflight.acked(id).unwrap();
        }
        assert!(inflight.acked(held).is_some());
        assert!(inflight.acked(held).is_none());
    }

    #[test]
    fn exactly_once_goes_through_both_steps_in_order() {
        let mut inflight = Inflight::new(8);
        let id = inflight.insert(Qos::ExactlyOnce, "m");
        assert_eq!(inflight.acked(id), None);
        assert_eq!(inflight.completed(id), None);
        assert!(inflight.received(id));
        assert!(inflight.received(id), "a repeated PUBREC is answered again");
        assert_eq!(inflight.completed(id), Some("m"));
        assert!(!inflight.received(id));
    }

    #[test]
    fn what_is_open_drains_in_the_order_of_sending() {
        let mut inflight = Inflight::new(8);
        inflight.last = u16::MAX - 1;
        for memory in 0..4 {
            inflight.insert(Qos::AtLeastOnce, memory);
        }
        assert_eq!(inflight.drain().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(inflight.has_room());
    }
}
