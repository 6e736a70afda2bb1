use std::time::Instant;

use kubeedge_core::twin::TwinValue;

use crate::backoff::{Backoff, Retry};

/// What is known of the value on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// It has not been read since the device was opened or came back.
    NotYet,
    /// It cannot be read.
    Unreadable,
    /// Its canonical text.
    Value(String),
}

/// The desired value of a property, and whether it has still to be written. Pure.
///
/// A desired value is written once: when it is new, and again when the device was opened or came back and does not have
/// it. What somebody sets on the device itself in between stays.
#[derive(Debug)]
pub(super) struct Wish {
    desired: Option<TwinValue>,
    /// The desired value that needs no more work: written, found on the device, or not acceptable.
    done: Option<TwinValue>,
    known: Known,
    retry: Retry,
}

impl Wish {
    pub(super) fn new() -> Self {
        Self { desired: None, done: None, known: Known::NotYet, retry: Retry::default() }
    }

    /// The desired value as the twin has it.
    pub(super) fn desire(&mut self, desired: Option<TwinValue>) {
        if self.desired != desired {
            self.desired = desired;
            self.retry.clear();
        }
    }

    /// The device was opened or came back: what it has is not known any more.
    pub(super) fn doubt(&mut self) {
        self.known = Known::NotYet;
        self.done = None;
        self.retry.clear();
    }

    pub(super) fn read(&mut self, text: String) {
        self.known = Known::Value(text);
    }

    /// Reading failed for good, so that writing need not wait for it.
    pub(super) fn unreadable(&mut self) {
        if self.known == Known::NotYet {
            self.known = Known::Unreadable;
        }
    }

    /// Whether the property has not been heard of since the device was opened or came back.
    pub(super) fn is_unknown(&self) -> bool {
        self.known == Known::NotYet
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.known == Known::Unreadable
    }

    /// The desired value, if something is to be done about it.
    pub(super) fn open(&self) -> Option<&TwinValue> {
        self.desired.as_ref().filter(|desired| self.done.as_ref() != Some(*desired) && self.known != Known::NotYet)
    }

    /// Whether the device has the value already: `canonical` is the desired one.
    pub(super) fn is_met(&self, canonical: &str) -> bool {
        matches!(&self.known, Known::Value(known) if known == canonical)
    }

    /// Nothing is left to do about the desired value.
    pub(super) fn finish(&mut self) {
        self.done.clone_from(&self.desired);
        self.retry.clear();
    }

    pub(super) fn failed(&mut self, backoff: Backoff, now: Instant) {
        self.retry.failed(backoff, now);
    }

    /// Whether writing it has failed.
    pub(super) fn was_tried(&self) -> bool {
        self.retry.is_running()
    }

    pub(super) fn retry_at(&self, now: Instant) -> Instant {
        self.retry.at(now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::names::UnixMillis;

    use super::*;

    fn value(value: &str, at: i64) -> TwinValue {
        TwinValue { value: value.to_owned(), at: UnixMillis(at) }
    }

    #[test]
    fn a_wish_waits_for_the_first_read_and_is_granted_once() {
        let mut wish = Wish::new();
        wish.desire(Some(value("60", 1)));
        assert_eq!(wish.open(), None, "what the device has is not known yet");
        wish.read("45".into());
        assert_eq!(wish.open(), Some(&value("60", 1)));
        assert!(!wish.is_met("60"));
        wish.finish();
        wish.read("45".into());
        assert_eq!(wish.open(), None, "it was set on the device itself since");
        wish.desire(Some(value("60", 2)));
        assert!(wish.open().is_some(), "wished for again");
        wish.read("60".into());
        assert!(wish.is_met("60"));
    }

    #[test]
    fn a_device_that_comes_back_gets_its_value_again() {
        let mut wish = Wish::new();
        wish.desire(Some(value("60", 1)));
        wish.read("60".into());
        wish.finish();
        wish.doubt();
        assert_eq!(wish.open(), None);
        wish.read("45".into());
        assert!(wish.open().is_some());
        wish.doubt();
        wish.unreadable();
        assert!(wish.open().is_some(), "what cannot be read is written all the same");
        wish.desire(None);
        assert_eq!(wish.open(), None);
    }
}
