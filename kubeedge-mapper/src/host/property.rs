use std::time::{Duration, Instant};

use kubeedge_core::device::{AccessMode, PropertyInstance};

use super::wish::Wish;
use crate::{push::Way, report::DeadBand};

/// What a device task knows of a property.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) spec: PropertyInstance,
    pub(super) wish: Wish,
    pub(super) band: DeadBand,
    /// Failed reads in a row: those that work are read first.
    pub(super) failures: u32,
    complaint: Option<String>,
    /// Where else its values go; `None` if that is still to be found out.
    pub(super) ways: Option<Vec<Way>>,
    push_at: Option<Instant>,
}

impl Property {
    pub(super) fn new(spec: PropertyInstance) -> Self {
        let band = DeadBand::read(&spec.visitor.config).unwrap_or_else(|error| {
            tracing::warn!(property = %spec.visitor.property, %error, "there is no dead band");
            DeadBand::default()
        });
        Self { spec, wish: Wish::new(), band, failures: 0, complaint: None, ways: None, push_at: None }
    }

    /// The property as it is specified now; what is known of it is kept if it is found at the same place.
    pub(super) fn respecified(mut self, spec: &PropertyInstance) -> Self {
        if self.spec.visitor != spec.visitor {
            return Self::new(spec.clone());
        }
        if (&self.spec.minimum, &self.spec.maximum, self.spec.access) != (&spec.minimum, &spec.maximum, spec.access) {
            // What was refused may be allowed now.
            self.wish.doubt();
        }
        if self.spec.push != spec.push {
            self.ways = None;
        }
        self.spec = spec.clone();
        self
    }

    pub(super) fn is_writable(&self) -> bool {
        self.spec.access == AccessMode::ReadWrite
    }

    /// Whether the value that was read at `now` is to be pushed. The beat is kept although reads come a little early or
    /// late.
    pub(super) fn is_push_due(&mut self, now: Instant) -> bool {
        let cycle = self.spec.report_cycle.unwrap_or(Duration::from_secs(1));
        if self.push_at.is_some_and(|at| now + cycle / 10 < at) {
            return false;
        }
        self.push_at = match self.push_at {
            Some(at) if at + cycle > now => Some(at + cycle),
            _ => Some(now + cycle),
        };
        true
    }

    /// Whether `complaint` is news, and worth a line in the log.
    pub(super) fn complain(&mut self, complaint: String) -> bool {
        if self.complaint.as_ref() == Some(&complaint) {
            return false;
        }
        self.complaint = Some(complaint);
        true
    }

    pub(super) fn all_well(&mut self) {
        self.failures = 0;
        self.complaint = None;
    }
}
